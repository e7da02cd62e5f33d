/**
 * R15: an open overlay pins the base: apply waits at a log boundary; receiving goes on; the inbox has a bound and shows its
 * growth.
 * Seen to fail: in replica-vm.ts `#next`, `#pins` not looked at; `pin` not awaiting `#applying`; in inbox.ts `#checkSpace`
 * left out;
 * `bytes` counting nothing.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { ReplicaRig } from './replica-rig.ts';

test('R15: while pinned nothing is applied, sets go on arriving, and their size shows on both sides', async () => {
  const rig = await ReplicaRig.replicating();
  await rig.until(() => rig.applied >= 2);
  const unpin = await rig.world.during(rig.replica.pin('a test failover'));
  const before = rig.applied;
  const disks = rig.world.replicaDisks();
  let bytes = 0;
  for (let round = 1; round <= 3; round++) {
    await rig.until(() => rig.received >= before + round);
    assert.ok(rig.replica.answer().inboxBytes > bytes);
    bytes = rig.replica.answer().inboxBytes;
  }
  assert.equal(rig.applied, before);
  rig.world.replicaDisks().forEach((disk, index) => assertSameBytes(disk, disks[index]));
  rig.world.checkReplica();
  unpin();
  await rig.endsEqual();
});

test('R15: the pin holds at a log boundary: it waits for the set that is being applied', async () => {
  const rig = await ReplicaRig.replicating(2);
  const { world } = rig;
  for (let round = 0; round < 6; round++) {
    await rig.until(() => world.replicaRecord.applying !== null);
    const unpin = await world.during(rig.replica.pin('a test failover'));
    assert.equal(world.replicaRecord.applying, null, 'pinned between two instants');
    world.checkReplica();
    const disks = world.replicaDisks();
    await world.scheduler.pass(40_000);
    world.replicaDisks().forEach((disk, index) => assertSameBytes(disk, disks[index]));
    unpin();
  }
  await rig.endsEqual();
});

test('R15: two overlays pin independently', async () => {
  const rig = await ReplicaRig.replicating();
  const first = await rig.world.during(rig.replica.pin('one'));
  const second = await rig.world.during(rig.replica.pin('two'));
  const before = rig.applied;
  first();
  await rig.world.scheduler.pass(80_000);
  assert.equal(rig.applied, before);
  second();
  await rig.endsEqual();
});

test('R15: a full inbox volume refuses more, says how much is free, and receiving goes on when there is space', async () => {
  const rig = await ReplicaRig.replicating();
  await rig.until(() => rig.applied >= 2);
  rig.world.replica.volume.freeBytes = 1 << 20;
  await rig.world.scheduler.pass(40_000);
  const received = rig.received;
  await rig.world.scheduler.pass(120_000);
  assert.equal(rig.received, received);
  assert.equal(rig.world.relationship.error?.code, 'REPLICA_STORAGE_FULL');
  assert.match(rig.world.relationship.error.message, /has \d+ bytes free, \d+ are needed/);
  rig.world.replica.volume.freeBytes = Number.MAX_SAFE_INTEGER;
  await rig.endsEqual();
});

test('R15: a volume that fills up in the middle of a log is told in words, and receiving goes on when there is space', async () => {
  const rig = await ReplicaRig.replicating();
  await rig.until(() => rig.applied >= 2);
  rig.world.replica.volume.fault = { path: /\/inbox\//, operation: 'write', errno: 'ENOSPC' };
  await rig.until(() => rig.world.relationship.error !== null);
  assert.equal(rig.world.relationship.error?.code, 'REPLICA_STORAGE_FULL');
  assert.match(rig.world.relationship.error.message, /the replica host replica has no space left: ENOSPC: .*inbox/);
  await rig.world.scheduler.pass(120_000);
  assert.equal(rig.world.relationship.state, 'Replicating');
  rig.world.replica.volume.fault = null;
  await rig.endsEqual();
});
