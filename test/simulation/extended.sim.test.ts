import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExtendedWorld } from './extended-world.ts';

const COUNT = Number(process.env.SIM_COUNT ?? (process.env.UNDERSTUDY_TEST_LONG === '1' ? 300 : 3));
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
      if (world.third.life.alive) world.checkThird();
      if (world.replica.life.alive) {
        world.checkReplica();
        world.checkLegMap();
      }
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
  switch (dice.between(0, 7)) {
    case 0:
      network.cut = !network.cut;
      return;
    case 1: case 2:
      host.crash('process');
      await world.scheduler.pass(dice.between(0, 3000));
      return world.restart(host);
    case 3: case 4:
      // Of the replica or the third host: nothing that is on record of a leg is lost.
      (dice.chance(0.5) ? world.replica : world.third).crash('machine');
      for (const dead of world.everyHost) if (!dead.life.alive) await world.restart(dead);
      return;
    case 5:
      // A resynchronization of the first leg, with its merge (R27).
      world.powerLoss(world.primary);
      await world.restart(world.primary);
      return world.autoStart();
    default:
      return world.autoStart();
  }
}
