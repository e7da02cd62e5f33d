import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { assertHolds, exercise } from '../../../test/formats/exercise.ts';
import { clock, SEED, Seeded } from '../../../test/formats/seeded.ts';
import { createVhd } from './create.ts';
import { openVhd } from './open.ts';

const MIB = 1 << 20;

for (const variant of ['fixed', 'dynamic'] as const) {
  test(`a ${variant} VHD holds what was written, now and after reopening (SEED=${SEED})`, async () => {
    const random = new Seeded(SEED);
    const files = new CrashFiles();
    await createVhd('/d/a.vhd', files, { variant, size: 5 * MIB + 512 * 7, blockSize: 512 * 1024, random, clock });
    const model = Buffer.alloc(5 * MIB + 512 * 7);
    for (let round = 0; round < 4; round++) {
      const disk = await openVhd('/d/a.vhd', files, { readOnly: false });
      await exercise(disk, model, random, 60);
      await assertHolds(disk, model, `round ${round}`);
      await disk.close();
      const again = await openVhd('/d/a.vhd', files, { readOnly: true });
      await assertHolds(again, model, `round ${round}, reopened`);
      await again.close();
    }
  });
}

test(`a chain of three differencing VHDs holds what was written to each (SEED=${SEED})`, async () => {
  const random = new Seeded(SEED + 1);
  const files = new CrashFiles();
  await createVhd('/d/0.vhd', files, { variant: 'dynamic', size: 5 * MIB, blockSize: MIB, random, clock });
  const models = [Buffer.alloc(5 * MIB)];
  for (let level = 0; level <= 3; level++) {
    if (level > 0) {
      await createVhd(`/d/${level}.avhd`, files, {
        variant: 'differencing',
        parent: `/d/${level - 1}.${level === 1 ? 'vhd' : 'avhd'}`,
        random,
        clock,
      });
      models.push(Buffer.from(models[level - 1]!));
    }
    const disk = await openVhd(`/d/${level}.${level === 0 ? 'vhd' : 'avhd'}`, files, { readOnly: false });
    await exercise(disk, models[level]!, random, 60);
    await assertHolds(disk, models[level]!, `level ${level}`);
    await disk.close();
  }
  for (let level = 0; level <= 3; level++) {
    const disk = await openVhd(`/d/${level}.${level === 0 ? 'vhd' : 'avhd'}`, files, { readOnly: true });
    await assertHolds(disk, models[level]!, `level ${level}, at the end`);
    await disk.close();
  }
});

test(`writes side by side, down to bytes of one sector, are all there (SEED=${SEED})`, async () => {
  const random = new Seeded(SEED + 2);
  const files = new CrashFiles();
  await createVhd('/d/0.vhd', files, { variant: 'dynamic', size: 2 * MIB, random, clock });
  const model = Buffer.alloc(2 * MIB);
  const base = await openVhd('/d/0.vhd', files, { readOnly: false });
  await exercise(base, model, random, 20);
  await base.close();
  await createVhd('/d/1.avhd', files, { variant: 'differencing', parent: '/d/0.vhd', blockSize: 64 * 1024, random, clock });
  const disk = await openVhd('/d/1.avhd', files, { readOnly: false });
  const parts: Promise<void>[] = [];
  for (let at = 100_000; at < 400_000;) {
    const bytes = Buffer.alloc(random.integer(1, 900), random.integer(1, 255));
    bytes.copy(model, at);
    parts.push(disk.write(bytes, at));
    if (random.next() < 0.05) parts.push(disk.flush());
    at += bytes.length;
  }
  await Promise.all(parts);
  await assertHolds(disk, model, 'side by side');
  await disk.close();
  const again = await openVhd('/d/1.avhd', files, { readOnly: true });
  await assertHolds(again, model, 'reopened');
  await again.close();
});

