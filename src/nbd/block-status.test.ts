import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Extent } from '../disk/virtual-disk.ts';
import { statusExtents } from './block-status.ts';

function disk(...runs: [kind: Extent['kind'], length: number][]) {
  return {
    async *extents(offset: number): AsyncIterable<Extent> {
      for (const [kind, length] of runs) {
        yield { kind, offset, length };
        offset += length;
      }
    },
  };
}

test('zeroes are holes, data has no flags', async () => {
  assert.deepEqual(await statusExtents(disk(['data', 5], ['zero', 7]), 0, 12, false),
    [{ length: 5, flags: 0 }, { length: 7, flags: 3 }]);
});

test('neighbours of one kind merge', async () => {
  assert.deepEqual(await statusExtents(disk(['data', 5], ['data', 2], ['zero', 7], ['zero', 1]), 0, 15, false),
    [{ length: 7, flags: 0 }, { length: 8, flags: 3 }]);
});

test('REQ_ONE gets the first descriptor, merged and within the request', async () => {
  assert.deepEqual(await statusExtents(disk(['zero', 5], ['zero', 5], ['data', 9]), 0, 19, true), [{ length: 10, flags: 3 }]);
  assert.deepEqual(await statusExtents(disk(['zero', 5], ['zero', 50]), 0, 19, true), [{ length: 19, flags: 3 }]);
});

test('a disk of crumbs is answered in part', async () => {
  const crumbs = Array.from({ length: 20_000 }, (_, i): [Extent['kind'], number] => [i % 2 === 0 ? 'data' : 'zero', 512]);
  const found = await statusExtents(disk(...crumbs), 0, 20_000 * 512, false);
  assert.equal(found.length, 8192);
  assert.ok(found.every((extent) => extent.length === 512));
});

test('a disk that names no extent is an error, not an empty answer', async () => {
  await assert.rejects(statusExtents(disk(), 0, 512, false), /no extent at 0\+512/);
});
