/**
 * R15 and promise 3 with failovers: what is served pins the disks as they are; receiving goes on; what cannot be served is refused in words
 * and changes nothing.
 * Seen to fail: the rows of test/mutation/failover-breakages.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NbdExport } from '../../src/nbd/export.ts';
import { pointId } from '../../src/model/recovery-points.ts';
import { checkInstants, instantsOf } from '../simulation/instants.ts';
import { ReplicaRig } from './replica-rig.ts';

const failoverOf = (rig: ReplicaRig) => rig.world.replica.failover!;
const vmId = (rig: ReplicaRig): string => rig.world.relationship.vmId;

async function read(rig: ReplicaRig, name: string, length?: number, offset = 0): Promise<Uint8Array> {
  const served: NbdExport = rig.world.replica.exports.get(name)!;
  const bytes = new Uint8Array(length ?? served.size);
  await rig.world.during(Promise.resolve(served.read(bytes, offset)));
  return bytes;
}

test('R15: while a test runs nothing is applied, sets arrive and show; it ends, and all is applied', async () => {
  const rig = await ReplicaRig.replicating(1, { history: 2 });
  const { world } = rig;
  await rig.untilPoints(1);
  await world.during(failoverOf(rig).test(vmId(rig)));
  const [applied, served] = [rig.applied, await read(rig, 'vm - Test/0')];
  let waiting = rig.replica.inbox.bytes();
  for (let round = 0; round < 3; round++) {
    const { received } = rig;
    await rig.until(() => rig.received > received);
    assert.ok(rig.replica.inbox.bytes() > waiting);
    waiting = rig.replica.inbox.bytes();
  }
  assert.equal(rig.applied, applied);
  assert.deepEqual(await read(rig, 'vm - Test/0'), served);
  await assert.rejects(world.during(failoverOf(rig).test(vmId(rig))), { code: 'INVALID_STATE', message: /a test failover is running already/ });
  await world.during(failoverOf(rig).cancel(vmId(rig)));
  assert.equal(rig.world.replica.exports.size, 0);
  await rig.endsEqual();
  assert.deepEqual(rig.events().filter((id) => String(id).startsWith('TestFailover')), ['TestFailoverStarted', 'TestFailoverStopped']);
  assert.equal(typeof world.replicaRecord.lastTestFailoverTime, 'number');
});

test('a set that is applied by halves when the failover comes is seen whole, and older points as they were', async () => {
  const rig = await ReplicaRig.replicating(2, { history: 3 });
  const { world } = rig;
  await rig.untilPoints(2);
  let halves = 0;
  for (let round = 0; round < 5; round++) {
    await rig.until(() => world.replicaRecord.applying !== null);
    await world.scheduler.pass(world.dice.between(0, 6));
    const instants = await instantsOf(world);
    const asked = round % 2 === 0 ? 'latest' : instants[0]!.id;
    await world.during(failoverOf(rig).unplanned(vmId(rig), asked));
    // It is not waited for: the failover shows it whole all the same.
    if (world.replicaRecord.applying !== null) halves++;
    const disks = [await read(rig, 'vm/0'), await read(rig, 'vm/1')];
    assert.equal(world.history.contradiction(disks), null);
    if (asked !== 'latest') assert.deepEqual(disks, instants[0]!.disks);
    await world.during(failoverOf(rig).cancel(vmId(rig)));
    await world.scheduler.pass(40_000);
  }
  assert.ok(halves > 0, 'every set was waited for');
  await rig.endsEqual();
});

test('two commands at once: one failover', async () => {
  const rig = await ReplicaRig.replicating(3, { history: 1 });
  const { world } = rig;
  await rig.untilPoints(1);
  const both = await world.during(Promise.allSettled([failoverOf(rig).unplanned(vmId(rig)), failoverOf(rig).unplanned(vmId(rig))]));
  assert.deepEqual(both.map(({ status }) => status), ['fulfilled', 'rejected']);
  assert.equal(world.history.contradiction([await read(rig, 'vm/0'), await read(rig, 'vm/1')]), null);
});

test('damage of one undo log costs its point and older ones, is said, and leaves newer ones and the latest', async () => {
  const rig = await ReplicaRig.replicating(4, { history: 3 });
  const { world } = rig;
  await rig.untilPoints(3);
  await rig.until(() => rig.points()[1]!.disks[0]!.end > 3 * 4096);
  const [oldest, middle, newest] = rig.points();
  // A data page of the middle one: found when it is read, not before.
  world.replica.volume.edit(middle!.disks[0]!.path, Buffer.from([1, 2, 3]), 2 * 4096 + 5);
  await world.during(failoverOf(rig).unplanned(vmId(rig), pointId(middle!)));
  await assert.rejects(read(rig, 'vm/0'), { code: 'UNDO_LOG_DAMAGED' });
  assert.ok(rig.events().includes('RecoveryPointsDamaged'));
  assert.deepEqual(rig.points().map(({ damaged }) => damaged !== null), [true, true, false]);
  await world.during(failoverOf(rig).cancel(vmId(rig)));
  for (const point of [oldest!, middle!]) {
    await assert.rejects(world.during(failoverOf(rig).unplanned(vmId(rig), pointId(point))), { code: 'POINT_DAMAGED', kind: 'io' });
  }
  assert.equal(world.replicaRecord.state, 'Replicating');
  await world.during(failoverOf(rig).unplanned(vmId(rig), pointId(newest!)));
  assert.equal(world.history.contradiction([await read(rig, 'vm/0'), await read(rig, 'vm/1')]), null);
});

test('what cannot be: a point that has gone, a point of no VM, the wrong side, an older point during a merge', async () => {
  const rig = await ReplicaRig.replicating(5, { history: 1 });
  const { world } = rig;
  await rig.untilPoints(1);
  const [gone] = rig.points();
  await rig.until(() => rig.points()[0]!.epoch !== gone!.epoch);
  for (const asked of [pointId(gone!), 'yesterday', '']) {
    await assert.rejects(world.during(failoverOf(rig).test(vmId(rig), asked)), { code: 'POINT_NOT_FOUND', kind: 'usage' });
  }
  await assert.rejects(world.during(world.primary.failover!.unplanned(vmId(rig))), { code: 'WRONG_SIDE', kind: 'state' });
  await assert.rejects(world.during(failoverOf(rig).complete(vmId(rig))), { code: 'INVALID_STATE' });
  await assert.rejects(world.during(failoverOf(rig).cancel(vmId(rig))), { code: 'INVALID_STATE' });
  assert.equal(world.replicaRecord.state, 'Replicating');
  assert.equal(world.replica.exports.size, 0);
  await rig.endsEqual();
});

test('an epoch that is marked as application-consistent becomes a point of that kind, and keeps it over restarts', async () => {
  const rig = await ReplicaRig.replicating(6, { history: 4 });
  const { world } = rig;
  await rig.untilPoints(1);
  const { epochs } = world.primary.catalog;
  const put = epochs.put;
  const marked = world.tracked!.epoch() + 1;
  epochs.put = (row) => put(row.epoch === marked ? { ...row, applicationConsistent: true } : row);
  await rig.until(() => rig.points().some(({ kind }) => kind === 'application-consistent'));
  assert.equal(rig.points().find(({ kind }) => kind === 'application-consistent')!.epoch, marked);
  world.replica.crash('process');
  await world.restart(world.replica);
  assert.ok(rig.points().some(({ kind, epoch }) => kind === 'application-consistent' && epoch === marked));
  await checkInstants(world);
});
