/** Rung 3 (docs/resynchronization.md): a replica disk that is no image of its format any more, and a VM whose disks change their format on purpose. */
import assert from 'node:assert/strict';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { convertImage } from '../../src/disk/images/convert-image.ts';
import { makeDisk } from '../rig/disk-formats.ts';
import { guestWrites, replicatingPair } from './resync-rig.ts';

const MIB = 1 << 20;

test('a replica disk that became another format is refused with the remedy, nothing of it is touched; moved away, it is copied whole', {
  timeout: 180_000,
}, async (t) => {
  const pair = await replicatingPair(t, { format: 'vhdx', sizes: [8 * MIB] });
  const replica = pair.replicaPath(0);
  await rm(replica);
  await makeDisk(replica, 'raw', 8 * MIB);
  await guestWrites(pair, 0, [{ at: '1M', length: '1M', byte: 7 }]);
  assert.notEqual((await pair.primary.cli('sync-now', pair.vm)).status, 0);
  await pair.untilState('WaitingForStartResynchronize');
  for (const words of [['resume', pair.vm, '--overwrite-replica'], ['resync', 'plan', pair.vm]]) {
    const { status, stdout } = await pair.primary.cli(...words, '--json');
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string; remedy: string } };
    assert.deepEqual([status, error.code], [3, 'REPLICA_DISK_OTHER_FORMAT'], stdout);
    assert.match(error.message, /disk0\.vhdx .*vhdx/);
    assert.match(error.remedy, /move .* away/);
  }
  await rename(replica, `${replica}.aside`);
  assert.equal((await pair.primary.json<{ rung: string }>('resync', 'plan', pair.vm)).rung, 'full-copy');
  await pair.primary.json('resume', pair.vm, '--overwrite-replica');
  await pair.untilState('Replicating');
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
});

test('a VM whose disk became a VHDX on both hosts goes on with what differs, and is not copied anew', { timeout: 180_000 }, async (t) => {
  const pair = await replicatingPair(t, { sizes: [16 * MIB] });
  await guestWrites(pair, 0, [{ at: '1M', length: '8M', byte: 5 }]);
  await pair.primary.json('sync-now', pair.vm);
  await pair.primary.json('vm', 'stop', pair.vm);
  const [raw] = pair.disks;
  const replica = pair.replicaPath(0);
  for (const server of [pair.primary, pair.replica]) await server.json('remove', pair.vm);
  await pair.primary.json('vm', 'remove', pair.vm);
  pair.disks[0] = join(dirname(raw!), 'disk0.vhdx');
  const place = join(pair.folder, 'store', pair.vm);
  await mkdir(place, { recursive: true });
  await convertImage(raw!, pair.disks[0], { to: { format: 'vhdx' } });
  await convertImage(replica, join(place, 'disk0.vhdx'), { to: { format: 'vhdx' } });
  pair.vmId = (await pair.primary.json<{ vmId: string }>('vm', 'add', pair.vm, '--disk', pair.disks[0])).vmId;
  await pair.enable(30, ['--auto-resync', 'off']);
  await pair.primary.json('start', pair.vm, '--use-existing');
  await pair.untilState('Replicating');
  // Eight MiB are not zeroes.
  const { statistics: { sentBytes } } = await pair.primary.json<{ statistics: { sentBytes: number } }>('health', pair.vm);
  assert.ok(sentBytes < MIB, `${sentBytes} bytes were sent`);
  await pair.primary.json('vm', 'attach', pair.vm);
  await guestWrites(pair, 0, [{ at: '3M', length: '64k', byte: 9 }]);
  await pair.primary.json('sync-now', pair.vm);
  const { disks: [disk] } = await pair.replica.json<{ disks: { path: string; format: string }[] }>('vm', 'show', pair.vm);
  assert.deepEqual([disk!.path, disk!.format], [join(place, 'disk0.vhdx'), 'vhdx']);
});
