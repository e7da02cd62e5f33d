/**
 * A VHD or VHDX that serves a guest: what was answered is there after kill -9 of the server (R2), every change of the file is under a
 * lease, and it grows while it is read and written (R26).
 * Seen to fail: in sparse-disk.ts `#answered` without `#servesGuest`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Files } from '../../src/model/ports.ts';
import { CrashFiles } from './crash-files.ts';
import { assertHolds, exercise } from './exercise.ts';
import { families } from './families.ts';
import { Seeded } from './seeded.ts';

const SEED = Number(process.env['SEED'] ?? 41);
const MIB = 1 << 20;

for (const family of families(new Seeded(SEED))) {
  for (const kind of ['fixed', 'dynamic', 'differencing'] as const) {
    test(`${family.name}, ${kind}: what a guest was answered is there when the server was killed (SEED=${SEED})`, async () => {
      const random = new Seeded(SEED);
      for (let round = 0; round < 12; round++) {
        const files = new CrashFiles();
        const path = await makeDisk(files, kind, family);
        const disk = await family.open(files, path, { readOnly: false });
        disk.serveGuest(() => null);
        const model = Buffer.alloc(disk.virtualSize);
        await exercise(disk, model, random, random.integer(1, 12));
        // Side by side, as guests do: the second write to a new block must not be answered before the block is in the table.
        const writes = [0, 1, 2, 3].map((index) => disk.write(Buffer.alloc(4096, index + 1), 2 * MIB + index * 4096));
        for (let index = 0; index < 4; index++) model.fill(index + 1, 2 * MIB + index * 4096, 2 * MIB + (index + 1) * 4096);
        await Promise.all(writes);
        // The process is gone: nothing of its memory is left, and all that it wrote to the file.
        const again = await family.open(files, path, { readOnly: false });
        // What proves that nobody else wrote, before this opening mends what the kill has left.
        assert.ok(again.foundSeal !== undefined);
        await assertHolds(again, model, `round ${round}`);
        await again.close();
      }
    });
  }

  test(`${family.name}: no change of the file without leave, whoever makes it`, async () => {
    const files = new CrashFiles();
    const watched = new Set<string>();
    let leave = true;
    const path = await makeDisk(files, 'dynamic', family);
    const disk = await family.open(watching(files, (what) => {
      if (!leave) watched.add(what);
    }), path, { readOnly: false });
    disk.serveGuest(() => {
      leave = true;
      return Promise.resolve();
    });
    for (const change of [() => disk.write(Buffer.alloc(9000, 1), 5), () => disk.flush(), () => disk.zero(0, MIB), () => disk.seal({ goesOn: true }),
      () => disk.seal(), () => disk.write(Buffer.alloc(9, 1), 2 * MIB), () => disk.grow(disk.virtualSize + MIB), () => disk.close()]) {
      leave = false;
      await change();
    }
    assert.deepEqual([...watched], []);
  });

  test(`${family.name}: a seal of a disk that goes on writes nothing, one of a stop stays true when it is closed`, async () => {
    const files = new CrashFiles();
    const path = await makeDisk(files, 'dynamic', family);
    let changes = 0;
    const disk = await family.open(watching(files, () => (changes += 1)), path, { readOnly: false });
    disk.serveGuest(() => null);
    await disk.write(Buffer.alloc(9000, 1), 5);
    changes = 0;
    await disk.seal({ goesOn: true });
    assert.equal(changes, 0);
    await disk.write(Buffer.alloc(9000, 2), 5);
    assert.ok(changes <= 2, `${changes} changes for a write into a block that is there`);
    const sealed = await disk.seal();
    changes = 0;
    await disk.close();
    assert.equal(changes, 0);
    const again = await family.open(files, path, { readOnly: true });
    assert.deepEqual(await again.seal(), sealed);
    await again.close();
  });

  test(`${family.name}: a place that is lent keeps its bytes until it is given back`, async () => {
    const files = new CrashFiles();
    const path = await makeDisk(files, 'dynamic', family);
    const disk = await family.open(files, path, { readOnly: false });
    await disk.write(Buffer.alloc(2 * MIB, 1), 0);
    await disk.flush();
    const lent = await disk.lend(100, MIB);
    assert.equal(lent.runs.reduce((sum, { length }) => sum + length, 0), MIB);
    let given = false;
    const reused = disk.zero(0, 2 * MIB).then(() => {
      assert.ok(given, 'the blocks were given back while they were lent');
      return disk.write(Buffer.alloc(MIB, 2), 2 * MIB);
    });
    reused.catch(() => undefined);
    // Files in memory answer at once: by now everything has happened that may happen.
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    const raw = await files.open(path, 'read');
    for (const { position, length } of lent.runs) {
      const bytes = Buffer.alloc(length);
      await raw.read(bytes, position);
      assert.ok(bytes.every((byte) => byte === 1));
    }
    given = true;
    lent.release();
    await reused;
    await disk.close();
  });

  for (const kind of ['fixed', 'dynamic', 'differencing'] as const) {
    test(`${family.name}, ${kind}: grows under reads and writes, and others see the same (SEED=${SEED})`, async () => {
      const random = new Seeded(SEED + 1);
      const files = new CrashFiles();
      const path = await makeDisk(files, kind, family);
      const disk = await family.open(files, path, { readOnly: false });
      let model: Buffer = Buffer.alloc(disk.virtualSize);
      for (const size of [7 * MIB, 8 * MIB, 300 * MIB]) {
        const before = model;
        const busy = exercise({
          virtualSize: before.length, write: (from, offset) => disk.write(from, offset), zero: (offset, length) => disk.zero(offset, length),
          flush: () => disk.flush(),
        }, before, random, 20);
        await disk.grow(size);
        await busy;
        model = Buffer.alloc(size);
        before.copy(model);
        await exercise(disk, model, random, 20, { lengthMax: 90_000 });
        assert.equal(disk.virtualSize, size);
        await assertHolds(disk, model, `grown to ${size}`);
      }
      await assert.rejects(disk.grow(MIB), { code: 'DISK_SHRINK_REFUSED' });
      await disk.write(Buffer.alloc(100, 7), 0);
      model.fill(7, 0, 100);
      await disk.close();
      const again = await family.open(files, path, { readOnly: true });
      await assertHolds(again, model, 'opened again');
      await again.close();
      assert.deepEqual((await family.check(files, path)).findings.filter(({ severity }) => severity === 'error'), []);
    });
  }
}

async function makeDisk(files: Files, kind: 'fixed' | 'dynamic' | 'differencing', family: ReturnType<typeof families>[number]): Promise<string> {
  await family.create(files, family.path(0), kind === 'differencing' ? 'dynamic' : kind, 5 * MIB);
  if (kind === 'differencing') await family.createChild(files, family.path(1), family.path(0));
  return family.path(kind === 'differencing' ? 1 : 0);
}

function watching(files: Files, changed: (what: string) => void): Files {
  const opened: Files['open'] = async (path, mode) => {
    const file = await files.open(path, mode);
    return {
      path: file.path, read: (into, position) => file.read(into, position), datasync: () => file.datasync(), size: () => file.size(),
      close: () => file.close(),
      write: (buffers, position) => (changed('write'), file.write(buffers, position)),
      truncate: (size) => (changed('truncate'), file.truncate(size)),
      punch: async (position, length) => (changed('punch'), file.punch?.(position, length)),
    };
  };
  return {
    open: opened, rename: (...a) => files.rename(...a), remove: (path) => files.remove(path), makeFolder: (path) => files.makeFolder(path),
    list: (path) => files.list(path), stat: (path) => files.stat(path), syncFolder: (path) => files.syncFolder(path),
    freeBytes: (path) => files.freeBytes(path),
  };
}
