import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SLAB_BYTES, SlabPool } from './slab-pool.ts';

const MIB = 2 ** 20;
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('slabs are powers of two and are reused', () => {
  const pool = new SlabPool(64 * MIB);
  const slab = pool.take(3 * MIB)!;
  assert.equal(slab.bytes.length, 4 * MIB);
  assert.equal(pool.usedBytes, 4 * MIB);
  pool.release(slab);
  assert.equal(pool.usedBytes, 0);
  assert.equal(pool.take(4 * MIB), slab);
  assert.equal(pool.take(1)!.bytes.length, SLAB_BYTES);
});

test('a slab goes back with its last user', () => {
  const pool = new SlabPool(MIB);
  const slab = pool.take(MIB)!;
  slab.users += 1;
  pool.release(slab);
  assert.ok(pool.take(1) === null);
  pool.release(slab);
  assert.notEqual(pool.take(1), null);
});

test('the limit holds, but for the first slab of a connection', () => {
  const pool = new SlabPool(MIB);
  assert.notEqual(pool.take(MIB), null);
  assert.ok(pool.take(1) === null);
  assert.equal(pool.takeAnyway(1).bytes.length, SLAB_BYTES);
});

test('who waits is served in order, and nobody passes a large request by', async () => {
  const pool = new SlabPool(2 * MIB);
  const [first, second] = [pool.take(MIB)!, pool.take(MIB)!];
  const served: string[] = [];
  pool.wait(2 * MIB, () => served.push(`large ${pool.take(2 * MIB) !== null}`));
  pool.wait(1, () => served.push(`small ${pool.take(1) !== null}`));
  pool.release(first);
  await turn();
  assert.deepEqual(served, []);
  assert.ok(pool.take(1) === null, 'there is room, but others wait for it');
  pool.release(second);
  await turn();
  assert.deepEqual(served, ['large true']);
});

test('who leaves the line lets the next one in', async () => {
  const pool = new SlabPool(2 * MIB);
  pool.take(MIB);
  let served = false;
  const large = () => assert.fail('has left');
  pool.wait(2 * MIB, large);
  pool.wait(1, () => (served = true));
  pool.cancel(large);
  await turn();
  assert.ok(served);
  assert.equal(pool.isShort, false);
});

test('memory kept for reuse gives way to other sizes', () => {
  const pool = new SlabPool(4 * MIB);
  for (const size of [4 * MIB, MIB, 2 * MIB, SLAB_BYTES, 4 * MIB]) {
    const slab = pool.take(size);
    assert.equal(slab?.bytes.length, size);
    pool.release(slab!);
  }
});
