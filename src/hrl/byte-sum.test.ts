import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addBytes, byteSumChecksum, complement } from './byte-sum.ts';

function naive(data: Uint8Array): number {
  let sum = 0;
  for (const byte of data) sum += byte;
  return ~sum >>> 0;
}

test('the checksum is the complement of the sum of the bytes, at every alignment and length', () => {
  const slab = new Uint8Array(5000).map((_, at) => (at * 2654435761) >>> 13);
  for (let start = 0; start < 8; start++) {
    for (const length of [0, 1, 3, 4, 31, 32, 63, 64, 65, 1023, 1024, 1027, 2048, 4096, 4099]) {
      const data = slab.subarray(start, start + length);
      assert.equal(byteSumChecksum(data), naive(data), `start ${start}, length ${length}`);
    }
  }
});

test('the accumulators do not overflow on bytes of 255', () => {
  for (const length of [1023, 1024, 1025, 1 << 16, (1 << 20) + 5]) {
    const data = new Uint8Array(length).fill(255);
    assert.equal(byteSumChecksum(data), ~(255 * length) >>> 0, `length ${length}`);
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
