import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from './crash-files.ts';
import { crashing } from './crashing.ts';
import { assertHolds, exercise } from './exercise.ts';
import { families } from './families.ts';
import type { Family } from './families.ts';
import { SEED, Seeded } from './seeded.ts';

const MIB = 1 << 20;

async function filled(
  family: Family,
  files: CrashFiles,
  path: string,
  model: Buffer,
  random: Seeded,
  steps = 40,
): Promise<void> {
  const disk = await family.open(files, path, { readOnly: false });
  await exercise(disk, model, random, steps);
  await disk.close();
}

async function assertFile(family: Family, files: CrashFiles, path: string, model: Buffer, what: string): Promise<void> {
  const disk = await family.open(files, path, { readOnly: true });
  await assertHolds(disk, model, what);
  await disk.close();
}

/** Zeroes behind what was there. */
const grown = (model: Buffer, size: number): Buffer => Buffer.concat([model, Buffer.alloc(size - model.length)]);

for (const variant of ['fixed', 'dynamic'] as const) {
  const random = new Seeded(SEED);
  for (const family of families(random)) {
    test(`a ${variant} ${family.name} grows, and a power cut leaves it whole (SEED=${SEED})`, async () => {
      const files = new CrashFiles();
      const path = family.path(0);
      const small = Buffer.alloc(2 * MIB + 4096);
      await family.create(files, path, variant, small.length);
      await filled(family, files, path, small, random);
      const large = grown(small, 5 * MIB);
      await crashing(
        files,
        random,
        () => family.resize(files, path, large.length),
        async (after, what) => {
          const disk = await family.open(after, path, { readOnly: true });
          const size = disk.virtualSize;
          await disk.close();
          assert.ok(size === small.length || size === large.length, `${what}: ${size} bytes`);
          if (size === small.length) await assertFile(family, after, path, small, what);
          else await assertFile(family, after, path, large, what);
          // Whoever writes on has the same disk, and the file says nothing of the growth any more.
          await (await family.open(after, path, { readOnly: false })).close();
          await assertFile(family, after, path, size === small.length ? small : large, `${what}, opened for writing`);
        },
      );
      await assertFile(family, files, path, large, 'grown');
      await filled(family, files, path, large, random);
      await assertFile(family, files, path, large, 'written on');
      assert.deepEqual((await family.check(files, path)).findings, []);
    });
  }
}

