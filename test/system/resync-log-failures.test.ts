import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { formatsFor, makeDisk } from '../rig/disk-formats.ts';
import { hangingVolume } from '../rig/hanging-volume.ts';
import { assertRequired, events, guestWrites, repair, replicatingPair, slowGuest } from './resync-rig.ts';

/** A small file system of its own at a fresh folder; null where this user may not mount. */
async function tinyVolume(t: TestContext, size: string): Promise<string | null> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-logs-'));
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder]).status !== 0) return null;
  atEnd(t, () => rmdir(folder));
  atEnd(t, () => spawnSync('umount', ['-l', folder]));
  return folder;
}

for (const format of formatsFor('dear', 'vhd'))
test(`${format}, 3: the volume of the log is full: the guest notices nothing, and only what it wrote is compared`, async (t) => {
  const folder = await tinyVolume(t, '1m');
  if (folder === null) return t.skip('this user may not mount a file system');
  const pair = await replicatingPair(t, { format, add: ['--log-dir', folder] });
  await guestWrites(pair, 0, [{ at: '0', length: '2M', byte: 1 }, { at: '20M', length: '64k', byte: 2 }]);
  await assertRequired(pair, { trigger: 3, rung: 'suspect-regions', reason: /ENOSPC|no space left/ });
  await guestWrites(pair, 1, [{ at: '3M', length: '64k', byte: 3 }]);
  await repair(pair);
  const seen = (await events(pair.primary, pair)).findLast(({ id }) => id === 29242)!;
  assert.deepEqual((seen.data['disks'] as { ranges: number }[]).map(({ ranges }) => ranges), [2, 1]);
});


for (const format of formatsFor('dear', 'vhdx'))
test(`${format}, 3: logs that fill up the volume of the very disk: the space they took is the guest's again, and no write fails`, async (t) => {
  // A VHDX has 4 MiB of tables.
  const folder = await tinyVolume(t, format === 'vhdx' ? '16m' : '12m');
  if (folder === null) return t.skip('this user may not mount a file system');
  // Sparse, and larger than its volume: what the guest writes anew needs room beside the logs.
  const disk = join(folder, `thin.${format}`);
  await makeDisk(disk, format, 64 << 20);
  const pair = await replicatingPair(t, { format, disks: [disk] });
  const guest = await slowGuest(t, pair);
  for (let round = 0; round < 30; round++) {
    assert.match(await guest.ask(`write -P ${round + 1} ${Math.floor(round / 4)}M 1M`), /wrote 1048576/);
  }
  assert.match(await guest.ask('flush'), /^qemu-io> $/);
  await assertRequired(pair, { trigger: 3, rung: 'suspect-regions', reason: /ENOSPC|no space left/ });
  assert.deepEqual((await readdir(folder)).filter((name) => name.includes('.hrl')), []);
});

for (const format of formatsFor('dear'))
test(`${format}, 3: the volume of the log hangs: every guest write is answered meanwhile, and the server goes on`, async (t) => {
  const volume = await hangingVolume(t);
  if (volume === null) return t.skip('this user may not mount a file system');
  const pair = await replicatingPair(t, { format, add: ['--log-dir', volume.folder] });
  await guestWrites(pair, 0, [{ at: '0', length: '1M', byte: 1 }]);
  await volume.hang();
  const guest = await slowGuest(t, pair);
  // One after another, so that each is a write to the log of its own: more than there are threads for I/O.
  for (let index = 0; index < 60; index++) await guest.ask(`aio_write -P 2 ${index * 64}k 64k`);
  await guest.ask('aio_flush');
  assert.match(await guest.ask('read -P 2 0 3840k'), /read 3932160\/3932160/);
  await assertRequired(pair, { trigger: 3, rung: 'suspect-regions', reason: /tracking log took longer than 2000 ms/ });
  // Other VMs and other work of the server do not wait for the volume either.
  await guestWrites(pair, 1, [{ at: '3M', length: '64k', byte: 3 }]);
  await volume.heal();
  await repair(pair);
});

test('3: the volume of the data folder is full as well: the guest goes on, the state says why, and all is on record when there is room', async (t) => {
  const [folder, logs] = [await tinyVolume(t, '16m'), await tinyVolume(t, '2m')];
  if (folder === null || logs === null) return t.skip('this user may not mount a file system');
  const pair = await replicatingPair(t, { add: ['--log-dir', logs], prepare: async (made) => {
    await rmdir(made.primary.data);
    await symlink(folder, made.primary.data);
  } });
  await guestWrites(pair, 0, [{ at: '0', length: '1M', byte: 1 }]);
  const filler = join(folder, 'filler');
  await writeFile(filler, Buffer.alloc(32 << 20)).catch(() => undefined);
  const guest = await slowGuest(t, pair);
  for (let round = 0; round < 8; round++) assert.match(await guest.ask(`write -P ${round + 2} ${round}M 1M`), /wrote 1048576/);
  const said = await pair.primary.until<{ state: string; healthDetails: string[] }>(['status', pair.vm],
    ({ state }) => state === 'WaitingForStartResynchronize');
  assert.match(said.healthDetails.join('\n'), /catalog .*catalog\.db cannot be written: database or disk is full\. Make room on the volume of the data folder/);
  assert.match(said.healthDetails.join('\n'), /Resynchronization is required because .*(ENOSPC|no space left)/);
  assert.match((await pair.primary.cli('resume', pair.vm)).stderr, /CATALOG_NOT_WRITABLE/);
  await rm(filler);
  await pair.primary.until<{ healthDetails: string[] }>(['status', pair.vm],
    ({ healthDetails }) => !/catalog.db cannot be written/.test(healthDetails.join()), 30_000);
  await assertRequired(pair, { trigger: 3, rung: 'suspect-regions', reason: /ENOSPC|no space left/ });
  await repair(pair);
});
