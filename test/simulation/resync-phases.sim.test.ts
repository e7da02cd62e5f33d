import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decide } from '../../src/model/relationship.ts';
import { cancel, failOver, replicaOf, resume, resyncBegins, suspend } from './resync-rig.ts';
import type { LiveProgress } from '../../src/resync/primary-resync.ts';
import { CHECKPOINT_BYTES } from './sim-host.ts';
import type { World } from './world.ts';

const SEED = Number(process.env.SIM_SEED ?? 7);
const LONG = process.env.UNDERSTUDY_TEST_LONG === '1';
const INSTANTS = LONG ? 100 : 50;

/** When the undisturbed run is over, in ms from its begin; every run of the same seed is the same until it is disturbed. */
async function lengthOf(seed: number): Promise<number> {
  const world = await resyncBegins(seed);
  const from = world.scheduler.now;
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  return world.scheduler.now - from;
}

const length = await lengthOf(SEED);
const instants = Array.from({ length: INSTANTS }, (_, index) => (length * (index + 0.5)) / INSTANTS);

async function at(ms: number, stretches?: Stretches): Promise<World> {
  const world = await resyncBegins(SEED);
  const end = world.scheduler.now + ms;
  await world.scheduler.until(() => {
    stretches?.look(world);
    return world.scheduler.now >= end;
  }, ms);
  await world.scheduler.pass(end - world.scheduler.now);
  return world;
}

const replicaPhase = (world: World): string => world.replicaRecord.resync?.phase ?? 'none';
const bases = (world: World): Buffer[] => world.replica.relationships.vm(world.relationship.vmId).disks
  .map(({ path }) => Buffer.from(world.replica.volume.contents(path)));

/**
 * What each stretch of a run has compared, and what of it the cursors on record have kept, in bytes, seen at every step of the simulation; a
 * killed server begins a stretch as a pause does. Here a disk is so small that all of it may be decided while its first checkpoint is on
 * its way; how far apart checkpoints are is seen on real servers (test/system/resync-control.test.ts).
 */
class Stretches {
  #stretches = new Map<LiveProgress, { compared: number; from: number; kept: number; counted: ReadonlyMap<string, number> }>();
  #tokens = new Set<string>();

  look(world: World): void {
    const live = world.primary.resync.live.get(world.relationship.vmId);
    if (live === undefined) return;
    this.#tokens.add(live.token);
    const disks = world.relationship.resync?.disks ?? {};
    const kept = Object.values(disks).reduce((sum, { cursor, compared, totalBytes }) => sum + (compared ? totalBytes : cursor), 0);
    // Progress counts on from what earlier stretches have kept.
    const { from, counted } = this.#stretches.get(live) ??
      { from: kept, counted: new Map(Object.entries(disks).map(([diskId, { comparedBytes }]) => [diskId, comparedBytes])) };
    const compared = [...live.disks].reduce((sum, [diskId, { comparedBytes }]) => sum + comparedBytes - (counted.get(diskId) ?? 0), 0);
    this.#stretches.set(live, { compared, from, kept, counted });
  }

