/**
 * A replica disk that was changed behind our back is no instant of the VM until a merge has mended it (R19, promise 3): neither the begin of a
 * resynchronization nor its end without a merge makes it one, and what says so is on record through all of it.
 *
 * Seen to fail: in replica-resync.ts the dropping of a run that leaves `lost` as its begin had set it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cancel, resume } from '../simulation/resync-rig.ts';
import { VM_ID, World } from '../simulation/world.ts';

async function comparingAfterAnEdit(seed: number): Promise<World> {
  const world = new World(seed);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  await world.scheduler.pass(65_000);
  world.replica.crash('process');
  world.replica.volume.edit(world.replica.catalog.vms.get(VM_ID)!.disks[0]!.path, Buffer.alloc(512, 9), 1 << 20);
  await world.restart(world.replica);
  assert.equal(world.replicaRecord.lost?.trigger, 7);
  await required(world);
  resume(world);
  assert.ok(await world.scheduler.until(() => world.replicaRecord.resync?.phase === 'comparing', 600_000), world.story());
  assert.equal(world.replicaRecord.lost, null);
  return world;
}

async function required(world: World): Promise<void> {
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'WaitingForStartResynchronize', 600_000), world.story());
}

test('R19: a run that a failover ends leaves the replica as lost as it was, and so does its cancellation', async () => {
  const world = await comparingAfterAnEdit(3);
  // Else it might be merged by the time the failover has its turn.
  world.network.cut = true;
  await world.during(world.replica.failover!.unplanned(VM_ID));
  assert.equal(world.replicaRecord.lost?.trigger, 7);
  await world.during(world.replica.failover!.cancel(VM_ID));
  assert.equal(world.replicaRecord.lost?.trigger, 7);
  // The primary's run goes on by itself.
  await world.catchUp({ resync: true });
  assert.equal(world.replicaRecord.lost, null);
});

test('R19: a run that is cancelled leaves it so, and the next one ends it', async () => {
  const world = await comparingAfterAnEdit(4);
  cancel(world);
  assert.ok(await world.scheduler.until(() => world.replicaRecord.resync === null, 600_000), world.story());
  assert.equal(world.replicaRecord.lost?.trigger, 7);
  resume(world);
  await world.catchUp({ resync: true });
  assert.equal(world.replicaRecord.lost, null);
});
