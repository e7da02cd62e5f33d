import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { before, describe, test } from 'node:test';
import { suiteEnd } from '../rig/at-end.ts';
import { resizeImage } from '../../src/disk/images/change-image.ts';
import { formatsFor, makeDisk, scramble } from '../rig/disk-formats.ts';
import type { Pair } from '../rig/pair.ts';
import {
  assertEqual, assertRequired, crash, diffFiles, diffFilesGone, digestOf, editFile, events, guestWrites, holdImage, repair, replicatingPair,
    resyncStatus,
} from './resync-rig.ts';

const MIB = 1 << 20;
/** Written by nobody but this test, behind the VM's back: everything differs. */
const DIFFERING = 160;

for (const format of formatsFor('dear')) describe(`${format}: pause, continue, cancel, crash`, () => {
  const t = suiteEnd();
  let pair: Pair;

  before(async () => {
    pair = await replicatingPair(t, { format, sizes: [256 * MIB, 16 * MIB] });
  });

  /** Comparing, with the first checkpoint behind it unless `atOnce`, and so slowly that it does not end before the test has done what it wants. */
  async function underWay(how: { atOnce?: boolean } = {}): Promise<void> {
    await pair.primary.json('set', pair.vm, '--disk-rate', how.atOnce ? '4M' : '24M');
    await pair.primary.json('vm', 'stop', pair.vm);
    await scramble(pair.disks[0]!, DIFFERING * MIB);
    await pair.primary.json('vm', 'attach', pair.vm);
    await pair.untilState('WaitingForStartResynchronize');
    await pair.primary.json('resume', pair.vm);
    const until = (holds: (disk: Awaited<ReturnType<typeof resyncStatus>>['disks'][number]) => boolean) =>
      pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm],
        ({ phase, disks }) => phase === 'comparing' && holds(disks[0]!));
    if (how.atOnce) return void await until(() => true);
    // The first checkpoint is asked for when 64 MiB are mended; a slow disk may take a minute to flush them.
    await until(({ sentBytes }) => sentBytes >= 66 * MIB);
    await pair.primary.json('set', pair.vm, '--disk-rate', '512K');
    await until(({ cursor }) => cursor > 0);
  }

  const faster = () => pair.primary.json('set', pair.vm, '--disk-rate', '0');

  test('paused it keeps its place, and continues without sending again what was mended before the last checkpoint', async () => {
    const base = await digestOf(pair.replicaPath(0));
    await underWay();
    await pair.primary.json('suspend', pair.vm);
    const paused = await pair.untilState('ResynchronizeSuspended');
    assert.match(paused.healthDetails[0]!, /Resynchronization is paused/);
    const before = await resyncStatus(pair);
    assert.equal(before.phase, 'paused');
    const { cursor, totalBytes } = before.disks[0]!;
    assert.ok(cursor > 0 && cursor < totalBytes, JSON.stringify(before));
    await faster();
    await pair.primary.json('resume', pair.vm, '--continue');
    await pair.untilState('Replicating');
    const finished = (await events(pair.primary, pair)).findLast(({ id }) => id === 29244)!;
    const [{ blocksSent }] = finished.data['disks'] as [{ blocksSent: number }];
    assert.ok(blocksSent * 4096 >= DIFFERING * MIB, `${blocksSent} blocks sent`);
    assert.ok(blocksSent * 4096 <= (DIFFERING + 72) * MIB, `${blocksSent} blocks sent: more than one checkpoint twice`);
    assert.notEqual(await digestOf(pair.replicaPath(0)), base);
    await assertEqual(pair);
  });

  test('cancelled it leaves the replica byte for byte as it was, and starts by itself no more', async () => {
    const base = await digestOf(pair.replicaPath(0));
    await underWay();
    assert.equal((await diffFiles(pair)).length > 0, true);
    const refused = await pair.replica.cli('failover', pair.vm, '--test', '--json');
    assert.equal(refused.status, 3, refused.stdout);
    await pair.primary.json('cancel-resync', pair.vm);
    await assertRequired(pair, { trigger: 1, rung: 'full-compare', reason: /was modified/ });
    await pair.replica.until<unknown>(['status', pair.vm], () => true);
    await diffFilesGone(pair);
    assert.equal(await digestOf(pair.replicaPath(0)), base);
    assert.equal((await pair.primary.cli('cancel-resync', pair.vm)).status, 3);
    await faster();
    await repair(pair);
  });

  test('a replica disk that changes while the resync is paused: required again, from the start',
    async () => {
    await underWay();
    await pair.primary.json('suspend', pair.vm);
    await pair.untilState('ResynchronizeSuspended');
    await pair.replica.kill9();
    // Behind the cursor: what was compared there and found equal, or mended, no longer counts.
    await editFile(pair.replicaPath(1), '2M', 0x66);
    await editFile(pair.replicaPath(0), '200M', 0x66);
    await editFile(pair.replicaPath(0), '1M', 0x66);
    await pair.replica.start();
    await faster();
    await pair.primary.json('resume', pair.vm);
    await assertRequired(pair, { trigger: 7, rung: 'full-compare', reason: /behind our back/ });
    await repair(pair, '--overwrite-replica');
  });

  test('kill -9 of the primary, then of the replica, while it compares: it goes on, and both end equal', async () => {
    await underWay();
    const cursor = (await resyncStatus(pair)).disks[0]!.cursor;
    await crash(pair.primary);
    const again = await pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm],
      ({ phase }) => phase === 'comparing');
    assert.ok(again.disks[0]!.cursor >= cursor);
    await faster();
    await crash(pair.replica);
    await pair.primary.cli('suspend', pair.vm);
    await pair.primary.cli('resume', pair.vm);
    await pair.untilState('Replicating');
    await assertEqual(pair);
  });

  test('kill -9 of the replica in the middle of its merge: it merges on, and no second resync is asked for', async () => {
    await pair.primary.json('vm', 'stop', pair.vm);
    await editFile(pair.disks[0]!, '3M', 0x31);
    await editFile(pair.disks[1]!, '3M', 0x32);
    await pair.primary.json('vm', 'attach', pair.vm);
    await pair.untilState('WaitingForStartResynchronize');
    // The first disk is merged, the second is in somebody's hands: the merge waits half-way.
    const letGo = await holdImage(t, pair.replicaPath(1));
    await pair.primary.json('resume', pair.vm);
    await pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm],
      ({ phase }) => phase === 'merging');
    assert.equal((await pair.primary.cli('cancel-resync', pair.vm)).status, 3);
    assert.equal((await pair.primary.cli('suspend', pair.vm)).status, 3);
    await pair.replica.kill9();
    await letGo();
    await pair.replica.start();
    // The link was lost: the next attempt would be half a minute away.
    await pair.primary.until<Awaited<ReturnType<Pair['status']>>>(['status', pair.vm],
      ({ healthDetails }) => healthDetails.some((detail) => detail.includes('PEER_') || detail.includes('connection')));
    await pair.primary.json('resume', pair.vm);
    await pair.untilState('Replicating');
    await assertEqual(pair);
    assert.equal((await pair.status()).state, 'Replicating');
  });

  test('logs past the limit during a full compare: required again, and again a full compare', async () => {
    // A minute is long enough for a guest's write also on a machine that is busy.
    const base = await digestOf(pair.replicaPath(0));
    await underWay({ atOnce: true });
    while ((await diffFiles(pair)).length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    await pair.primary.json('set', pair.vm, '--log-limit', '0.1');
    await guestWrites(pair, 1, [{ at: '4M', length: '1M', byte: 3 }]);
    await pair.untilState('WaitingForStartResynchronize');
    const event = (await events(pair.primary, pair)).findLast(({ id }) => id === 'ResynchronizationRequired')!;
    assert.equal(event.data['trigger'], 2);
    // What the run had come to is dropped, and the replica is what it was.
    await diffFilesGone(pair);
    assert.equal(await digestOf(pair.replicaPath(0)), base);
    assert.equal((await pair.primary.json<{ rung: string }>('resync', 'plan', pair.vm)).rung, 'full-compare');
    await pair.primary.json('set', pair.vm, '--log-limit', '50');
    await faster();
    await repair(pair);
  });

  test('a replica disk of another size is refused with both sizes before anything is written',
    async () => {
    await pair.primary.json('suspend', pair.vm);
    await rm(pair.replicaPath(1));
    await makeDisk(pair.replicaPath(1), format, 12 * MIB);
    const before = await digestOf(pair.replicaPath(0));
    await pair.primary.json('resume', pair.vm, '--resynchronize');
    const status = await pair.primary.until<Awaited<ReturnType<Pair['status']>>>(['status', pair.vm],
      ({ healthDetails }) => healthDetails.some((detail) => detail.includes('its replica')));
    assert.equal(status.state, 'WaitingForStartResynchronize');
    assert.match(status.healthDetails.join('\n'),
      /disk1\.\w+ has 16777216 bytes on the primary, its replica .*disk1\.\w+ has 12582912.*disk resize \/.*disk1\.\w+ 16777216/);
    const plan = await pair.primary.cli('resync', 'plan', pair.vm, '--json');
    assert.equal(plan.status, 3);
    assert.match(plan.stdout, /SIZE_MISMATCH/);
    assert.equal(await digestOf(pair.replicaPath(0)), before);
    await diffFilesGone(pair);
    await resizeImage(pair.replicaPath(1), 16 * MIB, {});
    await repair(pair);
  });

  test('a replica disk that is gone is copied whole', async () => {
    await pair.primary.json('suspend', pair.vm);
    await rm(pair.replicaPath(1));
    await pair.primary.json('resume', pair.vm, '--resynchronize', '--at', new Date(Date.now() + 3_600_000).toISOString());
    const plan = await pair.primary.json<{ rung: string; reason: string }>('resync', 'plan', pair.vm);
    assert.deepEqual([plan.rung, plan.reason], ['full-copy', 'the replica has no disk to compare with']);
    await repair(pair);
  });
});
