import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkNow } from './instants.ts';
import { seedRuns } from './seeds.ts';
import { World } from './world.ts';

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/replication.sim.test.ts */
for (const { seed, format } of seedRuns({ short: 60, long: 300, imageShare: 60 })) {
  test(`${format}, seed ${seed}: the replica is always one past instant, and catches up when faults end`, async () => {
    const world = new World(seed, format);
    await world.begin();
    world.network.lossRate = world.dice.pick([0, 0, 0.05, 0.2]);
    const steps = world.dice.between(5, 25);
    for (let step = 0; step < steps; step++) {
      await world.scheduler.pass(world.dice.between(10, 40_000));
      await disturb(world);
      if (world.replica.life.alive) await checkNow(world);
    }
    await world.catchUp();
    await checkNow(world);
    assert.equal(world.relationship.state, 'Replicating', world.story());
  });
}

async function disturb(world: World): Promise<void> {
  const { dice, network } = world;
  const host = dice.pick([world.primary, world.replica]);
  switch (dice.between(0, 5)) {
    case 0:
      network.cut = !network.cut;
      return;
    case 1: case 2:
      return world.killed(host);
    case 3:
      // The primary's machine crash ends in a resync: machine-crash.sim.test.ts.
      world.replica.crash('machine');
      return world.restart(world.replica);
    default:
      return;
  }
}
