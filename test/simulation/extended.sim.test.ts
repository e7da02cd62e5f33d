import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExtendedWorld } from './extended-world.ts';
import { VM_ID } from './world.ts';

const COUNT = Number(process.env.SIM_COUNT ?? (process.env.UNDERSTUDY_TEST_LONG === '1' ? 60 : 3));
const FIRST = Number(process.env.SIM_SEED ?? 1);

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/extended.sim.test.ts */
for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
  test(`seed ${seed}: three hosts fail at random; the extended replica is always one past instant, and catches up`, async () => {
    const world = new ExtendedWorld(seed);
    await world.beginExtended();
    world.network.lossRate = world.dice.pick([0, 0, 0.02, 0.1]);
    const steps = world.dice.between(6, 12);
    for (let step = 0; step < steps; step++) {
      await world.scheduler.pass(world.dice.between(10, 200_000));
      await disturb(world);
      if (!world.replica.life.alive || !world.third.life.alive) continue;
      world.checkThird();
      world.edited &&= world.replicaRecord.lost !== null || world.replicaRecord.resync !== null;
      if (world.edited) continue;
      world.checkReplica();
      world.checkLegMap();
    }
    world.network.lossRate = 0;
    await world.catchUpExtended();
    world.checkThird();
    assert.ok(world.thirdChecks > 0);
  });
}

async function disturb(world: ExtendedWorld): Promise<void> {
  const { dice, network } = world;
  const host = dice.pick(world.everyHost);
  switch (dice.between(0, 10)) {
    case 0:
      network.cut = !network.cut;
      return;
    case 1: case 2:
      return world.killed(host);
    case 3: case 4:
      // Of the replica or the third host: nothing that is on record of a leg is lost.
      (dice.chance(0.5) ? world.replica : world.third).crash('machine');
      for (const dead of world.everyHost) if (!dead.life.alive) await world.restart(dead);
      return;
    case 5:
      // A resynchronization of the first leg, with its merge (R27).
      await world.powerLoss(world.primary);
      await world.restart(world.primary);
      return world.autoStart();
    case 6:
      return steerLeg(world);
    case 7:
      return failOverAndBack(world);
    case 8:
      // Somebody else has written to the replica disk: nothing of that may ever be an instant on the third host.
      return dice.chance(0.3) ? editReplica(world) : undefined;
    default:
      return world.autoStart();
  }
}

/** While its server is down; the next start finds it out. Half-way through something else it is redone, or shown otherwise. */
async function editReplica(world: ExtendedWorld): Promise<void> {
  const { replica, replicaRecord: { applying, resync, initial, failover = null, baselineId } } = world;
  if (applying !== null || resync !== null || initial !== null || failover !== null || baselineId === '') return;
  replica.crash('process');
  replica.volume.edit(replica.catalog.vms.get(VM_ID)!.disks[0]!.path, Buffer.alloc(512, 9), 512 * world.dice.between(0, 4000));
  await world.restart(replica);
  assert.notEqual(world.replicaRecord.lost, null);
  world.edited = true;
}

/** What a user may do to the leg. */
async function steerLeg(world: ExtendedWorld): Promise<void> {
  const { dice, replica } = world;
  const legs = replica.extended!;
  const { state } = world.legRecord;
  if (state === 'Replicating') {
    if (dice.chance(0.5)) return world.leg.require({ trigger: dice.pick([2, 6, 8] as const), reason: 'a test' });
    legs.relationships.perform(VM_ID, 'suspend');
    world.leg.interrupt('paused');
    await world.scheduler.pass(dice.between(0, 200_000));
    if (world.legRecord.state === 'Suspended') legs.relationships.perform(VM_ID, 'resume', { error: null });
    legs.get(VM_ID)?.interrupt('resumed');
  } else if (state === 'Resynchronizing') {
    await world.scheduler.pass(dice.between(0, 300));
    dice.pick([world.replica, world.third]).crash('process');
    for (const dead of world.everyHost) if (!dead.life.alive) await world.restart(dead);
  }
}

async function failOverAndBack(world: ExtendedWorld): Promise<void> {
  const { failover, replicas } = world.replica;
  if (!replicas!.get(VM_ID)!.relationship.baselineId || world.replicaRecord.lastAppliedEpoch < world.replicaRecord.consistentFrom) return;
  const done = await world.during(failover!.unplanned(VM_ID).then(() => true, () => false));
  await world.scheduler.pass(world.dice.between(0, 30_000));
  if (done && world.replicaRecord.state === 'FailedOverWaitingCompletion') await world.during(failover!.cancel(VM_ID));
}
