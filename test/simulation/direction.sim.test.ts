import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { DirectionWorld } from './direction-world.ts';
import { disksOf } from './instants.ts';
import { seedRuns } from './seeds.ts';
import type { SimHost } from './sim-host.ts';
import { VM_ID } from './world.ts';

const NEVER = new AbortController().signal;
/** What it is then is not known beforehand: sets go on arriving. */
const LATEST = { id: 'latest', disks: null as Uint8Array[] | null };

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/direction.sim.test.ts */
for (const { seed, format } of seedRuns({ short: 40, long: 200, imageShare: 40, onlyLong: 'vhdx' })) {
  test(`${format}, seed ${seed}: whatever is commanded and crashes, one side writes, nothing acknowledged is lost, and both end as a pair`, async () => {
    const world = new DirectionWorld(seed, format);
    world.autoResync = true;
    world.recoveryHistory = world.dice.between(0, 3);
    for (const host of world.hosts()) host.pointIntervalMs = world.dice.between(20_000, 100_000);
    await world.begin();
    assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
    await world.adopt();
    const steps = world.dice.between(8, 24);
    for (let step = 0; step < steps; step++) {
      await act(world);
      await world.scheduler.pass(world.dice.chance(0.5) ? world.dice.between(1, 2000) : world.dice.between(2000, 60_000));
      await check(world);
    }
    await home(world);
  });
}

async function check(world: DirectionWorld): Promise<void> {
  world.checkPair();
  world.checkOneWriter();
  await world.noticeBranch();
  await world.checkTruth('after a step');
  await world.checkReplicas();
  await world.checkTests();
}

/** One command or one misfortune; commands may be hit by a crash of either side. */
async function act(world: DirectionWorld): Promise<void> {
  const { dice } = world;
  const host = dice.pick(world.hosts());
  if (dice.chance(0.35)) world.crashSoon(dice.pick(world.hosts()), dice.between(0, 400));
  switch (dice.between(0, 13)) {
    case 0:
      world.network.cut = !world.network.cut;
      break;
    case 1:
      await machineCrash(world, host);
      break;
    case 2: case 3:
      await moveTo(world, world.other(world.active()));
      break;
    case 4: case 5:
      await command(world, host, 'unplanned');
      break;
    case 6: case 7:
      await command(world, host, 'reverse');
      break;
    case 8:
      await command(world, host, 'cancel');
      break;
    case 9:
      await command(world, host, dice.pick(['prepare', 'planned', 'complete']));
      break;
    case 10:
      if (world.forced) await world.rogue(world.other(world.active()));
      break;
    case 11: case 12:
      await command(world, host, 'test');
      break;
    default:
      break;
  }
  // As the crash has left it.
  await world.checkReplicas();
  for (const each of world.hosts()) await world.up(each);
  await world.noticeBranch();
  if (world.guestAt === null && dice.chance(0.7)) world.connect(world.active());
}

type Word = 'prepare' | 'planned' | 'unplanned' | 'cancel' | 'reverse' | 'complete' | 'test';

