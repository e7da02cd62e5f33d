import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { openDiffDisk, removeDiffDisk, type DiffDisk } from '../disk/diff-disk.ts';
import { hostFiles } from '../disk/host-files.ts';
import { libc } from '../disk/libc.ts';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { openRawDisk } from '../disk/raw-disk.ts';
import { MemoryFiles } from '../hrl/memory-files.ts';
import { virtualDiskSuite } from '../../test/conformance/virtual-disk.suite.ts';

const PAGE = 4096;
/** Not a whole number of pages: the last one is short. */
const SIZE = 64 * PAGE + 512;
const PATH = '/replica/disk.raw.diff';
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

virtualDiskSuite('a diff disk over a disk with data', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-diff-'));
  const contents = await baseOf(4 << 20);
  const open = () => openDiffDisk(hostFiles, join(folder, 'a.diff'), new MemoryDisk(4 << 20, { contentsOf: contents }));
  const disk = await open();
  // What was not flushed may be gone with the process's last reference; a clean close flushes nothing by itself.
  const reopen = async () => open();
  return { disk: flushedAtClose(disk), reopen: async () => flushedAtClose(await reopen()),
    cleanup: () => rm(folder, { recursive: true, force: true }) };
}, { zeroMakesHoles: false, runs: 15 });

test('the base is never written, and merging makes it equal, as often as it is done', async () => {
  const contents = await baseOf(SIZE);
  const disk = await openDiffDisk(new MemoryFiles(), PATH, new MemoryDisk(SIZE, { contentsOf: contents }));
  await disk.write(Buffer.alloc(3 * PAGE, 7), PAGE + 100);
  await disk.zero(10 * PAGE, 2 * PAGE);
  await disk.write(Buffer.alloc(100, 8), SIZE - 100);
  assert.ok((await all(contents)).equals(await all(await baseOf(SIZE))));
  const seen = await all(disk);
  assert.equal(disk.heldBytes, 7 * PAGE);
  for (let times = 0; times < 2; times++) {
    const progress: number[] = [];
    await disk.merge(contents, { onProgress: (bytes) => progress.push(bytes) });
    assert.ok((await all(contents)).equals(seen));
    assert.ok(progress.at(-1)! > 0 && progress.every((bytes, at) => at === 0 || bytes > progress[at - 1]!));
  }
});

test('a merge that is stopped half-way and done again ends the same', async () => {
  const contents = await baseOf(SIZE);
  const disk = await openDiffDisk(new MemoryFiles(), PATH, new MemoryDisk(SIZE, { contentsOf: contents }));
  for (let page = 2; page <= 40; page += 2) await disk.write(Buffer.alloc(PAGE, page), page * PAGE);
  const seen = await all(disk);
  const stop = new AbortController();
  await assert.rejects(disk.merge(contents, { signal: stop.signal, onProgress: () => stop.abort(new Error('stopped')) }),
    /stopped/);
  assert.ok((await all(disk)).equals(seen), 'base and diff disk together are the same all along');
  await disk.merge(contents, {});
  assert.ok((await all(contents)).equals(seen));
});

test('after a crash what was flushed is there, and a page that has no bit counts as never written', async () => {
  const files = new MemoryFiles();
  const contents = await baseOf(SIZE);
  const disk = await openDiffDisk(files, PATH, new MemoryDisk(SIZE, { contentsOf: contents }));
  await disk.write(Buffer.alloc(PAGE, 7), 0);
  await disk.flush();
  const flushed = await all(disk);
  await disk.write(Buffer.alloc(PAGE, 8), 5 * PAGE);
  const again = await openDiffDisk(files.afterCrash(), PATH, new MemoryDisk(SIZE, { contentsOf: contents }));
  assert.ok((await all(again)).equals(flushed));
  assert.equal(again.heldBytes, PAGE);
});

