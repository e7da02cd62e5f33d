/**
 * R27: whatever is written to a replica that feeds an extended replica becomes the next link of that chain, or puts that leg into required at
 * the lowest rung that is proven enough. Seen to fail: the rows of R27 in test/mutation/breakages.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { extend } from '../../src/replication/extended/extend.ts';
import { ExtendedWorld } from '../simulation/extended-world.ts';
import { VM_ID } from '../simulation/world.ts';

async function replicating(seed: number): Promise<ExtendedWorld> {
  const world = new ExtendedWorld(seed);
  await world.beginExtended();
  await world.untilLegReplicates();
  return world;
}

async function until(world: ExtendedWorld, condition: () => boolean, ms = 3_600_000): Promise<void> {
  assert.ok(await world.scheduler.until(condition, ms), world.story());
}

const legMap = (world: ExtendedWorld) => world.leg.tracked!.suspects()!;

test('R27: a set that was applied is the next link: in the map before it writes, in the queue with the record, shipped as one instant', async () => {
  const world = await replicating(1);
  const sent = world.thirdRecord.lastAppliedEpoch;
  await until(world, () => world.replica.catalog.extended.sets.list(VM_ID).length >= 2);
  // What the record says is done right after it.
  await world.scheduler.pass(100);
  world.checkLegMap();
  const queued = world.replica.catalog.extended.sets.list(VM_ID);
  for (const { path } of queued.flatMap(({ disks }) => disks)) assert.ok(world.replica.volume.exists(path), path);
  await until(world, () => world.thirdRecord.lastAppliedEpoch > sent, 900_000);
  world.checkThird();
  const files = (name: string) => /\.set\.\d+\.hrl$/.test(name);
  const left = await world.during(world.replica.ports.files.list(`/replica/extended/vms/${VM_ID}`));
  assert.ok(left.filter(files).length <= world.replica.catalog.extended.sets.list(VM_ID).length * 2, 'files of sets that were sent are still there');
  await world.catchUpExtended();
});

test('R27: the merge of a resynchronization puts the leg into required, and rung 1 makes the third disk equal', async () => {
  const world = await replicating(2);
  // Nothing is suspect but what only the merge writes.
  world.stopGuest();
  const { signal } = new AbortController();
  await world.during(world.primary.primaries.get(VM_ID)!.syncNow(signal));
  await world.during(world.leg.syncNow(signal));
  await world.powerLoss(world.primary);
  await world.restart(world.primary);
  await until(world, () => world.relationship.required !== null);
  for (let count = 0; count < 12; count++) world.guestWrite();
  await world.scheduler.pass(1000);
  world.autoStart();
  const { legRecord } = world;
  assert.equal(legRecord.required, null);
  const starts = { ...legRecord.settings, autoResync: { ...legRecord.settings.autoResync, enabled: false } };
  world.replica.extended!.relationships.update(VM_ID, { settings: starts });
  await until(world, () => world.relationship.state === 'Replicating' && world.replicaRecord.state === 'Replicating' && world.replicaRecord.resync === null);
  assert.deepEqual([world.legRecord.state, world.legRecord.required?.rung, world.legRecord.required?.mapKnows],
    ['WaitingForStartResynchronize', 'suspect-regions', true], world.story());
  world.checkLegMap();
  world.autoStart();
  await until(world, () => world.legRecord.resync?.rung === 'suspect-regions');
  const compared = Object.values(world.legRecord.resync!.disks).reduce((sum, { totalBytes }) => sum + totalBytes, 0);
  assert.ok(compared < world.thirdDisks().reduce((sum, { length }) => sum + length, 0), 'it compares everything');
  await world.untilLegReplicates();
  await world.catchUpExtended();
});

test('R27: regions of sets that the leg has lost its logs of are still suspect', async () => {
  const world = await replicating(3);
  await until(world, () => world.replica.catalog.extended.sets.list(VM_ID).length >= 1);
  world.leg.require({ trigger: 2, reason: 'a test' });
  assert.deepEqual(world.replica.catalog.extended.sets.list(VM_ID), []);
  // Applied while no logs are kept.
  await world.scheduler.pass(90_000);
  world.checkLegMap();
  assert.ok([...legMap(world).values()].some((ranges) => ranges.length > 0));
  world.autoStart();
  await world.untilLegReplicates();
  await world.catchUpExtended();
});

test('R27: the server dies between the record of a set and the move of its files', async () => {
  const world = await replicating(4);
  const { sets } = world.replica.catalog.extended;
  const put = sets.put;
  let crashed = false;
  sets.put = (row) => {
    put(row);
    if (crashed) return;
    crashed = true;
    queueMicrotask(() => world.replica.crash('process'));
  };
  await until(world, () => crashed);
  await world.scheduler.pass(1000);
  await world.restart(world.replica);
  world.checkLegMap();
  for (const { path } of sets.list(VM_ID).flatMap(({ disks }) => disks)) assert.ok(world.replica.volume.exists(path), path);
  await world.catchUpExtended();
});

test('R27: a copy ends with an epoch of its own, as it may have read half of a set; none is applied unseen', async () => {
  const world = new ExtendedWorld(8);
  await world.beginExtended();
  await until(world, () => world.legRecord.initial !== null && world.leg.tracked?.logging === true);
  world.stopGuest();
  const { epoch } = world.replica.catalog.extended.tracking.get(VM_ID)!.tracking;
  assert.deepEqual(world.replica.catalog.extended.sets.list(VM_ID), []);
  await world.untilLegReplicates();
  assert.ok(world.legRecord.consistentFrom >= epoch, 'nothing says up to which set the copy is one instant');

  // Space for the replica itself comes first: the queue goes, its regions stay known.
  world.guestWrite();
  await until(world, () => world.replica.catalog.extended.sets.list(VM_ID).length > 0);
  assert.equal(await world.during(world.replicaVm.watch!.makeRoom('a test')), true);
  assert.deepEqual([world.replica.catalog.extended.sets.list(VM_ID), world.legRecord.required?.rung], [[], 'suspect-regions']);
  world.autoStart();
  await world.untilLegReplicates();

  // A set that is applied while the leg is closed is not passed over.
  await world.during(world.replica.extended!.close());
  world.guestWrite();
  await until(world, () => world.legRecord.required !== null);
  assert.equal(world.legRecord.required?.rung, 'full-compare');
  world.replica.crash('process');
  await world.restart(world.replica);
  world.autoStart();
  await world.untilLegReplicates();
  await world.catchUpExtended();
});

test('R27: what somebody else has written to the replica disk, or a completed failover, costs the leg a full compare', async () => {
  const world = await replicating(5);
  const [disk] = world.replica.relationships.vm(VM_ID).disks;
  world.replica.volume.edit(disk!.path, Buffer.alloc(512, 9), 1 << 20);
  await until(world, () => world.replicaRecord.lost !== null);
  assert.equal(world.legRecord.required?.rung, 'full-compare');
  // It cannot begin while the replica itself is no instant of the VM, not even for a moment.
  await world.scheduler.pass(120_000);
  assert.deepEqual(world.replica.catalog.events({ limit: 100 }).filter(({ id }) => id === 'ResynchronizationStarted'), []);
  assert.equal(world.legRecord.state, 'WaitingForStartResynchronize');
  world.checkThird();
  await world.catchUpExtended();

  await world.during(world.replica.failover!.unplanned(VM_ID));
  assert.equal(world.legRecord.state, 'Replicating');
  await world.during(world.replica.failover!.complete(VM_ID));
  assert.equal(world.legRecord.required?.rung, 'full-compare');
  await world.scheduler.pass(600_000);
  assert.equal(world.legRecord.state, 'WaitingForStartResynchronize');
  world.checkThird();
});

test('a leg follows a primary that becomes slower, and what a leg cannot be is refused', async () => {
  const world = await replicating(6);
  const legs = world.replica.extended!;
  world.replica.relationships.update(VM_ID, { settings: { ...world.replicaRecord.settings, frequencySec: 900 } });
  assert.equal(world.legRecord.settings.frequencySec, 900);
  const remote = { host: 'x', port: 1, fingerprint: 'x-fingerprint', name: '' };
  const refused = async (code: string, work: Promise<unknown>) => assert.rejects(world.during(work), { code });
  await refused('ALREADY_EXTENDED', extend(legs, world.replicaRecord, remote, world.legRecord.settings, 'UTC'));
  await refused('WRONG_SIDE', extend(legs, world.relationship, remote, world.legRecord.settings, 'UTC'));
  await refused('EXTENDED_REPLICA', extend(world.third.extended!, world.thirdRecord, remote, world.legRecord.settings, 'UTC'));
  await world.during(legs.remove(VM_ID));
  await refused('BAD_SETTING', extend(legs, world.replicaRecord, remote, { ...world.replicaRecord.settings, frequencySec: 300 }, 'UTC'));
  const primary = { ...remote, fingerprint: world.replicaRecord.remote.fingerprint };
  await refused('SAME_HOST', extend(legs, world.replicaRecord, primary, { ...world.replicaRecord.settings, frequencySec: 900 }, 'UTC'));
  assert.deepEqual(await world.during(world.replica.ports.files.list(`/replica/extended/vms/${VM_ID}`)), []);
});

test('R22: the third host takes over only when nobody runs the VM, and then nobody else may; cancelling gives it back', async () => {
  const world = await replicating(7);
  world.stopGuest();
  const { signal } = new AbortController();
  const { third, replica, primary } = world;
  const takeOver = (host: typeof third) => world.during(host.replicaDirection.unplanned(VM_ID, signal, () => host.failover!.unplanned(VM_ID)));
  primary.guestCount = 1;
  await assert.rejects(takeOver(third), { code: 'PRIMARY_IS_RUNNING' });
  assert.equal(world.legRecord.tookOver ?? null, null);
  assert.equal(world.thirdRecord.state, 'Replicating');
  primary.guestCount = 0;

  await takeOver(third);
  assert.deepEqual([third.letsIn(VM_ID), primary.letsIn(VM_ID), replica.letsIn(VM_ID)], [true, false, false]);
  assert.equal(world.legRecord.state, 'Error');
  await assert.rejects(takeOver(replica), { code: 'PEER_FAILED_OVER' });
  await world.scheduler.pass(120_000);
  assert.equal(primary.letsIn(VM_ID), false, 'a report of the replica has let guests in again');
  await world.during(third.replicaDirection.cancel(VM_ID));
  await until(world, () => primary.letsIn(VM_ID));
  await until(world, () => world.legRecord.state === 'Replicating');

  // Failed over on the replica: the third host hears so.
  await takeOver(replica);
  await assert.rejects(takeOver(third), { code: 'REPLICA_FAILED_OVER' });
  await world.during(replica.replicaDirection.cancel(VM_ID));
  await until(world, () => primary.letsIn(VM_ID));

  // Forced, as nobody can be asked: found out when they meet.
  world.network.cut = true;
  await takeOver(third);
  assert.equal(primary.letsIn(VM_ID), true);
  world.network.cut = false;
  await until(world, () => !primary.letsIn(VM_ID));
  await assert.rejects(world.during(third.replicaDirection.reverse(VM_ID, false, signal)), { code: 'EXTENDED_REPLICA' });
  await assert.rejects(world.during(third.replicaDirection.planned(VM_ID, signal)), { code: /EXTENDED_REPLICA|INVALID_STATE/ });
  await world.during(third.replicaDirection.cancel(VM_ID));
  await world.catchUpExtended();
});
