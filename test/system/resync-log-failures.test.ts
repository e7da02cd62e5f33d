import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { temporaryFolder } from '../rig/program.ts';
import { assertRequired, events, guestWrites, repair, replicatingPair, type ResyncStatus } from './resync-rig.ts';

const GIB = 2 ** 30;

/** A small file system of its own at a fresh folder; null where this user may not mount. */
async function tinyVolume(t: TestContext, size: string): Promise<string | null> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-logs-'));
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder]).status !== 0) return null;
  // Before anything else is removed: hooks run in the order in which they are made.
  t.after(() => spawnSync('umount', ['-l', folder]));
  t.after(() => rmdir(folder));
  return folder;
}

test('3: the volume of the log is full: the guest notices nothing, and only what it wrote is compared', async (t) => {
  const folder = await tinyVolume(t, '1m');
  if (folder === null) return t.skip('this user may not mount a file system');
  const pair = await replicatingPair(t, { add: ['--log-dir', folder] });
  await guestWrites(pair, 0, [{ at: '0', length: '2M', byte: 1 }, { at: '20M', length: '64k', byte: 2 }]);
  await assertRequired(pair, { trigger: 3, rung: 'suspect-regions', reason: /ENOSPC|no space left/ });
  await guestWrites(pair, 1, [{ at: '3M', length: '64k', byte: 3 }]);
  await repair(pair);
  const seen = (await events(pair.primary, pair)).findLast(({ id }) => id === 29242)!;
  assert.deepEqual((seen.data['disks'] as { ranges: number }[]).map(({ ranges }) => ranges), [2, 1]);
});

test('4: after a crash a 64 GiB disk with 300 dirty regions is compared in those regions only', {
  skip: process.env['UNDERSTUDY_TEST_LONG'] === '1' ? false : 'takes minutes on a busy machine: UNDERSTUDY_TEST_LONG=1',
}, async (t) => {
  const bootIdFile = join(await temporaryFolder(t), 'boot-id');
  await writeFile(bootIdFile, '11111111-1111-4111-8111-111111111111\n');
  const pair = await replicatingPair(t, { sizes: [64 * GIB], env: { UNDERSTUDY_BOOT_ID_FILE: bootIdFile } });
  await guestWrites(pair, 0, Array.from({ length: 300 }, (_, index) => ({ at: `${index * 217}M`, length: '4k',
    byte: 1 + (index % 200) })));
  await pair.primary.kill9();
  await writeFile(bootIdFile, '22222222-2222-4222-8222-222222222222\n');
  await pair.primary.start();
  await assertRequired(pair, { trigger: 4, rung: 'suspect-regions', reason: /the machine went down/ });
  const plan = await pair.primary.json<{ readBytes: number; disks: { ranges: number }[] }>('resync', 'plan', pair.vm);
  assert.deepEqual([plan.readBytes, plan.disks[0]!.ranges], [300 << 20, 300]);
  await pair.primary.json('resume', pair.vm);
  let last: ResyncStatus | null = null;
  await pair.primary.until<ResyncStatus>(['resync', 'status', pair.vm], (status) => {
    if (status.disks[0]!.totalBytes < 64 * GIB && status.phase !== 'none') last = status;
    return status.phase === 'none';
  });
  await pair.untilState('Replicating');
  const finished = (await events(pair.primary, pair)).findLast(({ id }) => id === 29244)!;
  assert.ok(Number(finished.data['seconds']) <= 30, `${String(finished.data['seconds'])} s`);
  // Each dirty region holds one page that differs.
  assert.ok((finished.data['disks'] as { blocksSent: number }[])[0]!.blocksSent <= 300);
  const { totalBytes, comparedBytes } = (last as ResyncStatus | null)?.disks[0] ?? { totalBytes: 300 << 20, comparedBytes: 0 };
  assert.ok(totalBytes <= 2 * (300 << 20) && comparedBytes <= totalBytes, `${comparedBytes} of ${totalBytes} bytes`);
  await pair.compare();
});
