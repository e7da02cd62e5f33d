import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferPool } from './buffer-pool.ts';

test('a buffer that was given back is used again, at any length that suits it', () => {
  const pool = new BufferPool(1000, 2);
  const first = pool.take(700);
  assert.equal(first.length, 700);
  pool.give(first);
  const second = pool.take(1000);
  assert.equal(second.length, 1000);
  assert.equal(second.buffer, first.buffer);
  assert.notEqual(pool.take(1000).buffer, first.buffer, 'one buffer for two');
});

test('what does not suit the pool is new, and never kept', () => {
  const pool = new BufferPool(1000, 2);
  for (const length of [0, 10, 62, 1001, 5000]) {
    const taken = pool.take(length);
    assert.equal(taken.length, length);
    pool.give(taken);
    pool.give(taken.subarray(1));
  }
  assert.equal(pool.take(1000).buffer.byteLength, 1000);
});

test('it keeps no more than it was told', () => {
  const pool = new BufferPool(1000, 2);
  const taken = [pool.take(1000), pool.take(1000), pool.take(1000)];
  for (const buffer of taken) pool.give(buffer);
  const again = [pool.take(1000), pool.take(1000), pool.take(1000)];
  assert.equal(again.filter(({ buffer }) => taken.some((before) => before.buffer === buffer)).length, 2);
});
