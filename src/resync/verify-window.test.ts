import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Extent } from '../disk/virtual-disk.ts';
import { intersect, subtract, sumOf, takeWindow, united, WindowSize, type DiskRanges } from './verify-window.ts';

const LEAF = 64 << 10;
const MIB = 1 << 20;

/** Of a disk whose every `every`th MiB is data. */
const striped = (every: number) => async function* (_disk: string, { offset, length }: { offset: number; length: number }): AsyncGenerator<Extent> {
  for (let at = offset; at < offset + length;) {
    const end = Math.min(offset + length, (Math.floor(at / MIB) + 1) * MIB);
    yield { offset: at, length: end - at, kind: Math.floor(at / MIB) % every === 0 ? 'data' : 'zero' };
    at = end;
  }
};

test('windows hold so many bytes of data and any number of holes, and are all of the disks, each byte once', async () => {
  let open: DiskRanges = { a: [{ offset: 0, length: 64 * MIB }], b: [{ offset: 0, length: 8 * MIB }, { offset: 16 * MIB, length: 8 * MIB }] };
  const total = sumOf(open);
  const windows: DiskRanges[] = [];
  while (sumOf(open) > 0) {
    const { window, rest } = await takeWindow(open, 4 * MIB, striped(8));
    assert.ok(sumOf(window) > 0 && sumOf(window) + sumOf(rest) === sumOf(open));
    windows.push(window);
    open = rest;
  }
  assert.equal(windows.reduce((sum, window) => sum + sumOf(window), 0), total);
  // 10 MiB of data.
  assert.equal(windows.length, 3);
  assert.deepEqual(windows[0], { a: [{ offset: 0, length: 25 * MIB }] });
});

test('whatever is left, a window gets further, and ends where a leaf does or a range', async () => {
  const range = fc.record({ offset: fc.nat(64).map((leaf) => leaf * LEAF), length: fc.integer({ min: 1, max: 9 * MIB }) });
  await fc.assert(fc.asyncProperty(range, fc.integer({ min: 1, max: 6 * MIB }), fc.integer({ min: 1, max: 4 }), async ({ offset, length }, bytes, every) => {
    const { window, rest } = await takeWindow({ a: [{ offset, length }] }, bytes, striped(every));
    const [taken] = window['a']!;
    assert.ok(taken!.offset === offset && taken!.length > 0);
    const end = taken!.offset + taken!.length;
    assert.ok(end === offset + length || end % LEAF === 0);
    assert.equal(rest['a']?.[0]?.offset ?? end, end);
  }), { numRuns: 200 });
});

test('a window is what may be read in five minutes, less where that took longer, and never more', () => {
  const size = new WindowSize(16 * MIB);
  assert.equal(size.bytes, 16 * MIB * 300);
  size.learn(600_000);
  assert.equal(size.bytes, 16 * MIB * 150);
  size.learn(10_000);
  assert.equal(size.bytes, 16 * MIB * 300);
  let halves = 0;
  while (size.halve()) halves++;
  assert.deepEqual([halves > 5, size.bytes], [true, 16 * MIB]);
});

test('ranges are cut and joined', () => {
  const ranges = [{ offset: 0, length: 10 }, { offset: 20, length: 10 }];
  assert.deepEqual(subtract(ranges, [{ offset: 5, length: 20 }]), [{ offset: 0, length: 5 }, { offset: 25, length: 5 }]);
  assert.deepEqual(intersect(ranges, [{ offset: 5, length: 20 }]), [{ offset: 5, length: 5 }, { offset: 20, length: 5 }]);
  assert.deepEqual(united({ a: ranges }, { a: [{ offset: 40, length: 1 }], b: ranges }), { a: [...ranges, { offset: 40, length: 1 }], b: ranges });
});
