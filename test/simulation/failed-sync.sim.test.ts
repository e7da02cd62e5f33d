/** A `sync-now` that fails is a failed cycle: on record at once with its remedy, and tried again without waiting for the next cycle. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World, VM_ID } from './world.ts';

const NEVER = new AbortController().signal;

async function replicating(seed: number): Promise<World> {
  const world = new World(seed);
  await world.begin(300);
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  // A whole cycle lies between now and the next one that begins by itself.
  await world.during(sync(world));
  world.stopGuest();
  await world.scheduler.pass(5000);
  return world;
}

const sync = (world: World, signal = NEVER) => world.primary.primaries.get(VM_ID)!.syncNow(signal);
const errorsCounted = ({ relationship }: World) => relationship.statistics.errors;
const retriesTold = ({ primary }: World) => primary.catalog.events({ limit: 1000 }).filter(({ message }) => /the link is down/.test(message)).length;

for (const what of ['what the guest wrote', 'nothing'] as const) {
  test(`with ${what} to send: cause and remedy are on record when it has failed, and it heals before the next cycle`, async () => {
    const world = await replicating(1);
    if (what !== 'nothing') world.guestWrite();
    const [counted, began] = [errorsCounted(world), world.scheduler.now];
    world.network.cut = true;
    await assert.rejects(world.during(sync(world)), { code: 'PEER_UNREACHABLE' });
    const { error } = world.relationship;
    assert.deepEqual([error?.code, error?.remedy, error?.failures], ['PEER_UNREACHABLE', 'Restore the link.', 1], world.story());
    assert.deepEqual([errorsCounted(world) - counted, retriesTold(world)], [1, 1]);
    world.network.cut = false;
    assert.ok(await world.scheduler.until(() => world.relationship.error === null, 200_000), 'the loop slept on until its next cycle');
    assert.ok(world.scheduler.now - began < 200_000);
    assert.equal(errorsCounted(world) - counted, 1);
  });
}

test('the loop, which waits for the same attempt, does not count it once more', async () => {
  const world = await replicating(2);
  world.guestWrite();
  const counted = errorsCounted(world);
  world.network.cut = true;
  const both = [sync(world), sync(world)];
  world.primary.primaries.get(VM_ID)!.wake();
  const outcomes = await world.during(Promise.allSettled(both));
  assert.deepEqual(outcomes.map(({ status }) => status), ['rejected', 'rejected']);
  assert.equal(errorsCounted(world) - counted, 2, 'each of the two tried once');
});

test('somebody who tries again and again does not put the next attempt off', async () => {
  const world = await replicating(5);
  world.guestWrite();
  world.network.cut = true;
  await assert.rejects(world.during(sync(world)));
  const first = world.relationship.error!;
  for (let times = 0; times < 8; times++) {
    await world.scheduler.pass(2000);
    await assert.rejects(world.during(sync(world)));
  }
  assert.deepEqual([world.relationship.error!.failures, world.relationship.error!.retryAt], [1, first.retryAt], world.story());
  world.network.cut = false;
  assert.ok(await world.scheduler.until(() => world.relationship.error === null, 60_000), world.story());
});

test('one that its caller gave up, or that suspending has ended, is no failure', async () => {
  const world = await replicating(3);
  world.guestWrite();
  world.network.delayMs = 1000;
  const [stop, counted] = [new AbortController(), errorsCounted(world)];
  const given = sync(world, stop.signal);
  given.catch(() => undefined);
  await world.scheduler.pass(10);
  stop.abort(new Error('the caller went away'));
  await assert.rejects(world.during(given));
  assert.deepEqual([world.relationship.error, errorsCounted(world) - counted], [null, 0]);
  const ended = sync(world);
  ended.catch(() => undefined);
  await world.scheduler.pass(10);
  world.primary.relationships.perform(VM_ID, 'suspend');
  world.primary.primaries.get(VM_ID)!.interrupt('replication was paused');
  await assert.rejects(world.during(ended));
  assert.deepEqual([world.relationship.state, world.relationship.error, errorsCounted(world) - counted], ['Suspended', null, 0]);
});

test('a refusal that needs a person ends in state Error at once; a catalog that cannot be written hides no cause', async () => {
  const world = await replicating(4);
  world.guestWrite();
  world.replica.catalog.authorizations.remove(world.primary.fingerprint);
  world.replica.catalog.relationships.remove(VM_ID);
  world.primary.catalogFault = new Error('disk I/O error');
  await assert.rejects(world.during(sync(world)));
  world.primary.catalogFault = null;
  await assert.rejects(world.during(sync(world)), ({ code }: { code: string }) => code === world.relationship.error?.code);
  assert.equal(world.relationship.state, 'Error', world.story());
});

test('news of the other host interrupt what is under way, and the sync goes on; a resynchronization that is required ends it', async () => {
  const world = await replicating(6);
  const primary = () => world.primary.primaries.get(VM_ID)!;
  world.guestWrite();
  world.network.delayMs = 1000;
  const applied = world.relationship.lastAppliedEpoch;
  const under = sync(world);
  for (let times = 0; times < 3; times++) {
    await world.scheduler.pass(10);
    primary().interrupt('the other host has news');
    primary().interrupt('and more of them');
  }
  const { epoch } = await world.during(under);
  assert.ok(epoch > applied && world.relationship.lastAppliedEpoch >= epoch, world.story());
  assert.equal(world.relationship.error, null);

  world.guestWrite();
  const lost = assert.rejects(sync(world), { code: 'INVALID_STATE', message: /WaitingForStartResynchronize/ });
  await world.scheduler.pass(10);
  primary().require({ trigger: 1, reason: 'somebody edited it' });
  await world.during(lost);
});

test('the server stops while somebody waits for a sync: it ends, and says so', async () => {
  const world = await replicating(7);
  world.guestWrite();
  world.network.delayMs = 1000;
  const ended = assert.rejects(sync(world), { code: 'INTERRUPTED', message: 'the server stops' });
  await world.scheduler.pass(10);
  await world.during(Promise.all([world.primary.primaries.get(VM_ID)!.close(), ended]));
});
