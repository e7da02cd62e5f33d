/**
 * Verify in windows, while a guest writes: the replica applies between two windows and is held for none longer than its window; nothing
 * that the guest has written is called different; what really differs is found, also in the last window, and by a verify that was cut.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verify, type VerifyProgress, type VerifyResult } from '../../src/resync/verify.ts';
import { primaryOf } from './resync-rig.ts';
import { World } from './world.ts';

const SEEDS = process.env.UNDERSTUDY_TEST_LONG === '1' ? 40 : 4;
const WINDOW_BYTES = 256 << 10;

async function replicating(seed: number, prepare = (_made: World): void => undefined): Promise<World> {
  const world = new World(seed);
  prepare(world);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  await world.scheduler.pass(60_000);
  // So slow that the guest writes during each window.
  const { settings } = world.relationship;
  world.primary.relationships.update(world.relationship.vmId, { settings: { ...settings, verify: { ...settings.verify, diskBytesPerSec: 65_536 } } });
  return world;
}

interface Seen {
  /** Replica's last applied epoch at each window. */
  epochs: number[];
  progress: VerifyProgress[];
}

function verifying(world: World, stop = new AbortController()): { done: Promise<VerifyResult>; seen: Seen; stop: AbortController } {
  const seen: Seen = { epochs: [], progress: [] };
  const done = verify(primaryOf(world), { signal: stop.signal, windowBytes: WINDOW_BYTES, progress: (progress) => {
    const last = seen.progress.at(-1);
    if (progress.heldSince !== null && last?.heldSince !== progress.heldSince) seen.epochs.push(world.replicaRecord.lastAppliedEpoch);
    seen.progress.push(progress);
  } });
  return { done, seen, stop };
}

const totalOf = (world: World) => world.primary.relationships.vm(world.relationship.vmId).disks.reduce((sum, { virtualSize }) => sum + virtualSize, 0);

/** A sector rots under the replica's feet; its seals do not show it. */
async function rot(world: World, disk: number, offset: number): Promise<void> {
  const { path } = world.replica.relationships.vm(world.relationship.vmId).disks[disk]!;
  const before = world.replica.volume.contents(path)[offset]!;
  const file = await world.during(world.replica.volume.mount({ alive: true }).open(path, 'write'));
  await world.during(file.write([Buffer.alloc(512, before ^ 0xff)], offset));
  await world.during(file.close());
}

for (let seed = 1; seed <= SEEDS; seed++) {
  test(`seed ${seed}: no false alarm while the guest writes, and logs are applied between two windows`, async () => {
    const world = await replicating(seed);
    const { done, seen } = verifying(world);
    const result = await world.during(done);
    assert.deepEqual([result.equal, result.findings], [true, []]);
    assert.equal(result.comparedBytes + result.unprovenBytes, totalOf(world));
    assert.ok(result.windows >= 8, `${result.windows} windows`);
    assert.ok(new Set(seen.epochs).size >= 3, `held at epochs ${seen.epochs.join()}`);
    assert.deepEqual(seen.epochs, seen.epochs.toSorted((a, b) => a - b));
    assert.ok(result.from <= result.at);
    assert.equal(world.relationship.verifying, null);
    // Nothing holds apply any more.
    world.stopGuest();
    await world.catchUp();
  });
}

test('a difference in the last window is found, and where it is', async () => {
  const world = await replicating(3);
  // The guest rests on what is looked at, so that it can be decided.
  world.stopGuest();
  await world.scheduler.pass(120_000);
  const disks = world.primary.relationships.vm(world.relationship.vmId).disks;
  const last = disks.at(-1)!;
  // Data, so that the last window is not one of holes alone.
  const at = last.virtualSize - 4096;
  await world.during(Promise.resolve(world.tracked!.disk(last.diskId).write(Buffer.alloc(4096, 7), at)));
  await world.during(primaryOf(world).syncNow(new AbortController().signal));
  await rot(world, disks.length - 1, at);
  const result = await world.during(verifying(world).done);
  assert.equal(result.equal, false);
  assert.deepEqual(result.findings, [{ path: last.path, offset: at, length: 4096 }]);
});

test('one that was cut goes on after its last window, also after the server was killed, and keeps what it had found', async () => {
  const world = await replicating(5);
  world.stopGuest();
  await world.scheduler.pass(120_000);
  await rot(world, 0, 0);
  const first = verifying(world);
  first.done.catch(() => undefined);
  assert.ok(await world.scheduler.until(() => (world.relationship.verifying?.windows ?? 0) >= 3, 600_000));
  world.primary.crash('process');
  await world.restart(world.primary);
  const before = world.relationship.verifying!;
  assert.ok(before.windows >= 3 && before.differingBytes > 0);
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating' && world.tracked !== null, 600_000));
  const second = verifying(world);
  const result = await world.during(second.done);
  assert.equal(result.equal, false, 'what the first one found is forgotten');
  assert.equal(result.windows, before.windows + second.seen.epochs.length);
  assert.ok(second.seen.progress[0]!.comparedBytes >= 3 * WINDOW_BYTES, 'it began anew');
  assert.equal(world.relationship.verifying, null);
});

test('after another baseline what was left to do means nothing', async () => {
  const world = await replicating(6);
  const { done, stop } = verifying(world);
  done.catch(() => undefined);
  assert.ok(await world.scheduler.until(() => (world.relationship.verifying?.windows ?? 0) >= 3, 600_000));
  stop.abort(new Error('a test'));
  await world.scheduler.pass(5000);
  world.primary.relationships.update(world.relationship.vmId, { verifying: { ...world.relationship.verifying!, baselineId: 'another' } });
  const again = verifying(world);
  const result = await world.during(again.done);
  assert.equal(again.seen.progress[0]!.comparedBytes, 0);
  assert.equal(result.equal, true);
});

test('a hold that lasts too long ends, apply goes on, and nothing that moved on meanwhile is called different', async () => {
  const world = await replicating(2, (made) => (made.replica.verifyHoldMs = 3000));
  // A window takes 4 s.
  const { done, seen } = verifying(world);
  await assert.rejects(world.during(done), { code: 'REPLICA_BUSY', message: /the hold of this verify has ended/ });
  assert.ok(seen.epochs.length >= 3 && new Set(seen.epochs).size >= 2, `held at epochs ${seen.epochs.join()}`);
  assert.deepEqual([world.relationship.verifying?.differingBytes ?? 0, world.relationship.state], [0, 'Replicating']);
  world.stopGuest();
  await world.catchUp();
});