const random = new Seeded(SEED + 1);
for (const family of families(random)) {
  test(`a ${family.name} that has to move its table grows`, async () => {
    const files = new CrashFiles();
    const path = family.path(0);
    // The table of a new VHD ends where the first block begins; a VHDX has 1 MiB for it, 131072 entries.
    const model = Buffer.alloc(3 * MIB);
    await family.create(files, path, 'dynamic', model.length);
    await filled(family, files, path, model, random);
    const large = family.name === 'VHD' ? 200 * MIB : 140_000 * MIB;
    await crashing(
      files,
      random,
      () => family.resize(files, path, large),
      async (after, what) => {
        const disk = await family.open(after, path, { readOnly: false });
        assert.ok([model.length, large].includes(disk.virtualSize), what);
        const seen = Buffer.alloc(model.length);
        await disk.read(seen, 0);
        assert.ok(seen.equals(model), what);
        await disk.close();
      },
    );
    const disk = await family.open(files, path, { readOnly: false });
    await disk.write(Buffer.alloc(8192, 5), large - 8192);
    await disk.close();
    const again = await family.open(files, path, { readOnly: true });
    const seen = Buffer.alloc(3 * MIB);
    await again.read(seen, 0);
    assert.ok(seen.equals(model));
    const last = Buffer.alloc(8192);
    await again.read(last, large - 8192);
    assert.ok(last.equals(Buffer.alloc(8192, 5)));
    await again.close();
  });

  test(`a ${family.name} does not shrink`, async () => {
    const files = new CrashFiles();
    await family.create(files, family.path(0), 'dynamic', 2 * MIB);
    await assert.rejects(family.resize(files, family.path(0), MIB), { code: 'DISK_SHRINK_REFUSED' });
  });

  test(`compacting a ${family.name} loses nothing and gives back what is empty, through power cuts (SEED=${SEED})`, async () => {
    const files = new CrashFiles();
    const path = family.path(0);
    const model = Buffer.alloc(8 * MIB);
    await family.create(files, path, 'dynamic', model.length);
    const disk = await family.open(files, path, { readOnly: false });
    for (let at = 0; at < model.length; at += MIB) {
      const bytes = Buffer.alloc(5000, at / MIB + 1);
      await disk.write(bytes, at);
      bytes.copy(model, at);
      if (at % (2 * MIB) === 0) continue;
      await disk.zero(at, 5000);
      model.fill(0, at, at + 5000);
    }
    await disk.zero(0, MIB);
    model.fill(0, 0, MIB);
    await disk.close();
    await crashing(
      files,
      random,
      () => family.compact(files, path),
      async (after, what) => {
        await assertFile(family, after, path, model, what);
        await filled(family, after, path, Buffer.from(model), random, 3);
      },
    );
    await assertFile(family, files, path, model, 'compacted');
    const { before, after } = await family.compact(files, path);
    assert.equal(after, before, 'nothing is left to do');
    assert.deepEqual((await family.check(files, path)).findings, []);
    const blockBytes = family.name === 'VHD' ? 256 * 1024 : MIB;
    assert.ok(after < 3 * blockBytes + 5 * MIB, `${after} bytes for three blocks`);
  });

  for (const levels of [1, 2]) {
    test(`merging a ${family.name} into level ${levels - 1} finishes through power cuts (SEED=${SEED})`, async () => {
      const files = new CrashFiles();
      let model: Buffer = Buffer.alloc(3 * MIB);
      await family.create(files, family.path(0), 'dynamic', model.length);
      await filled(family, files, family.path(0), model, random);
      for (let level = 1; level <= levels; level++) {
        await family.createChild(files, family.path(level), family.path(level - 1));
        await filled(family, files, family.path(level), model, random, 20);
      }
      const [child, parent] = [family.path(levels), family.path(levels - 1)];
      if (levels === 2) {
        model = grown(model, 4 * MIB);
        await family.resize(files, child, model.length);
        await filled(family, files, child, model, random, 10);
      }
      await crashing(
        files,
        random,
        () => family.merge(files, child),
        async (after, what) => {
          if (after.contents.has(child)) {
            await assertFile(family, after, child, model, `${what}: child over parent`);
            await family.merge(after, child);
          }
          await assertFile(family, after, parent, model, `${what}: merged`);
        },
      );
      assert.ok(!files.contents.has(child));
      await assertFile(family, files, parent, model, 'merged');
      assert.deepEqual((await family.check(files, parent)).findings, []);
    });
  }

  test(`a ${family.name} with two children is not merged into`, async () => {
    const files = new CrashFiles();
    await family.create(files, family.path(0), 'dynamic', 2 * MIB);
    await family.createChild(files, family.path(1), family.path(0));
    await family.createChild(files, family.path(2), family.path(0));
    await assert.rejects(family.merge(files, family.path(1)), { code: 'DISK_HAS_CHILDREN', message: /2\.avhdx?/ });
    await assert.rejects(family.merge(files, family.path(0)), { code: 'DISK_NOT_DIFFERENCING' });
  });

  test(`the chain of a ${family.name} names every file and identity`, async () => {
    const files = new CrashFiles();
    await family.create(files, family.path(0), 'dynamic', 2 * MIB);
    for (let level = 1; level <= 3; level++) await family.createChild(files, family.path(level), family.path(level - 1));
    const links = await family.chain(files, family.path(3));
    assert.deepEqual(
      links.map((link) => link.path),
      [3, 2, 1, 0].map((level) => family.path(level)),
    );
    assert.deepEqual(
      links.slice(0, 3).map((link) => link.parentIdentity),
      links.slice(1).map((link) => link.identity),
    );
  });

  test(`check mends a ${family.name} that was cut off at its end`, async () => {
    const files = new CrashFiles();
    const path = family.path(0);
    const model = Buffer.alloc(3 * MIB);
    await family.create(files, path, 'dynamic', model.length);
    await filled(family, files, path, model, random);
    const content = files.contents.get(path)!;
    if (family.name === 'VHD') content.truncate(content.size - 512);
    else content.write(Buffer.alloc(4096, 7), 64 << 10);
    assert.equal((await family.check(files, path)).ok, false);
    assert.equal((await family.check(files, path, { repair: true })).ok, true);
    assert.deepEqual((await family.check(files, path)).findings, []);
    await assertFile(family, files, path, model, 'mended');
  });
}
