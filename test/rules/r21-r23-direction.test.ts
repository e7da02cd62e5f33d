/** R21, R22, R23: who may write, who decides, and what a reversal has to compare. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { DirectionWorld } from '../simulation/direction-world.ts';
import type { SimHost } from '../simulation/sim-host.ts';
import { VM_ID } from '../simulation/world.ts';

const NEVER = new AbortController().signal;

async function replicating(seed: number): Promise<DirectionWorld> {
  const world = new DirectionWorld(seed);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  await world.adopt();
  await world.scheduler.pass(60_000);
  return world;
}

/** At any time of the day. */
function resynchronizesByItself(world: DirectionWorld): void {
  world.autoResync = true;
  const { settings } = world.record(world.primary);
  world.primary.relationships.update(VM_ID, { settings: { ...settings, autoResync: { enabled: true, intervalStart: '00:00:00', intervalEnd: '23:59:59' } } });
}

const unplanned = (world: DirectionWorld, host: SimHost) =>
  world.command(host, () => host.replicaDirection.unplanned(VM_ID, NEVER, () => host.failover!.unplanned(VM_ID)));
const reverse = (world: DirectionWorld, host: SimHost, discard = false) =>
  world.command(host, () => host.replicaDirection.reverse(VM_ID, discard, NEVER));
const cancel = (world: DirectionWorld, host: SimHost) => world.command(host, () =>
  (world.record(host).side === 'primary' ? host.primaryDirection.cancel(VM_ID, NEVER) : host.replicaDirection.cancel(VM_ID)));

function refused(outcome: UnderstudyError | null | 'died', code: string, remedy: RegExp): void {
  assert.ok(outcome instanceof UnderstudyError, `${code} was expected, not ${String(outcome)}`);
  assert.equal(outcome.code, code);
  assert.match(outcome.remedy, remedy);
}

test('R22: a failover is refused while the guest runs on a primary that can be asked', async () => {
  const world = await replicating(1);
  refused(await unplanned(world, world.replica), 'PRIMARY_IS_RUNNING', /planned failover/);
  assert.equal(world.record(world.replica).state, 'Replicating');
});

test('R22: a primary that was asked lets no guest in until the failover is cancelled', async () => {
  const world = await replicating(2);
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  assert.equal(world.connect(world.primary), false);
  world.checkOneWriter();
  assert.equal(await cancel(world, world.replica), null);
  await world.scheduler.pass(1000);
  assert.equal(world.record(world.primary).state, 'Replicating', world.story());
  assert.equal(world.connect(world.primary), true);
  assert.equal(world.connect(world.replica), false);
});

test('R21, R22: after a forced failover both sides say so when they meet, and nothing starts by itself', async () => {
  const world = await replicating(3);
  world.autoResync = true;
  world.network.cut = true;
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  assert.equal(world.connect(world.primary), true, 'the primary has not heard of it');
  await world.rogue(world.primary);
  world.disconnect();
  world.network.cut = false;
  await world.scheduler.pass(3_600_000);
  const [old, replica] = [world.record(world.primary), world.record(world.replica)];
  assert.deepEqual([old.state, old.error?.code, replica.state, replica.failover?.primaryHolds],
    ['Error', 'PEER_FAILED_OVER', 'FailedOverWaitingCompletion', true], world.story());
  assert.match(old.error!.remedy, /understudy reverse vm .*drops what only this host has.*understudy failover cancel vm .*drops what was written there/);
  assert.equal(world.connect(world.primary), false);
  assert.ok(world.replica.catalog.events({}).some(({ id }) => id === 'OldPrimaryMet'));
  assert.throws(() => world.primary.relationships.perform(VM_ID, 'resume'), { code: 'INVALID_STATE' });
  assert.throws(() => world.primary.relationships.perform(VM_ID, 'resynchronize'), { code: 'INVALID_STATE' });
});

test('R21: an old primary whose machine went down after it gave way sends nothing; once the failover is cancelled it is repaired by itself', async () => {
  const world = await replicating(7);
  resynchronizesByItself(world);
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  world.primary.crash('machine');
  await world.up(world.primary);
  await world.scheduler.pass(600_000);
  const old = world.record(world.primary);
  assert.deepEqual([old.state, old.required?.trigger, old.required?.held ?? false, old.error?.code],
    ['WaitingForStartResynchronize', 4, false, 'PEER_FAILED_OVER'], world.story());
  assert.ok(!world.primary.catalog.events({}).some(({ id }) => id === 'ResynchronizationStarted'), world.story());
  assert.equal(await cancel(world, world.replica), null);
  assert.ok(await world.scheduler.until(() => world.record(world.primary).state === 'Replicating', 600_000), world.story());
});

