import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from './world.ts';

const LONG = process.env.UNDERSTUDY_TEST_LONG === '1';
const COUNT = Number(process.env.SIM_COUNT ?? (LONG ? 300 : 60));
const FIRST = Number(process.env.SIM_SEED ?? 1);

/**
 * Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/machine-crash.sim.test.ts
 * Seen to fail: in tracked-disk.ts `#admit`, the mark of the map not waited for; in change-map.ts `release`, hot and newer
 * regions not
 * kept; in tracked-vm.ts `release`, the flush left out; in continuity.ts, the boot ids not compared.
 */
for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
  test(`seed ${seed}: after a machine crash of the primary whatever differs is suspect`, async () => {
    const world = new World(seed);
    const { dice } = world;
    await world.begin();
    assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
    for (let step = dice.between(0, 5); step > 0; step--) {
      await world.scheduler.pass(dice.between(10, 40_000));
      if (dice.chance(0.3)) world.network.cut = !world.network.cut;
      if (dice.chance(0.3)) {
        world.primary.crash('process');
        await world.restart(world.primary);
      }
    }
    world.primary.crash('machine');
    world.stopGuest();
    // Now and then the machine goes down again in the middle of coming up.
    const twice = dice.chance(0.3);
    if (twice) {
      void world.primary.start().catch(() => undefined);
      await world.scheduler.pass(dice.between(1, 30));
      world.primary.crash(dice.pick(['machine', 'process']));
    }
    await world.restart(world.primary);
    assert.equal(world.relationship.state, 'WaitingForStartResynchronize', world.story());
    // A crash between recording the loss and the first proof of writing of the new boot leaves nothing proven: larger, and safe.
    const { trigger, rung } = world.relationship.required!;
    if (!twice || trigger !== 1) assert.deepEqual([trigger, rung], [4, 'suspect-regions']);
    else assert.equal(rung, 'full-compare');
    assert.deepEqual(world.primary.catalog.epochs.list(world.relationship.vmId), []);
    world.network.cut = false;
    const drained = () => world.replicaRecord.lastAppliedEpoch >= world.replicaRecord.lastReceivedEpoch;
    assert.ok(await world.scheduler.until(drained, 600_000), 'the replica does not apply what it has');
    world.checkReplica();
    if (rung === 'suspect-regions') world.checkChangeMap();
  });
}
