/**
 * Step 1 of a resynchronization with real files: what differs between the two disks is refused with both values, and of the replica
 * nothing has been written, not a byte and not a file.
 */
import assert from 'node:assert/strict';
import { copyFile, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { before, describe, test } from 'node:test';
import { suiteEnd } from '../rig/at-end.ts';
import { createImage } from '../../src/disk/images/create-image.ts';
import { assertSameDisk, makeDisk } from '../rig/disk-formats.ts';
import type { Pair } from '../rig/pair.ts';
import { temporaryFolder } from '../rig/program.ts';
import { digestOf, guestWrites, replicatingPair } from './resync-rig.ts';

const MIB = 1 << 20;
const FOOTER_BYTES = 512;

/** Says another geometry in both footers of a dynamic VHD, as another program may have made it; the size stays. */
async function setGeometry(path: string, cylinders: number): Promise<void> {
  const bytes = await readFile(path);
  for (const at of [0, bytes.length - FOOTER_BYTES]) {
    const footer = bytes.subarray(at, at + FOOTER_BYTES);
    assert.equal(footer.toString('latin1', 0, 8), 'conectix');
    footer.writeUInt16BE(cylinders, 56);
    footer.writeUInt32BE(0, 64);
    footer.writeUInt32BE(~footer.reduce((sum, byte) => sum + byte, 0) >>> 0, 64);
  }
  await writeFile(path, bytes);
}

describe('characteristics that differ are refused with both values, and nothing is written', () => {
  const t = suiteEnd();
  let pair: Pair;
  let replicas: string[];

  before(async () => {
    const folder = await temporaryFolder(t);
    const disks = [join(folder, 'disk0.vhd'), join(folder, 'disk1.vhdx')];
    for (const disk of disks) await makeDisk(disk, disk.endsWith('x') ? 'vhdx' : 'vhd', 16 * MIB);
    pair = await replicatingPair(t, { disks });
    for (const index of [0, 1]) await guestWrites(pair, index, [{ at: '1M', length: '1M', byte: 1 + index }]);
    await pair.primary.json('sync-now', pair.vm);
    const store = dirname(pair.replicaPath(0));
    replicas = disks.map((_, index) => join(store, `disk${index}.${index === 0 ? 'vhd' : 'vhdx'}`));
    await pair.primary.json('suspend', pair.vm);
    await pair.primary.json('resume', pair.vm, '--resynchronize', '--at', new Date(Date.now() + 3_600_000).toISOString());
  });

  const folderNow = async () => Promise.all((await readdir(dirname(replicas[0]!))).sort().map(async (name) =>
    `${name} ${await digestOf(join(dirname(replicas[0]!), name))}`));

  async function refused(code: string, message: RegExp): Promise<void> {
    const before = await folderNow();
    for (const words of [['resume', pair.vm], ['resync', 'plan', pair.vm]]) {
      const { status, stdout } = await pair.primary.cli(...words, '--json');
      assert.equal(status, 3, stdout);
      const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
      assert.equal(error.code, code);
      assert.match(error.message, message);
    }
    assert.equal((await pair.status()).state, 'WaitingForStartResynchronize');
    assert.deepEqual(await folderNow(), before);
  }

  /** Changes a replica disk, which nobody has open now, and brings it back after the refusal. */
  async function withReplica(index: number, change: (path: string) => Promise<void>, check: () => Promise<void>): Promise<void> {
    const aside = `${pair.disks[index]}.aside`;
    await copyFile(replicas[index]!, aside);
    await change(replicas[index]!);
    await check().finally(() => rename(aside, replicas[index]!));
  }

  test('geometry of a VHD', () => withReplica(0, (path) => setGeometry(path, 7), () =>
    refused('GEOMETRY_MISMATCH', /disk0\.vhd has \d+\/\d+\/\d+ as geometry on the primary, its replica .*disk0\.vhd has 7\/\d+\/\d+/)));

  test('logical sectors of a VHDX', () => withReplica(1, async (path) => {
    await rm(path);
    await createImage(path, { format: 'vhdx', size: 16 * MIB, logicalSectorSize: 4096 });
  }, () => refused('SECTOR_SIZE_MISMATCH', /disk1\.vhdx has 512 bytes in a logical sector on the primary, its replica .*disk1\.vhdx has 4096/)));

  for (const [more, change, message] of [
    ['primary', (disks: object[]) => disks.slice(0, 1), /has 2 replicated disks on the primary, its replica has 1 .*the replica has none for .*disk1\.vhdx/],
    ['replica', (disks: object[]) => [...disks, { ...disks[1]!, diskId: 'd9' }],
      /has 2 replicated disks on the primary, its replica has 3 .*the primary has none for/],
  ] as const) {
    test(`another set of disks: one more on the ${more}`, async () => {
      // What a catalog of another day says.
      const edit = async (to: (disks: object[]) => object[]) => {
        await pair.replica.kill9();
        const catalog = new DatabaseSync(join(pair.replica.data, 'catalog.db'));
        const { body } = catalog.prepare('SELECT body FROM vms').get() as { body: string };
        const vm = JSON.parse(body) as { disks: object[] };
        catalog.prepare('UPDATE vms SET body = ?').run(JSON.stringify({ ...vm, disks: to(vm.disks) }));
        catalog.close();
        await pair.replica.start();
        return vm.disks;
      };
      const known = await edit(change);
      await refused('DISK_SET_MISMATCH', message);
      await edit(() => known);
    });
  }

  test('a disk that is gone on the primary: the VM cannot be served, and the replica keeps what it has', async () => {
    const before = await folderNow();
    await pair.primary.kill9();
    await rename(pair.disks[1]!, `${pair.disks[1]}.gone`);
    await pair.primary.start();
    const plan = await pair.primary.cli('resync', 'plan', pair.vm, '--json');
    assert.notEqual(plan.status, 0);
    assert.match(plan.stdout, /disk1\.vhdx/);
    const resumed = await pair.primary.cli('resume', pair.vm, '--json');
    const status = await pair.status();
    assert.ok(resumed.status !== 0 || status.healthDetails.some((detail) => detail.includes('disk1.vhdx')), `${resumed.stdout} ${JSON.stringify(status)}`);
    assert.deepEqual(await folderNow(), before);
    await pair.primary.kill9();
    await rename(`${pair.disks[1]}.gone`, pair.disks[1]!);
    await pair.primary.start();
  });

  test('with the same characteristics again it goes on, and ends equal', async () => {
    await pair.primary.json('resume', pair.vm);
    await pair.untilState('Replicating');
    await pair.primary.json('sync-now', pair.vm);
    for (const [index, disk] of pair.disks.entries()) await assertSameDisk(disk, replicas[index]!);
  });
});