test('zeroing whole blocks gives their room back for new blocks', async () => {
  const random = new Seeded(3);
  const files = new CrashFiles();
  await createVhd('/d/a.vhd', files, { variant: 'dynamic', size: 64 * MIB, random, clock });
  const disk = await openVhd('/d/a.vhd', files, { readOnly: false });
  await disk.write(Buffer.alloc(16 * MIB, 1), 0);
  await disk.flush();
  const before = (await files.stat('/d/a.vhd'))!.size;
  await disk.zero(0, 16 * MIB);
  await disk.flush();
  assert.ok((await files.stat('/d/a.vhd'))!.allocated < 64 * 1024, 'holes were punched');
  await disk.write(Buffer.alloc(16 * MIB, 2), 32 * MIB);
  await disk.close();
  assert.equal((await files.stat('/d/a.vhd'))!.size, before);
});

test('room that is used again shows nothing of its earlier life, even where no hole could be punched', async () => {
  const random = new Seeded(4);
  const files = new CrashFiles();
  files.canPunch = false;
  await createVhd('/d/a.vhd', files, { variant: 'dynamic', size: 16 * MIB, blockSize: 2 * MIB, random, clock });
  const disk = await openVhd('/d/a.vhd', files, { readOnly: false });
  await disk.write(Buffer.alloc(4 * MIB, 1), 0);
  await disk.zero(0, 4 * MIB);
  await disk.flush();
  const size = (await files.stat('/d/a.vhd'))!.size;
  const model = Buffer.alloc(16 * MIB);
  await disk.write(model.fill(2, 9 * MIB, 9 * MIB + 700).subarray(9 * MIB, 9 * MIB + 700), 9 * MIB);
  await disk.flush();
  assert.equal((await files.stat('/d/a.vhd'))!.size, size, 'the room was used again');
  await assertHolds(disk, model, 'used again');
  await disk.close();
});

test('a failed sync makes every later write and flush fail, and the last good state is what is opened next', async () => {
  const random = new Seeded(5);
  const files = new CrashFiles();
  await createVhd('/d/a.vhd', files, { variant: 'dynamic', size: 4 * MIB, blockSize: MIB, random, clock });
  const disk = await openVhd('/d/a.vhd', files, { readOnly: false });
  await disk.write(Buffer.alloc(5000, 1), 0);
  await disk.flush();
  await disk.write(Buffer.alloc(5000, 2), 2 * MIB);
  files.failNext = { kind: 'sync', code: 'EIO', after: 0 };
  await assert.rejects(disk.flush(), { code: 'EIO' });
  await assert.rejects(disk.flush(), { code: 'EIO' });
  await assert.rejects(disk.write(Buffer.alloc(10), 0), { code: 'EIO' });
  await disk.close();
  const again = await openVhd('/d/a.vhd', files, { readOnly: true });
  const seen = Buffer.alloc(5000);
  await again.read(seen, 0);
  assert.deepEqual(seen, Buffer.alloc(5000, 1));
  await again.close();
});

test('a full volume fails the write and nothing else', async () => {
  const random = new Seeded(6);
  const files = new CrashFiles();
  await createVhd('/d/a.vhd', files, { variant: 'dynamic', size: 4 * MIB, blockSize: MIB, random, clock });
  const disk = await openVhd('/d/a.vhd', files, { readOnly: false });
  const model = Buffer.alloc(4 * MIB);
  await disk.write(model.fill(1, 0, 5000).subarray(0, 5000), 0);
  for (const kind of ['truncate', 'write'] as const) {
    files.failNext = { kind, code: 'ENOSPC', after: 0 };
    await assert.rejects(disk.write(Buffer.alloc(5000, 2), 2 * MIB), { code: 'ENOSPC' }, kind);
  }
  await disk.write(model.fill(3, 2 * MIB, 2 * MIB + 9000).subarray(2 * MIB, 2 * MIB + 9000), 2 * MIB);
  await assertHolds(disk, model, 'after the failures');
  await disk.close();
});
