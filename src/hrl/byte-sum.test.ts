import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addBytes, addByWords, byteSumChecksum, complement } from './byte-sum.ts';
import { sumInLanes } from './byte-sum-simd.ts';

function naive(data: Uint8Array): number {
  let sum = 0;
  for (const byte of data) sum += byte;
  return ~sum >>> 0;
}

test('the checksum is the complement of the sum of the bytes, at every alignment and length', () => {
  const slab = new Uint8Array(5000).map((_, at) => (at * 2654435761) >>> 13);
  for (let start = 0; start < 8; start++) {
    for (const length of [0, 1, 3, 4, 31, 32, 63, 64, 65, 511, 512, 513, 1023, 1024, 1027, 2048, 4096, 4099]) {
      const data = slab.subarray(start, start + length);
      if (length >= 64) assert.equal(complement(addByWords(0, data)), naive(data), `without lanes, start ${start}, length ${length}`);
      assert.equal(byteSumChecksum(data), naive(data), `start ${start}, length ${length}`);
    }
  }
});

test('the accumulators do not overflow on bytes of 255', () => {
  for (const length of [1023, 1024, 1025, 1 << 16, (1 << 20) + 5]) {
    const data = new Uint8Array(length).fill(255);
    assert.equal(byteSumChecksum(data), ~(255 * length) >>> 0, `length ${length}`);
    assert.equal(complement(addByWords(0, data)), ~(255 * length) >>> 0, `without lanes, length ${length}`);
  }
});

test('lanes take all but the last bytes, over more than one window of their memory', () => {
  for (const length of [64, 127, 65535, 65536, 65537, 3 * 65536 + 191]) {
    const data = new Uint8Array(length).map((_, at) => (at * 2654435761) >>> 11);
    const { sum, length: taken } = sumInLanes!(data);
    assert.equal(taken, length - (length % 64));
    assert.equal(complement(sum), naive(data.subarray(0, taken)), `length ${length}`);
  }
});

test('the sum is taken modulo 2^32', () => {
  assert.equal(addBytes(2 ** 32 - 1, Uint8Array.of(3)), 2);
});

test('data may come in pieces', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat(), (data, cut) => {
    const at = data.length === 0 ? 0 : cut % data.length;
    assert.equal(complement(addBytes(addBytes(0, data.subarray(0, at)), data.subarray(at))), naive(data));
  }));
});
