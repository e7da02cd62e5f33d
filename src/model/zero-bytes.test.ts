import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isZero } from './zero-bytes.ts';

const PIECE = 256 << 10;

test('zeroes of every length are zero, and one other byte anywhere is seen', () => {
  for (const length of [0, 1, 511, 4096, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7]) {
    const bytes = new Uint8Array(length);
    assert.ok(isZero(bytes), `${length} zeroes`);
    for (const at of [0, 1, length >> 1, PIECE - 1, PIECE, length - 1].filter((place) => place >= 0 && place < length)) {
      bytes[at] = 1;
      assert.ok(!isZero(bytes), `${length} bytes with one at ${at}`);
      bytes[at] = 0;
    }
  }
});

test('only the view is looked at, not the memory around it', () => {
  const memory = new Uint8Array(100).fill(7).fill(0, 10, 20);
  assert.ok(isZero(memory.subarray(10, 20)));
  assert.ok(isZero(Buffer.from(memory.buffer, 10, 10)));
  assert.ok(!isZero(memory.subarray(9, 20)));
  assert.ok(!isZero(memory.subarray(10, 21)));
});
