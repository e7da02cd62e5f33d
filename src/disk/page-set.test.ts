import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PageSet } from './page-set.ts';

test('property: a set of pages is a set of numbers; what is added says what is new, in order', () => {
  const run = fc.record({ page: fc.integer({ min: 0, max: 100_000 }), pages: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.constant(70_000)) });
  fc.assert(fc.property(fc.array(run, { maxLength: 12 }), (runs) => {
    const set = new PageSet();
    const model = new Set<number>();
    for (const { page, pages } of runs) {
      const fresh: number[] = [];
      for (let at = page; at < page + pages; at++) if (!model.has(at)) fresh.push(at);
      fresh.forEach((at) => model.add(at));
      const added = set.add(page, pages).flatMap((found) => Array.from({ length: found.pages }, (_, at) => found.page + at));
      assert.deepEqual(added, fresh);
    }
    assert.equal(set.size, model.size);
    const all = [...set.runs()].flatMap((found) => Array.from({ length: found.pages }, (_, at) => found.page + at));
    assert.deepEqual(all, [...model].sort((a, b) => a - b));
    for (const page of [0, 1, 32_767, 32_768, 99_999]) assert.equal(set.has(page), model.has(page));
  }), { numRuns: 12 });
});

test('a disk that is touched as a whole costs one mark for each 128 MiB', () => {
  const set = new PageSet();
  assert.deepEqual(set.add(0, 1 << 28), [{ page: 0, pages: 1 << 28 }]);
  assert.equal(set.size, 1 << 28);
  assert.deepEqual(set.add(5, 1000), []);
  assert.deepEqual([...set.runs()], [{ page: 0, pages: 1 << 28 }]);
});
