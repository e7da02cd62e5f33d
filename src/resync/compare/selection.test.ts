import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Selection } from './selection.ts';
import { Settlement } from './settlement.ts';

const LEAF = 32 * 1024;
const ranges = fc.array(fc.record({ offset: fc.nat(3_000_000), length: fc.nat(300_000) }), { maxLength: 12 });

test('a selection holds exactly the leaves that a range touches, each once and in order', () => {
  fc.assert(
    fc.property(ranges, fc.integer({ min: 1, max: 4000 }), (wanted, sectors) => {
      const size = sectors * 512;
      const touched = new Set<number>();
      for (const { offset, length } of wanted) {
        for (let at = offset; at < Math.min(size, offset + length); at++) touched.add(Math.floor(at / LEAF));
      }
      const selection = Selection.ofRanges(wanted, size, LEAF);
      const leaves = Array.from({ length: selection.count }, (_, position) => selection.leafAt(position));
      assert.deepEqual(
        leaves,
        [...touched].sort((a, b) => a - b),
      );
      const bytes = leaves.reduce((sum, leaf) => sum + Math.min(LEAF, size - leaf * LEAF), 0);
      assert.equal(selection.totalBytes, bytes);
      for (let first = 0; first < leaves.length; first += 3) {
        const count = Math.min(5, leaves.length - first);
        const pieces = selection.runsOf(first, count);
        const covered = pieces.flatMap(({ leaf, count: length }) => Array.from({ length }, (_, at) => leaf + at));
        assert.deepEqual(covered, leaves.slice(first, first + count));
      }
    }),
    { numRuns: 200 },
  );
});

test('the cursor stands before the first leaf that is not proven, also inside a segment, and at the end of the disk when all is done', () => {
  const shape = { leafBytes: LEAF, segmentNodes: 1 };
  const size = 200 * LEAF + 512;
  const selection = Selection.whole(size, LEAF);
  const settlement = new Settlement(selection, shape);
  settlement.located(1, [80, 90]);
  settlement.located(3, []);
  assert.deepEqual(
    [settlement.through, settlement.cursor, settlement.comparedBytes],
    [0, 0, 62 * LEAF + 8 * LEAF + 512],
  );
  settlement.located(0, []);
  assert.deepEqual([settlement.through, settlement.cursor], [1, 80 * LEAF]);
  settlement.proven(90);
  assert.equal(settlement.cursor, 80 * LEAF);
  settlement.proven(80);
  assert.throws(() => settlement.proven(80), /not pending/);
  assert.equal(settlement.cursor, 128 * LEAF);
  settlement.located(2, []);
  assert.deepEqual([settlement.done, settlement.cursor, settlement.comparedBytes], [true, size, size]);
});
