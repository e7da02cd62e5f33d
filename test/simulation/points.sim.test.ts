import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkInstants } from './instants.ts';
import { seedRuns } from './seeds.ts';
import { World } from './world.ts';

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/points.sim.test.ts */
for (const { seed, format } of seedRuns({ short: 8, long: 120, imageShare: 30, onlyLong: 'vhd' })) {
  test(`${format}, seed ${seed}: whatever crashes, every recovery point and the latest are one past instant at any moment`, async () => {
    const world = new World(seed, format);
    world.autoResync = true;
    world.recoveryHistory = world.dice.between(1, 4);
    world.keepRecoveryPoints = world.dice.chance(0.5);
    world.replica.pointIntervalMs = world.dice.between(20_000, 120_000);
    await world.begin();
    await world.scheduler.pass(world.dice.between(60_000, 200_000));
    let seen = 0;
    const steps = world.dice.between(8, 20);
    for (let step = 0; step < steps; step++) {
      await disturb(world);
      seen += await checkInstants(world);
      await world.scheduler.pass(world.dice.chance(0.6) ? world.dice.between(1, 400) : world.dice.between(400, 60_000));
      seen += await checkInstants(world);
    }
    await world.catchUp({ resync: true });
    seen += await checkInstants(world);
    assert.ok(seen > steps, `only ${seen} instants were looked at`);
    const points = world.replica.catalog.points.list(world.replicaRecord.vmId);
    assert.ok(points.length <= world.recoveryHistory);
    const undo = world.replica.volume.paths().filter((path) => path.endsWith('.hru'));
    const named = points.flatMap(({ disks }) => disks).filter(({ end }) => end > 0).map(({ path }) => path);
    assert.deepEqual(undo, named.sort(), 'undo logs are left that no point names');
  });
}

async function disturb(world: World): Promise<void> {
  const { dice, network } = world;
  const host = dice.chance(0.7) ? world.replica : world.primary;
  switch (dice.between(0, 6)) {
    case 0:
      network.cut = !network.cut;
      return;
    case 1: case 2: case 3:
      host.crash('process');
      await checkInstants(world);
      await world.scheduler.pass(dice.between(0, 3000));
      return world.restart(host);
    case 4:
      await world.powerLoss(host);
      await checkInstants(world);
      return world.restart(host);
    default:
      return;
  }
}
