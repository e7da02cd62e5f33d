import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryFiles } from '../hrl/memory-files.ts';
import { ChangeMap } from './change-map.ts';

const PATH = '/data/d0.map';
const REGION = 1 << 20;
const options = { diskSize: 100 * REGION + 512, regionBytes: REGION, hotRegionsMax: 0 };

const regions = (map: ChangeMap): number[] =>
  map.suspects().flatMap(({ offset, length }) => Array.from({ length: Math.ceil(length / REGION) }, (_, index) => offset / REGION + index));

async function marked(files: MemoryFiles, ...list: number[]): Promise<ChangeMap> {
  const map = await ChangeMap.create(files, PATH, options);
  for (const region of list) await map.mark(region * REGION, 512, 1);
  return map;
}

const syncs = (files: MemoryFiles): number => files.asked.filter((line) => line.startsWith('datasync')).length;

test('a new map suspects nothing, one for everything suspects the whole disk to its last byte', async () => {
  const files = new MemoryFiles();
  assert.deepEqual((await ChangeMap.create(files, PATH, options)).suspects(), []);
  const all = await ChangeMap.create(files, PATH, { ...options, everything: true });
  assert.deepEqual(all.suspects(), [{ offset: 0, length: options.diskSize }]);
});

test('regions that touch are one range, and the last one ends with the disk', async () => {
  const map = await marked(new MemoryFiles(), 3, 4, 9, 100);
  assert.deepEqual(map.suspects(), [
    { offset: 3 * REGION, length: 2 * REGION }, { offset: 9 * REGION, length: REGION }, { offset: 100 * REGION, length: 512 },
  ]);
});

test('a write over a border marks both regions, and one of no bytes none', async () => {
  const map = await marked(new MemoryFiles());
  await map.mark(5 * REGION - 1, 2, 1);
  assert.deepEqual(regions(map), [4, 5]);
  assert.equal(map.mark(50 * REGION, 0, 1), null);
});

test('marks that come while a flush runs share the next one', async () => {
  const files = new MemoryFiles();
  const map = await marked(files);
  const before = syncs(files);
  await Promise.all(Array.from({ length: 50 }, async (_, region) => map.mark(region * REGION, 512, 1)));
  assert.equal(syncs(files) - before, 2);
  assert.equal(map.mark(7 * REGION, 512, 2), null);
});

test('a bit counts as durable only when its sync is done, for whoever asks meanwhile too', async () => {
  const files = new MemoryFiles();
  const open = files.open.bind(files);
  const gate = Promise.withResolvers<void>();
  let gated = false;
  files.open = async (path, mode) => {
    const file = await open(path, mode);
    const datasync = file.datasync.bind(file);
    return Object.assign(file, { datasync: async () => {
      if (gated) await gate.promise;
      await datasync();
    } });
  };
  const map = await ChangeMap.create(files, PATH, options);
  gated = true;
  const first = map.mark(3 * REGION, 512, 1);
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  const second = map.mark(3 * REGION, 512, 1);
  assert.notEqual(second, null, 'written, not synced, and taken for durable');
  gate.resolve();
  await Promise.all([first, second]);
  assert.equal(map.mark(3 * REGION, 512, 1), null);
});

test('the map opened again holds what was marked, as written in the current epoch', async () => {
  const files = new MemoryFiles();
  await (await marked(files, 1, 2, 50)).close();
  const map = await ChangeMap.open(files, PATH, { ...options, currentEpoch: 7 });
  assert.deepEqual(regions(map), [1, 2, 50]);
  map.release(6);
  assert.deepEqual(regions(map), [1, 2, 50]);
  map.release(7);
  assert.deepEqual(regions(map), []);
});

test('a bit that dropped is gone from the file with the next flush, and durable anew before it counts again', async () => {
  const files = new MemoryFiles();
  const map = await marked(files, 1);
  map.release(1);
  const waiting = map.mark(1 * REGION, 512, 2);
  assert.notEqual(waiting, null);
  await waiting;
  map.release(2);
  await map.mark(60 * REGION, 512, 3);
  const again = await ChangeMap.open(files, PATH, { ...options, currentEpoch: 9 });
  assert.deepEqual(regions(again), [60]);
});

test('with hot regions, the coldest one leaves first, and drops when its epoch was released long ago', async () => {
  const map = await ChangeMap.create(new MemoryFiles(), PATH, { ...options, hotRegionsMax: 2 });
  for (const region of [1, 2]) await map.mark(region * REGION, 512, 1);
  map.release(1);
  assert.deepEqual(regions(map), [1, 2]);
  await map.mark(2 * REGION, 512, 2);
  await map.mark(3 * REGION, 512, 2);
  assert.deepEqual(regions(map), [2, 3]);
});

test('the number of regions set follows every change', async () => {
  const map = await marked(new MemoryFiles(), 1, 2, 2, 3);
  assert.equal(map.regionsSet, 3);
  map.release(1);
  assert.equal(map.regionsSet, 0);
});

for (const [what, spoil, reason] of [
  ['is missing', (files: MemoryFiles) => files.inodes.delete(PATH), /the file is missing/],
  ['was cut', (files: MemoryFiles) => files.put(PATH, files.get(PATH).subarray(0, 5000)), /too short/],
  ['has another magic', (files: MemoryFiles) => change(files, 0), /no change-map header/],
  ['has a damaged header', (files: MemoryFiles) => change(files, 17), /checksum/],
] as const) {
  test(`a map that ${what} is refused with the reason`, async () => {
    const files = new MemoryFiles();
    await (await marked(files, 1)).close();
    spoil(files);
    await assert.rejects(ChangeMap.open(files, PATH, { ...options, currentEpoch: 1 }), { code: 'CHANGE_MAP_DAMAGED', message: reason });
    assert.equal(files.openFiles, 0);
  });
}