test('for a guest: what was answered is there after the process died, and counts as never written after a power loss', async () => {
  const files = new MemoryFiles();
  const contents = await baseOf(SIZE);
  const base = () => new MemoryDisk(SIZE, { contentsOf: contents });
  const disk = await openDiffDisk(files, PATH, base(), { bootId: 'boot 1' });
  const before = await all(disk);
  await Promise.all([disk.write(Buffer.alloc(PAGE, 8), 5 * PAGE), disk.write(Buffer.alloc(100, 9), 33 * PAGE + 50)]);
  const written = await all(disk);
  assert.ok((await all(await openDiffDisk(files.afterCrash(), PATH, base(), { bootId: 'boot 2' }))).equals(before));
  const left = files.afterCrash();
  const again = await openDiffDisk(left, PATH, base(), { bootId: 'boot 1' });
  assert.ok((await all(again)).equals(written));
  // What only the live map had is durable with the next flush.
  await again.flush();
  assert.ok((await all(await openDiffDisk(left.afterCrash(), PATH, base(), { bootId: 'boot 2' }))).equals(written));
});

test('a bit never gets to the map before its page is durable', async () => {
  const files = new MemoryFiles();
  const order: string[] = [];
  const disk = await openDiffDisk(files, PATH, new MemoryDisk(SIZE));
  files.asked.length = 0;
  files.fate = ({ path }) => {
    const syncs = files.asked.filter((what) => what === `datasync ${PATH}`).length;
    order.push(path.endsWith('.map') ? `map after ${syncs} syncs` : 'page');
    return undefined;
  };
  await disk.write(Buffer.alloc(PAGE, 7), 0);
  await disk.flush();
  assert.deepEqual(order, ['page', 'map after 1 syncs']);
});

test('when the pages cannot be made durable no bit is written, and the flush fails', async () => {
  const files = new MemoryFiles();
  const disk = await openDiffDisk(files, PATH, new MemoryDisk(SIZE));
  await disk.write(Buffer.alloc(PAGE, 7), 0);
  files.errors.set(`datasync ${PATH}`, 'EIO');
  await assert.rejects(disk.flush(), { code: 'EIO' });
  files.errors.clear();
  const again = await openDiffDisk(files.afterCrash(), PATH, new MemoryDisk(SIZE));
  assert.equal(again.heldBytes, 0);
});

for (const [what, spoil] of [
  ['cut', (map: Buffer) => map.subarray(0, 4100)],
  ['of another base', (map: Buffer) => map],
  ['without its header', (map: Buffer) => Buffer.concat([Buffer.alloc(8), map.subarray(8)])],
  ['with a damaged header', (map: Buffer) => Buffer.concat([map.subarray(0, 16), Buffer.alloc(1, 0xff), map.subarray(17)])],
] as const) {
  test(`a map that is ${what} is refused with the way out`, async () => {
    const files = new MemoryFiles();
    await (await openDiffDisk(files, PATH, new MemoryDisk(SIZE))).close();
    files.put(`${PATH}.map`, spoil(files.get(`${PATH}.map`)));
    const base = new MemoryDisk(what === 'of another base' ? SIZE + PAGE : what === 'cut' ? 64 * 8 * 4096 * 8 : SIZE);
    await assert.rejects(openDiffDisk(files, PATH, base), { code: 'DIFF_DISK_DAMAGED', remedy: /base is untouched/ });
  });
}

test('removed, nothing of it is left, and a new one is empty', async () => {
  const files = new MemoryFiles();
  const disk = await openDiffDisk(files, PATH, new MemoryDisk(SIZE));
  await disk.write(Buffer.alloc(PAGE, 7), 0);
  await disk.flush();
  await disk.close();
  await removeDiffDisk(files, PATH);
  assert.deepEqual([...files.inodes.keys()], []);
  assert.equal((await openDiffDisk(files, PATH, new MemoryDisk(SIZE))).heldBytes, 0);
});