  /** One run to its end, compared whole: nothing twice but what lay behind the last checkpoint of each stretch that was cut. */
  check(world: World): void {
    if (this.#tokens.size !== 1) return;
    const total = world.primary.relationships.vm(world.relationship.vmId).disks.reduce((sum, { virtualSize }) => sum + virtualSize, 0);
    const stretches = [...this.#stretches.values()];
    const sum = stretches.reduce((all, { compared }) => all + compared, 0);
    assert.ok(sum >= total, `${sum} bytes compared of ${total}`);
    const twiceMax = stretches.slice(0, -1).reduce((all, { compared, from, kept }) => all + compared - (kept - from), 0);
    assert.ok(sum - total <= twiceMax, `${sum - total} bytes compared twice in ${stretches.length} stretches, at most ${twiceMax} are allowed`);
    stretchesSeen.push(stretches.length);
  }
}
const stretchesSeen: number[] = [];

/** Ends equal, and nothing that was decided before the last checkpoint is compared again. */
async function goesOn(world: World, stretches: Stretches, disturb: () => Promise<void>): Promise<void> {
  const before = world.relationship.resync;
  const decided = Object.entries(before?.disks ?? {}).map(([diskId, { cursor, compared }]) => ({ diskId, cursor, compared }));
  const cursors = new Map(decided.map(({ diskId, cursor }) => [diskId, cursor]));
  stretches.look(world);
  await disturb();
  const after = world.relationship.resync;
  if (before !== null && after?.token === before.token && before.firstEpoch > 0) {
    for (const { diskId, compared } of decided) {
      const now = after.disks[diskId]!;
      assert.ok(now.cursor >= cursors.get(diskId)!, `the cursor of ${diskId} went back`);
      assert.ok(!compared || now.compared, `${diskId} is compared again`);
    }
  }
  world.checkReplica();
  await world.scheduler.until(() => {
    if (world.primary.life.alive) stretches.look(world);
    return world.relationship.state === 'Replicating';
  }, 600_000);
  stretches.check(world);
  await world.catchUp({ resync: true });
  world.checkReplica();
}

describe('at 50 instants of a resynchronization', () => {
  const seen = new Set<string>();

  for (const [index, ms] of instants.entries()) {
    const name = `instant ${index} of ${INSTANTS} (${Math.round(ms)} ms)`;

    test(`${name}: pause, link cut, kill of either side: it goes on from its cursor, and ends equal`, async () => {
      const stretches = new Stretches();
      const world = await at(ms, stretches);
      seen.add(replicaPhase(world));
      const kind = ['pause', 'cut', 'primary', 'replica', 'replica machine'][index % 5]!;
      await goesOn(world, stretches, async () => {
        if (kind === 'cut') {
          world.network.cut = true;
          await world.scheduler.pass(20_000);
          world.network.cut = false;
        } else if (kind === 'pause') {
          if (world.relationship.state !== 'Resynchronizing' || world.relationship.resync?.phase === 'merging') return;
          suspend(world);
          await world.scheduler.pass(5000);
          assert.equal(world.relationship.state, 'ResynchronizeSuspended', world.story());
          resume(world);
        } else {
          const host = kind === 'primary' ? world.primary : world.replica;
          host.crash(kind === 'replica machine' ? 'machine' : 'process');
          await world.scheduler.pass(3000);
          await world.restart(host);
        }
      });
    });

    // Each phase has tests of its own below.
    if (!LONG && index % 5 !== 4) continue;

    test(`${name}: cancelled, it leaves the base as it was; merging, it cannot be cancelled`, async () => {
      const world = await at(ms);
      const before = bases(world);
      if (world.relationship.state !== 'Resynchronizing') return;
      if (world.relationship.resync!.phase === 'merging') {
        assert.throws(() => cancel(world), { code: 'INVALID_STATE' });
        return;
      }
      const merging = replicaPhase(world) === 'merging';
      cancel(world);
      await world.scheduler.pass(120_000);
      assert.equal(world.relationship.state, 'WaitingForStartResynchronize', world.story());
      assert.equal(world.tracked!.logging, false, 'it still keeps logs');
      assert.deepEqual(world.primary.volume.paths().filter((path) => path.includes('.hrl')), []);
      // The one instant between the record on the replica and its news reaching the primary.
      if (!merging && replicaPhase(world) === 'none' && world.replicaRecord.baselineId === world.relationship.baselineId) {
        for (const [disk, content] of bases(world).entries()) assert.ok(content.equals(before[disk]!), `base ${disk} has changed`);
      }
      assert.deepEqual(world.replica.volume.paths().filter((path) => path.includes('.diff')), []);
      world.checkReplica();
      resume(world);
      await world.catchUp({ resync: true });
    });

    test(`${name}: planned and test failover are refused, an unplanned one serves one past instant`, async () => {
      const world = await at(ms);
      if (world.relationship.state !== 'Resynchronizing' || replicaPhase(world) === 'none') return;
      const { vmId } = world.relationship;
      for (const operation of ['test-failover', 'planned-failover'] as const) {
        const decision = decide(world.replica.relationships.situation(vmId), operation);
        assert.ok('code' in decision && decision.code === 'INVALID_STATE', `${operation} in ${replicaOf(world).relationship.state}`);
      }
      const served = await failOver(world);
      assert.equal(world.history.contradiction(served), null);
      await world.scheduler.pass(60_000);
      assert.equal(world.replicaRecord.state, 'FailedOverWaitingCompletion');
      assert.equal(replicaPhase(world), 'none', 'the primary resynchronizes what a guest runs on');
    });
  }

  test('the instants fell into every phase', () => {
    for (const phase of ['none', 'comparing', 'merging']) assert.ok(seen.has(phase), `no instant while ${phase}: ${[...seen].join()}`);
  });

  test('and most of them cut a stretch that the next one went on from', () => {
    assert.ok(stretchesSeen.length >= INSTANTS / 2, `${stretchesSeen.length} runs were counted`);
    assert.ok(stretchesSeen.filter((count) => count >= 2).length >= INSTANTS / 4, stretchesSeen.join());
  });
});

for (const phase of ['characteristics', 'comparing', 'completing', 'merging'] as const) {
  const reached = async (): Promise<World> => {
    const world = await resyncBegins(SEED);
    assert.ok(await world.scheduler.until(() => world.relationship.resync?.phase === phase, 600_000), `never ${phase}: ${world.story()}`);
    return world;
  };

  test(`${phase}: planned and test failover are refused on both sides, an unplanned one serves one past instant, and nothing overwrites it`, async () => {
    const world = await reached();
    const { vmId } = world.relationship;
    const before = bases(world);
    const merging = replicaPhase(world) === 'merging';
    const prepare = decide(world.primary.relationships.situation(vmId), 'prepare-failover');
    assert.ok('code' in prepare && prepare.code === 'INVALID_STATE', 'the primary can be prepared');
    // Before the replica has heard of the run it is a replica as any other.
    if (replicaPhase(world) !== 'none') {
      for (const operation of ['test-failover', 'planned-failover'] as const) {
        const decision = decide(world.replica.relationships.situation(vmId), operation);
        assert.ok('code' in decision && decision.code === 'INVALID_STATE', operation);
      }
    }
    const served = await failOver(world);
    assert.equal(world.history.contradiction(served), null);
    await world.scheduler.pass(60_000);
    assert.equal(world.replicaRecord.state, 'FailedOverWaitingCompletion');
    if (merging) return;
    for (const [disk, content] of bases(world).entries()) assert.ok(content.equals(before[disk]!), `base ${disk} has changed`);
    const diffs = world.replica.volume.paths().filter((path) => path.includes('.diff') && !path.includes('.failover.'));
    assert.deepEqual(diffs, [], 'what had been compared is still there');
  });

  test(`${phase}: cancelled, the base stays byte for byte; merging, it cannot be cancelled`, async () => {
    const world = await reached();
    const before = bases(world);
    if (phase === 'merging') return void assert.throws(() => cancel(world), { code: 'INVALID_STATE' });
    const { baselineId } = world.replicaRecord;
    cancel(world);
    await world.scheduler.pass(120_000);
    assert.equal(world.relationship.state, 'WaitingForStartResynchronize', world.story());
    assert.equal(world.replicaRecord.baselineId, baselineId);
    for (const [disk, content] of bases(world).entries()) assert.ok(content.equals(before[disk]!), `base ${disk} has changed`);
    resume(world);
    await world.catchUp({ resync: true });
  });
}

test('what was compared is not compared twice beyond a checkpoint', async () => {
  const world = await resyncBegins(SEED);
  const { vmId } = world.relationship;
  /** By stretch and disk: bytes decided in it. */
  const decided = new Map<string, number>();
  let interruptions = 0;
  const done = () => {
    for (const [diskId, { comparedBytes }] of world.primary.resync.live.get(vmId)?.disks ?? []) decided.set(`${interruptions} ${diskId}`, comparedBytes);
    return world.relationship.state === 'Replicating';
  };
  while (interruptions < 12 && !(await world.scheduler.until(done, length / 10))) {
    if (world.relationship.resync?.phase === 'merging') continue;
    suspend(world);
    await world.scheduler.pass(500);
    interruptions++;
    resume(world);
  }
  await world.scheduler.until(done, 600_000);
  const total = world.primary.relationships.vm(vmId).disks.reduce((sum, { virtualSize }) => sum + virtualSize, 0);
  const sum = [...decided.values()].reduce((all, bytes) => all + bytes, 0);
  assert.ok(interruptions >= 3, `${interruptions} interruptions`);
  assert.ok(sum >= total, `${sum} bytes decided of ${total}`);
  assert.ok(sum <= total + interruptions * CHECKPOINT_BYTES.compared, `${sum} bytes decided of ${total}, ${interruptions} interruptions`);
  await world.catchUp({ resync: true });
});

test('diff disks that are gone when a paused run continues: it starts over instead of taking them for empty', async () => {
  const world = await resyncBegins(SEED);
  const past = () => Object.values(world.relationship.resync?.disks ?? {}).some(({ cursor, compared }) => cursor > 0 && !compared);
  assert.ok(await world.scheduler.until(past, 600_000));
  suspend(world);
  await world.scheduler.pass(1000);
  const { token } = world.relationship.resync!;
  const lost = world.replica.volume.paths().filter((path) => path.includes('.diff'));
  assert.ok(lost.length > 0);
  for (const path of lost) await world.during(world.replica.volume.mount({ alive: true }).remove(path));
  resume(world);
  assert.ok(await world.scheduler.until(() => world.relationship.resync?.token !== token, 600_000), 'the run goes on over an empty diff disk');
  await world.catchUp({ resync: true });
  world.checkReplica();
});

test('diff disks that are gone in the middle of their merge: nobody calls the replica in sync before it is compared again', async () => {
  const world = await resyncBegins(SEED);
  assert.ok(await world.scheduler.until(() => replicaPhase(world) === 'merging', 600_000));
  world.replica.crash('process');
  for (const path of world.replica.volume.paths().filter((name) => name.includes('.diff'))) {
    await world.during(world.replica.volume.mount({ alive: true }).remove(path));
  }
  await world.restart(world.replica);
  const required = () => world.relationship.required?.trigger === 7;
  assert.ok(await world.scheduler.until(required, 600_000), world.story());
  resume(world);
  await world.catchUp({ resync: true });
});
