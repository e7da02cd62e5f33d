import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApplyWindow, WINDOW, type Stroke } from './apply-window.ts';

const SIZE = 4096;

const stroke = fc.record({ offset: fc.nat(SIZE - 1), length: fc.integer({ min: 1, max: 300 }), fill: fc.integer({ min: 0, max: 255 }) })
  .map(({ offset, length, fill }): Stroke => {
    const inside = Math.min(length, SIZE - offset);
    return { offset, length: inside, data: fill < 40 ? null : new Uint8Array(inside).fill(fill) };
  });

function paint(disk: Uint8Array, { offset, length, data }: Stroke): void {
  if (data === null) disk.fill(0, offset, offset + length);
  else disk.set(data, offset);
}

test('the strokes of the windows, in any order within one, leave what the log leaves', () => {
  fc.assert(fc.property(fc.array(stroke, { maxLength: 60 }), fc.boolean(), (log, backwards) => {
    const [expected, found] = [new Uint8Array(SIZE).fill(7), new Uint8Array(SIZE).fill(7)];
    for (const entry of log) paint(expected, entry);
    const window = new ApplyWindow();
    const drain = () => {
      const strokes = window.take();
      for (const [index, { offset, length, data }] of strokes.entries()) {
        if (index > 0) assert.ok(strokes[index - 1]!.offset + strokes[index - 1]!.length <= offset, 'two strokes overlap, or are out of order');
        assert.ok(length > 0 && (data === null || data.length === length));
      }
      for (const one of backwards ? strokes.toReversed() : strokes) paint(found, one);
      assert.ok(window.isEmpty);
    };
    for (const entry of log) {
      if (!window.fits(entry, entry.data === null)) drain();
      window.add(entry);
    }
    drain();
    assert.deepEqual(found, expected);
  }));
});

test('a page written again and again is written once, and neighbours become one write', () => {
  const window = new ApplyWindow();
  const page = (number: number, fill: number): Stroke => ({ offset: number * 4096, length: 4096, data: new Uint8Array(4096).fill(fill) });
  for (const [number, fill] of [[9, 1], [3, 1], [9, 2], [4, 1], [9, 3], [5, 1]] as const) window.add(page(number, fill));
  const strokes = window.take();
  assert.deepEqual(strokes.map(({ offset, length, data }) => [offset / 4096, length / 4096, data![0]]), [[3, 3, 1], [9, 1, 3]]);
});

test('a window is bounded in bytes and in entries; zeroes count only as entries', () => {
  const window = new ApplyWindow();
  const full = { offset: 0, length: WINDOW.bytes };
  assert.ok(window.fits({ offset: 0, length: 2 * WINDOW.bytes }, false), 'an empty window takes anything');
  window.add({ ...full, data: new Uint8Array(WINDOW.bytes) });
  assert.ok(!window.fits({ offset: 2 ** 40, length: 1 }, false));
  assert.ok(window.fits({ offset: 2 ** 40, length: 2 ** 30 }, true));
  assert.ok(!window.fits({ offset: WINDOW.bytes - 1, length: 2 }, true), 'zeroes over data that is in the window');
  window.take();
  for (let entry = 0; entry < WINDOW.entries; entry++) window.add({ offset: entry * 8, length: 4, data: null });
  assert.ok(!window.fits({ offset: 2 ** 40, length: 1 }, true));
});
