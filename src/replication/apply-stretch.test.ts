import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LogEntry } from '../hrl/log-reader.ts';
import { Stretch } from './apply-stretch.ts';

const PAGE = 4096;
const DISK = 40 * PAGE;

const aligned = fc.record({ offset: fc.nat(9).map((page) => page * PAGE), length: fc.integer({ min: 1, max: 3 }).map((pages) => pages * PAGE) });
const sectors = (arbitrary: fc.Arbitrary<number>) => arbitrary.map((count) => count * 512);
const anywhere = fc.record({ offset: sectors(fc.nat(DISK / 512 - 20)), length: sectors(fc.integer({ min: 1, max: 20 })) });
const long = fc.record({ offset: fc.nat(19).map((page) => page * PAGE), length: fc.constant(20 * PAGE) });

const logOf = (writes: { offset: number; length: number; isZero: boolean }[]): LogEntry[] => writes.map(({ offset, length, isZero }, index) =>
  ({ op: isZero ? 'zero' : 'write', offset, length, position: isZero ? 0 : PAGE + index * DISK, time: 0, dataChecksum: 0 }) as unknown as LogEntry);

function painted(entries: Iterable<{ offset: number; length: number; position: number }>): Float64Array {
  const disk = new Float64Array(DISK / 512);
  for (const { offset, length, position } of entries) disk.fill(position, offset / 512, (offset + Math.min(length, DISK - offset)) / 512);
  return disk;
}

test('what is needed leaves what all of it leaves, in log order', () => {
  const write = fc.tuple(fc.oneof({ weight: 6, arbitrary: aligned }, { weight: 3, arbitrary: anywhere }, long), fc.nat(9))
    .map(([range, dice]) => ({ ...range, isZero: dice === 0 }));
  let left = 0;
  fc.assert(fc.property(fc.array(write, { minLength: 20, maxLength: 120, size: 'max' }), (writes) => {
    const log = logOf(writes);
    const stretch = new Stretch(log.length);
    assert.ok(stretch.add(log));
    const needed = [...stretch.needed()];
    left += log.length - needed.length;
    assert.deepEqual(painted(needed), painted(log));
    const order = needed.filter(({ position }) => position > 0).map(({ position }) => position);
    assert.deepEqual(order, order.toSorted((a, b) => a - b));
  }));
  assert.ok(left > 100, `only ${left} were left out`);
});

test('of pages that are written again and again the newest write is left', () => {
  const log = logOf(Array.from({ length: 1000 }, (_, index) => ({ offset: (index % 10) * PAGE, length: PAGE, isZero: false })));
  const stretch = new Stretch(1000);
  stretch.add(log);
  assert.deepEqual([...stretch.needed()].map(({ position }) => position), log.slice(-10).map(({ position }) => position));
});

test('pages far apart on a disk of 16 TiB are told apart, and a full table forgets nothing that counts', () => {
  const writes = Array.from({ length: 20_000 }, (_, index) => ({ offset: (index % 5000) * 2 ** 32, length: 16 * PAGE, isZero: false }));
  const stretch = new Stretch(20_000);
  stretch.add(logOf(writes));
  const needed = [...stretch.needed()];
  assert.equal(new Set(needed.map(({ offset }) => offset)).size, 5000);
  const newest = new Map(needed.map(({ offset, position }) => [offset, position]));
  for (const [index, { offset }] of writes.entries()) if (index >= 15_000) assert.equal(newest.get(offset), PAGE + index * DISK);
  assert.ok(needed.length < 20_000 && needed.length > 5000, `${needed.length} needed`);
});

test('entries beyond the capacity are refused as a whole', () => {
  const stretch = new Stretch(3);
  const log = logOf(Array.from({ length: 2 }, (_, index) => ({ offset: index * PAGE, length: PAGE, isZero: false })));
  assert.deepEqual([stretch.add(log), stretch.add(log), stretch.length], [true, false, 2]);
});
