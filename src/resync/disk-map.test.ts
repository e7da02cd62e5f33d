import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskMap, MAP_CELLS_MAX } from './disk-map.ts';

const LEAF = 256 * 1024;
const whole = (cells: number) => [{ offset: 0, length: cells * LEAF }];
const at = (cell: number, cells = 1) => ({ offset: cell * LEAF, length: cells * LEAF });

test('a small disk has a cell for each leaf, a large one not more than the maximum', () => {
  assert.equal(String(new DiskMap(4 * LEAF, whole(4), null)), '....');
  assert.equal(String(new DiskMap(LEAF / 2, [{ offset: 0, length: LEAF / 2 }], null)), '.');
  assert.equal(String(new DiskMap(2 ** 50, [{ offset: 0, length: 2 ** 50 }], null)).length, MAP_CELLS_MAX);
});

test('cells go from not read over differing to mended; the rest is equal or a hole', () => {
  const map = new DiskMap(4 * LEAF, whole(4), null);
  map.decided('equal', at(0));
  map.decided('hole', at(1));
  map.decided('differing', at(2));
  assert.equal(String(map), 'ehd.');
  map.decided('mended', at(2));
  assert.equal(String(map), 'ehm.');
});

test('what is not compared is known equal', () => {
  const map = new DiskMap(4 * LEAF, [at(1), at(3)], null);
  assert.equal(String(map), '-.-.');
  map.decided('equal', at(1));
  assert.equal(String(map), '-e-.');
});

test('a cell of several parts shows what a person would look for first', () => {
  const cells = MAP_CELLS_MAX;
  const map = new DiskMap(2 * cells * LEAF, whole(2 * cells), null);
  map.decided('hole', at(0));
  assert.equal(String(map)[0], '.');
  map.decided('equal', at(1));
  assert.equal(String(map)[0], 'e');
  map.decided('differing', at(2));
  assert.equal(String(map)[1], 'd');
  map.decided('mended', at(2));
  assert.equal(String(map)[1], '.');
  map.decided('hole', at(3));
  assert.equal(String(map)[1], 'm');
});

test('a later stretch goes on where the cursor was', () => {
  const map = new DiskMap(4 * LEAF, whole(4), { text: 'hd..', cursor: 2 * LEAF });
  assert.equal(String(map), 'hm..');
  map.decided('equal', at(2, 2));
  assert.equal(String(map), 'hmee');
});
