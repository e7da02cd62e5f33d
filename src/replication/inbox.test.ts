import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, InboxRig } from './inbox-rig.suite.ts';
import type { OfferedLog } from './messages.ts';

const ID = '99999999-2222-4333-8444-555555555555';
const log = (diskId: string, bytes: Uint8Array): OfferedLog => (
  { diskId, uniqueId: ID, previousUniqueId: null, size: bytes.length, digest: digestOf(bytes), entries: 1, diskSize: 1 << 20 });
const bytes = new Uint8Array(1000).map((_, index) => index % 251);
const offer = (rig: InboxRig, epoch: number, content = bytes) => rig.inbox.offer(rig.relationship, epoch, 5, [log('d0', content)]);

test('only the next epoch is wanted: an earlier one is known, a later one shows the gap', async () => {
  const rig = new InboxRig();
  rig.lastReceived = 4;
  assert.deepEqual(await offer(rig, 3), { status: 'known' });
  assert.deepEqual(await offer(rig, 4), { status: 'known' });
  assert.deepEqual(await offer(rig, 5), { status: 'wanted', received: { d0: 0 } });
  assert.deepEqual(await offer(rig, 6), { status: 'gap', expected: 5 });
});

test('a cut in the middle, with or without a restart, goes on where the file ends', async () => {
  for (const restart of [false, true]) {
    const rig = new InboxRig();
    await offer(rig, 1);
    await rig.inbox.write(1, 'd0', 0, bytes.subarray(0, 600));
    if (restart) rig.restarted();
    assert.deepEqual(await offer(rig, 1), { status: 'wanted', received: { d0: 600 } });
    await rig.inbox.write(1, 'd0', 600, bytes.subarray(600));
    await rig.commit(1);
    assert.deepEqual(rig.files.get(rig.path('d0', 1)), Buffer.from(bytes));
  }
});

test('pieces that come out of order count up to the first gap only', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 600, bytes.subarray(600));
  assert.deepEqual(await offer(rig, 1), { status: 'wanted', received: { d0: 0 } });
  await rig.inbox.write(1, 'd0', 0, bytes.subarray(0, 600));
  assert.deepEqual(await offer(rig, 1), { status: 'wanted', received: { d0: 600 } });
});

test('another set offered under the same epoch starts from nothing', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 0, bytes.subarray(0, 600));
  const other = bytes.map((byte) => byte ^ 1);
  for (const restart of [false, true]) {
    if (restart) rig.restarted();
    assert.deepEqual(await offer(rig, 1, restart ? bytes : other), { status: 'wanted', received: { d0: 0 } });
    await rig.inbox.write(1, 'd0', 0, bytes.subarray(0, 10));
  }
});

test('a file that is longer than announced counts as nothing', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  rig.restarted();
  rig.files.put(rig.path('d0', 1), new Uint8Array(1001));
  assert.deepEqual(await offer(rig, 1), { status: 'wanted', received: { d0: 0 } });
});

test('a set with another digest is dropped whole and is not on record', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 0, bytes.map((byte) => byte ^ 1));
  await assert.rejects(rig.commit(1), { code: 'LOG_DIGEST_MISMATCH' });
  assert.equal(rig.lastReceived, 0);
  assert.equal(rig.rows.size, 0);
  assert.ok(!rig.files.inodes.has(rig.path('d0', 1)));
  assert.equal(rig.files.openFiles, 0);
});

test('a file that is shorter than announced does not pass', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 0, bytes.subarray(0, 999));
  await assert.rejects(rig.commit(1), { code: 'LOG_DIGEST_MISMATCH' });
});

test('nothing is written outside of the announced size, for an unknown disk, or for an epoch that was not offered', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await assert.rejects(rig.inbox.write(1, 'd0', 990, new Uint8Array(11)), { code: 'LOG_PIECE_OUTSIDE' });
  await assert.rejects(rig.inbox.write(1, 'd9', 0, bytes), { code: 'LOG_NOT_OFFERED' });
  await assert.rejects(rig.inbox.write(2, 'd0', 0, bytes), { code: 'LOG_NOT_OFFERED' });
  await assert.rejects(rig.commit(2), { code: 'LOG_NOT_OFFERED' });
  assert.equal(rig.files.get(rig.path('d0', 1)).length, 0);
});

test('a failed sync is not acknowledged', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 0, bytes);
  rig.files.errors.set(`datasync ${rig.path('d0', 1)}`, 'EIO');
  await assert.rejects(rig.commit(1), { code: 'EIO' });
  assert.equal(rig.lastReceived, 0);
  assert.equal(rig.rows.get(1)?.status, 'receiving');
});

test('a volume without room refuses the set with both values, before anything is made', async () => {
  const rig = new InboxRig();
  rig.files.freeBytes = async () => 1000;
  await assert.rejects(offer(rig, 1), { code: 'REPLICA_STORAGE_FULL', message: /has 1000 bytes free, 67109864 are needed/ });
  assert.equal(rig.rows.size, 0);
});

test('clear drops what waits and what is arriving', async () => {
  const rig = new InboxRig();
  await offer(rig, 1);
  await rig.inbox.write(1, 'd0', 0, bytes);
  await rig.commit(1);
  assert.equal(rig.inbox.bytes(), 1000);
  await offer(rig, 2);
  await rig.inbox.clear();
  assert.equal(rig.rows.size, 0);
  assert.equal(rig.inbox.bytes(), 0);
  assert.deepEqual([...rig.files.inodes.keys()], []);
  assert.equal(rig.files.openFiles, 0);
});