function change(files: MemoryFiles, position: number): void {
  const bytes = files.get(PATH);
  bytes[position]! ^= 1;
  files.put(PATH, bytes);
}

test('a map made for another disk or another region size is refused with both values', async () => {
  const files = new MemoryFiles();
  await (await marked(files, 1)).close();
  await assert.rejects(ChangeMap.open(files, PATH, { ...options, diskSize: options.diskSize + 512, currentEpoch: 1 }),
    { message: new RegExp(`made for a disk of ${options.diskSize} bytes, the disk has ${options.diskSize + 512}`) });
  await assert.rejects(ChangeMap.open(files, PATH, { ...options, regionBytes: 2 * REGION, currentEpoch: 1 }),
    { message: /regions of 1048576 bytes, expected 2097152/ });
});

test('the file is allocated when it is made: later marks need no space', async () => {
  const files = new MemoryFiles();
  const map = await marked(files);
  const size = files.get(PATH).length;
  await Promise.all(Array.from({ length: 101 }, async (_, region) =>
    map.mark(Math.min(region * REGION, options.diskSize - 512), 512, 1)));
  assert.equal(files.get(PATH).length, size);
});

test('a map that cannot be made leaves the old one as it was', async () => {
  const files = new MemoryFiles();
  await (await marked(files, 4)).close();
  files.errors.set(`datasync ${PATH}.new`, 'EIO');
  await assert.rejects(ChangeMap.create(files, PATH, options), { code: 'EIO' });
  assert.deepEqual(regions(await ChangeMap.open(files, PATH, { ...options, currentEpoch: 1 })), [4]);
  assert.ok(!files.inodes.has(`${PATH}.new`));
});

test('where a file can write durably in one call, a bit of one page waits for that alone; where it cannot now, for both; its failure distrusts', async () => {
  const files = new MemoryFiles();
  const open = files.open.bind(files);
  let answer: () => Promise<boolean> = () => Promise.resolve(true);
  const durable: number[] = [];
  files.open = async (path, mode) => {
    const file = await open(path, mode);
    return Object.assign(file, { writeDurably: async (from: Uint8Array, position: number) => {
      const done = await answer();
      if (done) {
        await file.write([from], position);
        durable.push(position);
      }
      return done;
    } });
  };
  const map = await ChangeMap.create(files, PATH, options);
  const before = syncs(files);
  const gate = Promise.withResolvers<boolean>();
  answer = () => gate.promise;
  let isMarked = false;
  const mark = Promise.resolve(map.mark(3 * REGION, 512, 1)).then(() => (isMarked = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isMarked, false);
  gate.resolve(true);
  await mark;
  assert.deepEqual([durable.length, syncs(files) - before], [1, 0]);
  answer = () => Promise.resolve(false);
  await map.mark(4 * REGION, 512, 1);
  assert.deepEqual([durable.length, syncs(files) - before], [1, 1]);
  assert.deepEqual(regions(await ChangeMap.open(files, PATH, { ...options, currentEpoch: 1 })), [3, 4]);
  answer = () => Promise.reject(Object.assign(new Error('no'), { code: 'EIO' }));
  await map.mark(5 * REGION, 512, 1);
  assert.match(String(map.distrusted), /no/);
});

test('bits of many pages go in one piece, or page by page where they lie far apart; either way all are there after a restart', async () => {
  const PAGE_REGIONS = 8 * 4096;
  for (const [apart, pieces] of [[10, [11]], [100, [1, 1]]] as const) {
    const files = new MemoryFiles();
    const open = files.open.bind(files);
    const written: number[] = [];
    files.open = async (path, mode) => {
      const file = await open(path, mode);
      const { write } = file;
      return Object.assign(file, { write: (buffers: Uint8Array[], position: number) => {
        written.push(buffers[0]!.length / 4096);
        return write.call(file, buffers, position);
      } });
    };
    const far = { ...options, diskSize: 201 * PAGE_REGIONS * 512, regionBytes: 512 };
    const map = await ChangeMap.create(files, PATH, far);
    await map.mark(0, 512, 1);
    written.length = 0;
    const list = [apart * PAGE_REGIONS + 5, 2 * apart * PAGE_REGIONS + 7];
    const first = map.mark(512, 512, 1);
    await Promise.all([first, ...list.map((region) => map.mark(region * 512, 512, 1))]);
    assert.deepEqual(written, [1, ...pieces]);
    assert.ok(list.every((region) => map.mark(region * 512, 512, 1) === null), 'a bit that was written does not count as durable');
    const again = await ChangeMap.open(files, PATH, { ...far, currentEpoch: 2 });
    assert.deepEqual(again.suspects().map(({ offset, length }) => [offset / 512, length / 512]), [[0, 2], ...list.map((region) => [region, 1])]);
  }
});

test('after a restart one flush makes all bits durable that were found', async () => {
  const files = new MemoryFiles();
  await (await marked(files, 3, 7, 50)).close();
  const map = await ChangeMap.open(files, PATH, { ...options, currentEpoch: 2 });
  const before = syncs(files);
  await map.mark(3 * REGION, 512, 2);
  assert.equal(map.mark(50 * REGION, 512, 2), null);
  assert.equal(syncs(files) - before, 1);
});

test('a flush that finds nothing to write, since the one before it had all, ends; the next one does, too', async () => {
  const files = new MemoryFiles();
  const map = await ChangeMap.create(files, PATH, options);
  const before = syncs(files);
  await Promise.all([map.mark(3 * REGION, 512, 1), map.mark(3 * REGION, 512, 1)]);
  assert.equal(map.mark(3 * REGION, 512, 1), null);
  await map.mark(4 * REGION, 512, 1);
  assert.equal(syncs(files) - before, 2);
});
