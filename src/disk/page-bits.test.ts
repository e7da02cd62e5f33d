import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BLOCK_BYTES, PageBits } from './page-bits.ts';

const BLOCK_PAGES = 8 * BLOCK_BYTES;
/** Around the ends of bytes and blocks, where mistakes would be. */
const page = fc.oneof(fc.nat(70), fc.integer({ min: BLOCK_PAGES - 20, max: BLOCK_PAGES + 20 }), fc.integer({ min: 4 * BLOCK_PAGES - 9, max: 4 * BLOCK_PAGES + 9 }));

test('it answers as a plain set does, and its stretches cover the disk', () => {
  fc.assert(fc.property(fc.array(fc.tuple(page, fc.integer({ min: 1, max: 40 })), { maxLength: 12 }), (runs) => {
    const [bits, plain, end] = [new PageBits(), new Set<number>(), 5 * BLOCK_PAGES - 3];
    for (const [first, count] of runs) {
      for (let at = first; at < first + count; at++) {
        assert.equal(bits.add(at), !plain.has(at));
        plain.add(at);
      }
    }
    assert.equal(bits.held, plain.size);
    const seen = new Set<number>();
    for (let at = 0; at < end; ) {
      const to = bits.until(at, end);
      assert.ok(to > at && to <= end && (to === end || bits.has(to) !== bits.has(at)));
      if (bits.has(at)) for (let held = at; held < to; held++) seen.add(held);
      at = to;
    }
    assert.deepEqual([...seen], [...plain].sort((a, b) => a - b));
    const again = new PageBits();
    for (const [block, bytes] of bits.blocks()) assert.equal(again.join(block, bytes), true);
    assert.equal(again.held, plain.size);
    for (const [block, bytes] of bits.blocks()) assert.equal(again.join(block, bytes), false, 'nothing of it is new');
    assert.deepEqual([...again.blocks()], [...bits.blocks()]);
  }));
});