test(`a crash at any write leaves the last flush or newer, page by page (SEED=${SEED})`, async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), at: fc.nat(SIZE - 1), length: fc.integer({ min: 1, max: 5 * PAGE }),
      byte: fc.integer({ min: 1, max: 255 }) }),
    fc.constant({ kind: 'flush' as const }));
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), fc.nat(30), async (steps, dieAt) => {
    const files = new MemoryFiles();
    const disk = await openDiffDisk(files, PATH, await baseOf(SIZE));
    const model = await all(disk);
    let flushed = Buffer.from(model);
    const first = files.writes;
    files.fate = ({ count, length }) => (count - first >= dieAt ? { bytes: count - first === dieAt ? length >> 1 : 0,
      then: 'EIO' } : undefined);
    const versions = [Buffer.from(model)];
    try {
      for (const one of steps) {
        if (one.kind === 'flush') {
          await disk.flush();
          flushed = Buffer.from(model);
          versions.splice(0, versions.length, flushed);
        } else {
          const data = Buffer.alloc(Math.min(one.length, SIZE - one.at), one.byte);
          model.set(data, one.at);
          versions.push(Buffer.from(model));
          await disk.write(data, one.at);
        }
      }
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'EIO');
    }
    const seen = await all(await openDiffDisk(files.afterCrash(), PATH, await baseOf(SIZE)));
    for (let at = 0; at < SIZE; at++) {
      if (seen[at] !== flushed[at]) assert.ok(versions.some((version) => version[at] === seen[at]), `byte ${at}`);
    }
  }), { seed: SEED, numRuns: 60, endOnFailure: true });
});

async function baseOf(size: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk(size);
  for (let at = 0; at < size; at += 3 * PAGE) await disk.write(Buffer.alloc(Math.min(2 * PAGE, size - at),
    1 + ((at / PAGE) % 200)), at);
  return disk;
}

async function all(disk: { virtualSize: number; read(into: Uint8Array, offset: number): Promise<void> }): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.virtualSize, 0xa5);
  await disk.read(bytes, 0);
  return bytes;
}

/** The suite asks that what was written be there after a close: whoever closes a diff disk has flushed it. */
function flushedAtClose(disk: DiffDisk): DiffDisk {
  const close = disk.close.bind(disk);
  disk.close = async () => {
    await disk.flush();
    await close();
  };
  return disk;
}

test('over a raw file: whole pages are written and read on the calling thread, and it lends the places of both files', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-diff-disk-'));
  try {
    const path = join(folder, 'base.raw');
    await writeFile(path, await all(await baseOf(SIZE)));
    const base = await openRawDisk(path, { readOnly: true, lock: false });
    const disk = await openDiffDisk(hostFiles, join(folder, 'the.diff'), base);
    const page = Buffer.alloc(PAGE, 9);
    assert.equal(disk.writeNow!(page, 3 * PAGE), libc().native);
    if (!libc().native) await disk.write(page, 3 * PAGE);
    assert.equal(disk.writeNow!(page.subarray(1), 5 * PAGE), false);
    assert.equal(disk.heldBytes, PAGE);
    const seen = Buffer.alloc(3 * PAGE);
    if (libc().native) assert.equal(disk.readNow!(seen, 2 * PAGE), true);
    else await disk.read(seen, 2 * PAGE);
    assert.ok(seen.equals((await all(disk)).subarray(2 * PAGE, 5 * PAGE)) && seen.subarray(PAGE, 2 * PAGE).equals(page));
    const { runs, release } = await disk.lend!(2 * PAGE, 3 * PAGE);
    release();
    assert.deepEqual(disk.lentFiles, [path, join(folder, 'the.diff')]);
    assert.deepEqual(runs, [2, 3, 4].map((at) => ({ offset: at * PAGE, length: PAGE, file: at === 3 ? 1 : 0, position: at * PAGE })));
    await disk.flush();
    await disk.close();
    const again = await openDiffDisk(hostFiles, join(folder, 'the.diff'), await openRawDisk(path, { readOnly: true, lock: false }), { bootId: 'this boot' });
    assert.equal(again.heldBytes, PAGE);
    assert.equal(again.writeNow!(page, 7 * PAGE), false, 'the bit of a page that a guest waits for goes first');
    await again.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});
