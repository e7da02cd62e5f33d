import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { guestSkip } from '../rig/guest/prepare.ts';
import { inspectDisks, verifyGuest } from '../rig/guest/verify.ts';
import { startWriter } from '../rig/guest/writer.ts';
import type { TestFormat } from '../rig/disk-formats.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

const LONG = process.env.UNDERSTUDY_TEST_LONG === '1';
/** Points of a VHDX go through the same code: in the long rounds only. */
const RUNS: readonly { format: TestFormat; points: number }[] =
  LONG ? [{ format: 'raw', points: 6 }, { format: 'vhdx', points: 2 }] : [{ format: 'raw', points: 2 }];
const DISK_BYTES = 128 << 20;

type Served = Status & { disks: { uri: string }[]; failover: { settling: string | null } | null };
interface Point {
  id: string;
  kind: string;
}

for (const { format, points } of RUNS)
test(`${format}: a real Linux guest writes numbered records: at every kept point a test failover boots a guest whose records end exactly there, on clean ` +
  'file systems, while the replica goes on receiving; a failover to the oldest is completed under a writing guest', {
  skip: guestSkip(),
}, async (t) => {
  // Each set ends at a point, and sets are made when this test asks for them; each test of a point makes one more.
  const pair = await Pair.make(t, {
    format, sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900, env: { UNDERSTUDY_POINT_INTERVAL_SEC: '0' },
    enable: ['--recovery-history', String(points * 3)] });
  const replica = pair.disks.map((_, index) => pair.replicaPath(index));
  await pair.primary.json('vm', 'attach', pair.vm);
  const uris = await pair.uris();
  const image = join(pair.folder, 'ext4.raw');
  await makeExt4(image, DISK_BYTES);
  for (const uri of uris) await mustRun('nbdcopy', ['--flush', image, uri]);
  const writer = await startWriter(uris);
  atEnd(t, () => writer.kill());
  await pair.primary.json('start', pair.vm);
  await pair.untilState('Replicating');

  const records = new Map<string, number>();
  for (let round = 0; round < points; round++) {
    await writer.untilAcked(writer.acked() + 10);
    const min = writer.acked();
    await pair.primary.json('sync-now', pair.vm);
    const point = (await pair.replica.json<Point[]>('points', pair.vm)).findLast(({ kind }) => kind === 'standard')!;
    // What the replica disks themselves hold at that instant, to the record.
    const verdict = await inspectDisks(replica, { min, max: writer.acked() + 1 });
    assert.deepEqual(verdict.problems, []);
    records.set(point.id, verdict.records);
  }
  assert.equal(new Set(records.values()).size, points);

  for (const [id, count] of records) {
    await t.test(`point ${id}`, async () => {
      const served = await pair.replica.json<Served>('failover', pair.vm, '--test', '--point', id);
      await writer.untilAcked(writer.acked() + 10);
      const shipped = pair.primary.cli('sync-now', pair.vm);
      const verdict = await verifyGuest(served.disks.map(({ uri }) => uri), { min: count, max: count });
      assert.deepEqual(verdict.problems, []);
      await pair.replica.until<Status>(['status', pair.vm], ({ pendingBytes }) => pendingBytes > 0);
      await pair.replica.json('failover', 'cancel', pair.vm);
      await shipped;
    });
  }

  await t.test('the primary is lost; the oldest point that is left is completed while a guest writes on it', async () => {
    await writer.kill();
    await pair.primary.kill9();
    const [oldest] = await pair.replica.json<Point[]>('points', pair.vm);
    const served = await pair.replica.json<Served>('failover', pair.vm, '--point', oldest!.id);
    const heir = await startWriter(served.disks.map(({ uri }) => uri));
    atEnd(t, () => heir.kill());
    await heir.untilAcked(heir.startedAt + 10);
    await pair.replica.json('failover', 'complete', pair.vm);
    await pair.replica.until<Served>(['status', pair.vm], ({ failover }) => failover?.settling === 'done');
    await heir.untilAcked(heir.acked() + 10);
    const last = await heir.stop();
    // A plain file, without the server.
    await pair.kill();
    assert.deepEqual((await inspectDisks(replica, { min: last, max: last })).problems, []);
  });
});
