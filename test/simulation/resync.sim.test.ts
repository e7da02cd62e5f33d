import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkNow } from './instants.ts';
import { seedRuns } from './seeds.ts';
import { World } from './world.ts';

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/resync.sim.test.ts */
for (const { seed, format } of seedRuns({ short: 40, long: 240, imageShare: 40 })) {
  test(`${format}, seed ${seed}: whatever crashes during a resync, the replica is always one past instant, and both sides end equal`, async () => {
    const world = new World(seed, format);
    world.autoResync = true;
    await world.begin();
    await world.scheduler.pass(world.dice.between(1000, 60_000));
    const steps = world.dice.between(5, 20);
    for (let step = 0; step < steps; step++) {
      await disturb(world);
      if (world.replica.life.alive) await checkNow(world);
      await world.scheduler.pass(world.dice.chance(0.5) ? world.dice.between(1, 400) : world.dice.between(400, 60_000));
      if (world.replica.life.alive) await checkNow(world);
    }
    await world.catchUp({ resync: true });
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
    case 3: case 4:
      await world.powerLoss(host);
      return world.restart(host);
    default:
      return;
  }
}
