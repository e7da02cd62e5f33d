import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from './world.ts';

const COUNT = Number(process.env.SIM_COUNT ?? (process.env.UNDERSTUDY_TEST_LONG === '1' ? 400 : 40));
const FIRST = Number(process.env.SIM_SEED ?? 1);

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/resync.sim.test.ts */
for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
  test(`seed ${seed}: whatever crashes during a resync, the replica is always one past instant, and both sides end equal`, async () => {
    const world = new World(seed);
    world.autoResync = true;
    await world.begin();
    await world.scheduler.pass(world.dice.between(1000, 60_000));
    const steps = world.dice.between(5, 20);
    for (let step = 0; step < steps; step++) {
      await disturb(world);
      if (world.replica.life.alive) world.checkReplica();
      await world.scheduler.pass(world.dice.chance(0.5) ? world.dice.between(1, 400) : world.dice.between(400, 60_000));
      if (world.replica.life.alive) world.checkReplica();
    }
    await world.catchUp({ resync: true });
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
      host.crash('process');
      await world.scheduler.pass(dice.between(0, 3000));
      return world.restart(host);
    case 3: case 4:
      world.powerLoss(host);
      return world.restart(host);
    default:
      return;
  }
}
