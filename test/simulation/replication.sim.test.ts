import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from './world.ts';

const COUNT = Number(process.env.SIM_COUNT ?? (process.env.UNDERSTUDY_TEST_LONG === '1' ? 600 : 60));
const FIRST = Number(process.env.SIM_SEED ?? 1);

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/replication.sim.test.ts */
for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
  test(`seed ${seed}: the replica is always one past instant, and catches up when faults end`, async () => {
    const world = new World(seed);
    await world.begin();
    world.network.lossRate = world.dice.pick([0, 0, 0.05, 0.2]);
    const steps = world.dice.between(5, 25);
    for (let step = 0; step < steps; step++) {
      await world.scheduler.pass(world.dice.between(10, 40_000));
      await disturb(world);
      if (world.replica.life.alive) world.checkReplica();
    }
    await world.catchUp();
    world.checkReplica();
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