test('R21: a resynchronization that finds the replica taken over is not held for it: once the failover is cancelled it starts by itself', async () => {
  const world = await replicating(9);
  resynchronizesByItself(world);
  world.disconnect();
  world.network.cut = true;
  world.primary.crash('machine');
  await world.up(world.primary);
  assert.ok(await world.scheduler.until(() => world.record(world.primary).state === 'Resynchronizing', 600_000), world.story());
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  world.network.cut = false;
  assert.ok(await world.scheduler.until(() => (world.record(world.primary).tookOver ?? null) !== null, 600_000), world.story());
  await world.scheduler.pass(1000);
  const old = world.record(world.primary);
  assert.deepEqual([old.error?.code, old.required?.held ?? false, old.resync], ['PEER_FAILED_OVER', false, null], world.story());
  assert.ok(!world.primary.catalog.events({}).some(({ id }) => id === 'ResynchronizationFailed'), world.story());
  assert.equal(await cancel(world, world.replica), null);
  assert.ok(await world.scheduler.until(() => world.record(world.primary).state === 'Replicating', 600_000), world.story());
});

test('R21: what the old primary wrote after the failover is dropped only by a command that names it', async () => {
  const world = await replicating(4);
  world.network.cut = true;
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  await world.scheduler.pass(5000);
  await world.rogue(world.primary);
  assert.ok(world.rogueWrote);
  world.network.cut = false;
  refused(await reverse(world, world.replica), 'SPLIT_BRAIN', /reverse 'vm' --discard-primary drops everything.*failover cancel 'vm'.*drops everything/);
  assert.equal(world.record(world.replica).side, 'replica');
  assert.equal(await reverse(world, world.replica, true), null);
  assert.equal(world.record(world.replica).side, 'primary');
});

test('an old primary whose disk is no file cannot become the replica: refused before anything has changed, with the way round', async () => {
  const world = await replicating(8);
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  const { vms } = world.primary.catalog;
  const vm = vms.get(VM_ID)!;
  vms.put({ ...vm, disks: vm.disks.map((disk) => ({ ...disk, path: '/dev/mapper/vm' })) });
  refused(await reverse(world, world.replica), 'DISK_CANNOT_BE_REPLICA', /failover complete 'vm'.*enable it anew in the other direction/);
  assert.deepEqual([world.record(world.primary).side, world.record(world.replica).state], ['primary', 'FailedOverWaitingCompletion']);
  vms.put(vm);
  assert.equal(await reverse(world, world.replica), null);
});

test('R23: a reversal compares what either side wrote since, and nothing else', async () => {
  const world = await replicating(5);
  await world.scheduler.pass(60_000);
  world.network.cut = true;
  await world.scheduler.pass(10_000);
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  await world.noticeBranch();
  assert.equal(world.connect(world.replica), true);
  await world.scheduler.pass(6000);
  world.disconnect();
  await world.scheduler.pass(2000);
  world.network.cut = false;
  assert.equal(await reverse(world, world.replica), null);
  assert.ok(await world.scheduler.until(() => world.record(world.replica).state === 'Replicating', 3_600_000), world.story());
  const started = world.replica.catalog.events({}).findLast(({ id }) => id === 'ResynchronizationStarted');
  const compared = world.replica.catalog.events({}).findLast(({ id }) => id === 29242);
  assert.equal(started?.data['rung'], 'suspect-regions', world.story());
  assert.ok((compared?.data['disks'] as { ranges: number }[]).every(({ ranges }) => ranges > 0), 'both sides wrote to both disks');
  await world.checkTruth('after the reversal');
  await world.scheduler.pass(120_000);
  await world.checkReplicas();
});

test('R23: a disk of the old primary that was changed after it was sealed makes it a full compare, which a person starts', async () => {
  const world = await replicating(6);
  world.disconnect();
  await world.scheduler.pass(2000);
  assert.equal(await unplanned(world, world.replica), null);
  assert.equal(await world.command(world.primary, async () => world.primary.primaries.get(VM_ID)!.close()), null);
  world.primary.volume.edit(world.diskPath(0), new Uint8Array(512).fill(7), 512);
  world.primary.crash('process');
  await world.up(world.primary);
  assert.equal(await reverse(world, world.replica, true), null);
  await world.scheduler.pass(60_000);
  const { rung } = world.record(world.replica).required ?? world.record(world.replica).resync ?? { rung: null };
  const started = world.replica.catalog.events({}).findLast(({ id }) => id === 'ResynchronizationStarted')?.data['rung'];
  assert.ok(rung === 'full-compare' || started === 'full-compare', world.story());
});