async function command(world: DirectionWorld, host: SimHost, word: Word, discard = false): Promise<UnderstudyError | null | 'died'> {
  // An administrator shuts the guest down for what needs that, most of the time.
  if (word !== 'planned' && word !== 'test' && world.dice.chance(word === 'unplanned' && world.guestAt !== host ? 0.7 : 0.9)) await stopGuest(world);
  if (word === 'unplanned' && world.network.cut) await stopGuest(world);
  // Half of the failovers and tests are to the latest instant, the others to any that is there.
  const asked = (word === 'unplanned' || word === 'test') && world.dice.chance(0.5) ? world.dice.pick([LATEST, ...(await world.points(host))]) : LATEST;
  const rogue = world.rogueWrote;
  const before = world.record(host).generation ?? 0;
  const outcome = await world.command(host, () => {
    const { primaryDirection, replicaDirection, failover } = host;
    if (word === 'prepare') return primaryDirection.prepare(VM_ID, NEVER);
    if (word === 'planned') return replicaDirection.planned(VM_ID, NEVER);
    if (word === 'unplanned') return replicaDirection.unplanned(VM_ID, NEVER, () => failover!.unplanned(VM_ID, asked.id));
    if (word === 'test') return failover!.test(VM_ID, asked.id);
    if (word === 'complete') return replicaDirection.complete(VM_ID);
    if (word === 'reverse') return replicaDirection.reverse(VM_ID, discard, NEVER);
    return world.record(host).side === 'primary' ? primaryDirection.cancel(VM_ID, NEVER) : replicaDirection.cancel(VM_ID);
  });
  if (outcome === null && word === 'test') await world.testBegan(host, asked.disks);
  if (outcome === null && word === 'unplanned' && asked.disks !== null && host.life.alive) await world.checkPoint(host, asked.disks);
  if (word === 'reverse' && outcome === null && rogue && !discard) {
    assert.equal(world.record(host).generation ?? 0, before, `what the old primary wrote after the failover was dropped unasked\n${world.story()}`);
  }
  if (outcome instanceof UnderstudyError) assert.ok(outcome.kind === 'state' || outcome.kind === 'peer' || outcome.kind === 'io', String(outcome));
  return outcome;
}

/** What was in flight ends, so that nobody writes any more. */
async function stopGuest(world: DirectionWorld): Promise<void> {
  world.disconnect();
  await world.scheduler.pass(2000);
}

/** The way that the manual names for moving a VM on purpose; any step may be refused or hit. */
async function moveTo(world: DirectionWorld, host: SimHost): Promise<void> {
  await stopGuest(world);
  await command(world, world.other(host), 'prepare');
  await command(world, host, 'planned');
  await world.noticeBranch();
  if (world.active() === host && world.dice.chance(0.3)) {
    world.connect(host);
    await world.scheduler.pass(3000);
    await stopGuest(world);
  }
  await command(world, host, 'reverse');
}

async function machineCrash(world: DirectionWorld, host: SimHost): Promise<void> {
  const wasActive = world.active() === host;
  if ((world.record(host).unmerged ?? null) !== null) return;
  if (world.guestAt === host) world.disconnect();
  host.guestCount = 0;
  host.crash('machine');
  await world.up(host);
  if (wasActive) await world.rebirth(host);
  else world.otherLostPower();
}

/** Everything healed: a person ends what is open, both sides are equal, and hold what the guest was answered. */
async function home(world: DirectionWorld): Promise<void> {
  world.network.cut = false;
  world.endGuest();
  for (let round = 0; round < 20; round++) {
    for (const host of world.hosts()) await world.up(host);
    await world.scheduler.pass(120_000);
    await check(world);
    if (round > 0) world.checkBothSaySo();
    const active = world.active();
    const { side, state } = world.record(active);
    const tested = world.hosts().find((host) => (world.record(host).testFailover ?? null) !== null);
    if (tested !== undefined) await command(world, tested, 'cancel');
    else if (side === 'replica') await command(world, active, 'reverse', true);
    else if (state === 'PreparedForFailover') await command(world, active, 'cancel');
    else if (await isInSync(world, active)) break;
  }
  const primary = world.active();
  const states = world.hosts().map((host) => `${host.name} ${world.record(host).side} ${world.record(host).state}`).join(', ');
  assert.ok(await isInSync(world, primary), `${states}\n${world.story()}`);
  await world.checkTruth('at the end');
  const [ours, theirs] = [await disksOf(primary), await disksOf(world.other(primary))];
  for (const [index, disk] of ours.entries()) assert.ok(Buffer.compare(disk, theirs[index]!) === 0, `disk ${index} is not equal\n${world.story()}`);
}

async function isInSync(world: DirectionWorld, primary: SimHost): Promise<boolean> {
  const [ours, theirs] = [world.record(primary), world.record(world.other(primary))];
  if (ours.state !== 'Replicating' || theirs.state !== 'Replicating' || theirs.side !== 'replica') return false;
  const outcome = await world.command(primary, async () => void (await primary.primaries.get(VM_ID)!.syncNow(NEVER)));
  return outcome === null;
}
