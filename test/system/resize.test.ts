/** R26 with real processes: a disk grows under its guest, its replica follows, and what cannot be done is refused in one line. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { probeDisk } from '../../src/disk/open-disk.ts';
import { formatsFor, makeDisk } from '../rig/disk-formats.ts';
import { Pair, type VmShape } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';
import { replicatingPair } from './resync-rig.ts';

const MIB = 1 << 20;

const sizeOf = async (path: string): Promise<number> => (await probeDisk(path)).virtualSize;

async function refused(server: TestServer, words: string[], status: number, code: string, message: RegExp): Promise<void> {
  const done = await server.cli('vm', 'resize', ...words, '--json');
  const { error } = JSON.parse(done.stdout) as { error: { code: string; message: string; remedy: string } };
  assert.deepEqual([done.status, error.code], [status, code], done.stdout);
  assert.match(error.message, message);
  assert.ok(error.remedy.length > 0);
}

for (const format of formatsFor('cheap')) test(`${format}: a disk grows under its guest, the replica follows without a resync`, { timeout: 120_000 }, async (t) => {
  const pair = await replicatingPair(t, { format, sizes: [16 * MIB, 8 * MIB] });
  const [disk] = pair.disks;
  const [uri] = await pair.uris();
  // A guest that stays connected: it must not be disturbed.
  const guest = spawn('qemu-io', ['-f', 'raw', uri!], { stdio: ['pipe', 'ignore', 'inherit'] });
  guest.stdin.write('write -q -P 1 1M 64k\n');
  const words = (size: string) => [pair.vm, '--disk', disk!, '--size', size];
  await refused(pair.primary, words('8M'), 2, 'DISK_NOT_LARGER', /has 16777216 bytes, asked for were 8388608/);
  await refused(pair.primary, words(String(16 * MIB + 7)), 2, 'DISK_SIZE_NOT_SECTORS', /16777223 bytes are not a whole number of sectors/);
  await refused(pair.primary, [pair.vm, '--disk', '/nowhere.raw', '--size', '1G'], 2, 'DISK_NOT_FOUND', /has no disk \/nowhere\.raw/);
  await refused(pair.replica, [pair.vm, '--disk', pair.replicaPath(0), '--size', '1G'], 3, 'INVALID_STATE', /as replica/);

  const shape = await pair.primary.json<VmShape>('vm', 'resize', ...words('24M'));
  assert.equal(shape.disks[0]!.virtualSize, 24 * MIB);
  guest.stdin.end('write -q -P 2 2M 64k\nflush\nquit\n');
  assert.deepEqual((await once(guest, 'exit'))[0], 0, 'the guest that was connected had an error');
  // Whoever connects anew sees the new size.
  await mustRun('qemu-io', ['-f', 'raw', uri!], { input: 'write -q -P 3 23M 1M\nflush\nquit\n' });
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
  assert.equal(await sizeOf(pair.replicaPath(0)), 24 * MIB);
  assert.equal((await pair.replica.json<VmShape>('vm', 'show', pair.vm)).disks[0]!.virtualSize, 24 * MIB);

  // Stopped, and with nothing written: the size alone reaches the replica.
  await pair.primary.json('vm', 'stop', pair.vm);
  await pair.primary.json('vm', 'resize', ...words('32M'));
  await pair.primary.json('sync-now', pair.vm);
  await pair.primary.json('vm', 'attach', pair.vm);
  await mustRun('qemu-io', ['-f', 'raw', (await pair.uris())[0]!], { input: 'write -q -P 4 31M 1M\nflush\nquit\n' });
  await pair.primary.json('sync-now', pair.vm);
  assert.equal(await sizeOf(pair.replicaPath(0)), 32 * MIB);
  await pair.compare();
  for (const server of [pair.primary, pair.replica]) {
    const ids = (await server.json<{ id: string }[]>('events', pair.vm)).map(({ id }) => id);
    assert.equal(ids.filter((id) => id === 'DiskResized').length, 2, server.name);
    assert.ok(!ids.includes('ResynchronizationRequired'), server.name);
  }
});

test('before initial replication the placeholder takes the new size; a VM without replication', { timeout: 120_000 }, async (t) => {
  const pair = await Pair.make(t, { sizes: [8 * MIB], inside: true });
  await pair.primary.json('vm', 'resize', pair.vm, '--disk', pair.disks[0]!, '--size', '12M');
  await pair.replicate();
  await pair.compare();
  assert.equal((await stat(pair.replicaPath(0))).size, 12 * MIB);

  const [vhd, plain] = [join(pair.folder, 'a.vhd'), join(pair.folder, 'b.raw')];
  await makeDisk(vhd, 'vhd', 8 * MIB);
  await makeDisk(plain, 'raw', 8 * MIB);
  await pair.primary.json('vm', 'add', 'vm2', '--disk', vhd, '--disk', plain);
  await refused(pair.primary, ['vm2', '--disk', vhd, '--size', '3T'], 2, 'DISK_SIZE_REFUSED', /a VHD cannot have 3298534883328 bytes/);
  await pair.primary.json('vm', 'resize', 'vm2', '--disk', vhd, '--size', '16M');
  assert.equal(await sizeOf(vhd), 16 * MIB);
  await pair.primary.json('vm', 'resize', 'vm2', '--disk', plain, '--size', '16M');
  assert.equal((await stat(plain)).size, 16 * MIB);
});
