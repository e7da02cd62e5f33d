/**
 * R19: the record that starts the merge ends the old recovery points, or opens the merge's undo unit (R14); R20: a new baseline ends them.
 * Seen to fail: the rows of test/mutation/failover-breakages.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkInstants, instantsOf } from '../simulation/instants.ts';
import { ReplicaRig } from './replica-rig.ts';

async function resynchronized(rig: ReplicaRig): Promise<void> {
  const { world } = rig;
  // A power loss of the primary, trigger 4, with some logs that had not been sent: there is something to merge.
  world.autoResync = true;
  world.network.cut = true;
  await world.scheduler.pass(90_000);
  await world.powerLoss(world.primary);
  world.network.cut = false;
  await world.restart(world.primary);
  await rig.until(() => world.relationship.state !== 'Replicating');
  world.primary.relationships.update(world.relationship.vmId, {
    required: { ...world.relationship.required!, startAt: world.primary.ports.clock.now() } });
  world.primary.primaries.get(world.relationship.vmId)!.wake();
  await rig.until(() => world.relationship.state === 'Replicating', 3_600_000);
}

test('R19: without the setting a merge ends the old points, in the record that starts it', async () => {
  const rig = await ReplicaRig.replicating(1, { history: 3 });
  await rig.untilPoints(2);
  const before = rig.points().map(({ epoch }) => epoch);
  await resynchronized(rig);
  assert.ok(!rig.points().some(({ epoch }) => before.includes(epoch)));
  assert.ok(rig.events().includes('RecoveryPointsDeleted'));
  await checkInstants(rig.world);
  await rig.endsEqual();
});

test('R19: with it the merge keeps what it overwrites, and the old points are what they were', async () => {
  const rig = await ReplicaRig.replicating(2, { history: 4, keepPoints: true });
  await rig.untilPoints(2);
  const before = (await instantsOf(rig.world)).filter(({ id }) => id !== 'latest');
  await resynchronized(rig);
  const after = new Map((await instantsOf(rig.world)).map((instant) => [instant.id, instant]));
  for (const { id, disks } of before) {
    const now = after.get(id)?.disks ?? [];
    // Not deepEqual: telling where megabytes differ takes minutes.
    assert.ok(disks.every((disk, index) => now[index] !== undefined && Buffer.compare(disk, now[index]) === 0), `${id} has changed`);
  }
  await rig.endsEqual();
});

test('a replica disk that was changed behind our back costs its points, and says so', async () => {
  const rig = await ReplicaRig.replicating(3, { history: 3, keepPoints: true });
  await rig.untilPoints(2);
  const { world } = rig;
  const [disk] = world.replica.relationships.vm(world.relationship.vmId).disks;
  world.replica.volume.edit(disk!.path, Buffer.alloc(512, 9), 1 << 20);
  await rig.until(() => world.replicaRecord.lost !== null);
  assert.ok(rig.points().every(({ damaged }) => damaged !== null));
  assert.ok(rig.events().includes('RecoveryPointsDamaged'));
});
