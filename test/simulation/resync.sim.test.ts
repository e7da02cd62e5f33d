import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkInstants } from './instants.ts';
import { World } from './world.ts';

const COUNT = Number(process.env.SIM_COUNT ?? (process.env.UNDERSTUDY_TEST_LONG === '1' ? 400 : 40));
const FIRST = Number(process.env.SIM_SEED ?? 1);

/** Images are slower to simulate, and what they do not share with raw disks has tests of its own. */
const IMAGE_SHARE = 40;

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/resync.sim.test.ts */
for (const format of ['raw', 'vhd', 'vhdx'] as const)
for (let seed = FIRST; seed < FIRST + Math.ceil(format === 'raw' ? COUNT : COUNT / IMAGE_SHARE); seed++) {
  test(`${format}, seed ${seed}: whatever crashes during a resync, the replica is always one past instant, and both sides end equal`, async () => {
    const world = new World(seed, format);
    world.autoResync = true;
    await world.begin();
    await world.scheduler.pass(world.dice.between(1000, 60_000));
    const steps = world.dice.between(5, 20);
    for (let step = 0; step < steps; step++) {
      await disturb(world);
      if (world.replica.life.alive) await look(world);
      await world.scheduler.pass(world.dice.chance(0.5) ? world.dice.between(1, 400) : world.dice.between(400, 60_000));
      if (world.replica.life.alive) await look(world);
    }
    await world.catchUp({ resync: true });
    await look(world);
    assert.equal(world.relationship.state, 'Replicating', world.story());
  });
}

/** Of a raw disk the base alone is looked at, which is quick; of an image everything that a failover could serve. */
async function look(world: World): Promise<void> {
  if (world.format === 'raw') world.checkReplica();
  else await checkInstants(world);
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
