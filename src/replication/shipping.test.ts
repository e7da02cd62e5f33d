import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InboxRig } from './inbox-rig.suite.ts';
import { CHUNK_BYTES } from './messages.ts';
import { inParallel, ReplicaGap, shipSet } from './shipping.ts';

const MANY = new Uint8Array(5 * CHUNK_BYTES + 100).map((_, index) => (index * 31) % 253);
const FEW = new Uint8Array(100).fill(7);
const options = { compression: false, signal: new AbortController().signal };
const ship = (rig: InboxRig, set: ReturnType<InboxRig['set']>) => shipSet(rig.ports, rig.link(), rig.vm, rig.baselineId, set, options);

test('a set arrives whole, in pieces, and is on record', async () => {
  const rig = new InboxRig();
  const shipped = await ship(rig, rig.set(1, { d0: MANY, d1: FEW }));
  assert.deepEqual(shipped, { bytes: MANY.length + 100, wireBytes: MANY.length + 100 });
  assert.equal(rig.lastReceived, 1);
  assert.deepEqual(rig.files.get(rig.path('d0', 1)), Buffer.from(MANY));
  assert.deepEqual(rig.pieces.map(({ length }) => length), [...Array.from({ length: 5 }, () => CHUNK_BYTES), 100, 100]);
  assert.equal(rig.files.openFiles, 0);
});

test('a cut in the middle of a file goes on there, over a restart of the replica too', async () => {
  for (let breaksAfter = 0; breaksAfter <= 6; breaksAfter++) {
    for (const restart of [false, true]) {
      const rig = new InboxRig();
      const set = rig.set(1, { d0: MANY, d1: FEW });
      rig.breaksAfter = breaksAfter;
      await assert.rejects(ship(rig, set), /the link is cut/);
      rig.breaksAfter = Infinity;
      if (restart) rig.restarted();
      rig.pieces = [];
      const { wireBytes } = await ship(rig, set);
      assert.equal(wireBytes, MANY.length + 100 - Math.min(MANY.length, breaksAfter * CHUNK_BYTES), `cut after ${breaksAfter} pieces`);
      assert.ok(rig.pieces.every(({ diskId, offset }) => diskId === 'd1' || offset >= Math.min(MANY.length, breaksAfter * CHUNK_BYTES)));
      assert.deepEqual(rig.files.get(rig.path('d0', 1)), Buffer.from(MANY));
    }
  }
});

test('a set that the replica has already sends nothing', async () => {
  const rig = new InboxRig();
  const set = rig.set(1, { d0: MANY });
  await ship(rig, set);
  rig.pieces = [];
  assert.deepEqual(await ship(rig, set), { bytes: MANY.length, wireBytes: 0 });
  assert.deepEqual(rig.pieces, []);
});

test('a gap names the epoch that must come first', async () => {
  const rig = new InboxRig();
  await assert.rejects(ship(rig, rig.set(3, { d0: FEW })), (error) => error instanceof ReplicaGap && error.expected === 1);
});

test('a log that is shorter than it was closed with is an error that says so, not a short transfer', async () => {
  const rig = new InboxRig();
  const set = rig.set(1, { d0: MANY });
  rig.files.put('/logs/d0.1.hrl', MANY.subarray(0, 1000));
  await assert.rejects(ship(rig, set), { code: 'LOG_CUT', message: new RegExp(`shorter than the ${MANY.length} bytes`) });
  assert.equal(rig.lastReceived, 0);
});

test('an epoch that is not closed is never shipped', async () => {
  const rig = new InboxRig();
  const set = rig.set(1, { d0: FEW });
  set.disks[0]!.digest = null;
  await assert.rejects(ship(rig, set), /epoch 1 is not closed/);
});

test('work in parallel keeps its limit, and a failure waits for what is under way', async () => {
  let running = 0;
  let most = 0;
  let ended = 0;
  async function* items() {
    for (let item = 0; item < 20; item++) yield item;
  }
  const work = async (item: number) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    ended++;
    if (item === 9) throw new Error('the ninth');
  };
  await assert.rejects(inParallel(4, items(), work), /the ninth/);
  assert.equal(most, 4);
  assert.equal(running, 0);
  assert.ok(ended >= 10 && ended < 20);
});
