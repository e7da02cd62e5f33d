import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { assertHolds, exercise } from '../../../test/formats/exercise.ts';
import { SEED, Seeded } from '../../../test/formats/seeded.ts';
import { createVhdx } from './create.ts';
import { openVhdx } from './open.ts';

const MIB = 1 << 20;

for (const variant of ['fixed', 'dynamic'] as const) {
  test(`a ${variant} VHDX holds what was written, now and after reopening (SEED=${SEED})`, async () => {
    const random = new Seeded(SEED);
    const files = new CrashFiles();
    await createVhdx('/d/a.vhdx', files, { variant, size: 5 * MIB + 512 * 7, blockSize: MIB, random });
    const model = Buffer.alloc(5 * MIB + 512 * 7);
    for (let round = 0; round < 4; round++) {
      const disk = await openVhdx('/d/a.vhdx', files, { readOnly: false, random });
      await exercise(disk, model, random, 60);
      await assertHolds(disk, model, `round ${round}`);
      await disk.close();
      const again = await openVhdx('/d/a.vhdx', files, { readOnly: true, random });
      await assertHolds(again, model, `round ${round}, reopened`);
      await again.close();
    }
  });
}

test(`a chain of three differencing VHDXs holds what was written to each (SEED=${SEED})`, async () => {
  const random = new Seeded(SEED + 1);
  const files = new CrashFiles();
  await createVhdx('/d/0.vhdx', files, { variant: 'dynamic', size: 5 * MIB, blockSize: MIB, random });
  const models = [Buffer.alloc(5 * MIB)];
  for (let level = 0; level <= 3; level++) {
    if (level > 0) {
      await createVhdx(`/d/${level}.avhdx`, files, {
        variant: 'differencing',
        parent: `/d/${level - 1}.${level === 1 ? 'vhdx' : 'avhdx'}`,
        random,
      });
      models.push(Buffer.from(models[level - 1]!));
    }
    const disk = await openVhdx(`/d/${level}.${level === 0 ? 'vhdx' : 'avhdx'}`, files, { readOnly: false, random });
    await exercise(disk, models[level]!, random, 60);
    await assertHolds(disk, models[level]!, `level ${level}`);
    await disk.close();
  }
  for (let level = 0; level <= 3; level++) {
    const disk = await openVhdx(`/d/${level}.${level === 0 ? 'vhdx' : 'avhdx'}`, files, { readOnly: true, random });
    await assertHolds(disk, models[level]!, `level ${level}, at the end`);
    await disk.close();
  }
});

test(`writes side by side, down to bytes of one sector, are all there (SEED=${SEED})`, async () => {
  const random = new Seeded(SEED + 2);
  const files = new CrashFiles();
  await createVhdx('/d/0.vhdx', files, { variant: 'dynamic', size: 2 * MIB, random });
  const model = Buffer.alloc(2 * MIB);
  const base = await openVhdx('/d/0.vhdx', files, { readOnly: false, random });
  await exercise(base, model, random, 20);
  await base.close();
  await createVhdx('/d/1.avhdx', files, { variant: 'differencing', parent: '/d/0.vhdx', blockSize: MIB, random });
  const disk = await openVhdx('/d/1.avhdx', files, { readOnly: false, random });
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
  const again = await openVhdx('/d/1.avhdx', files, { readOnly: true, random });
  await assertHolds(again, model, 'reopened');
  await again.close();
});

test('zeroing whole blocks gives their room back for new blocks', async () => {
  const random = new Seeded(3);
  const files = new CrashFiles();
  await createVhdx('/d/a.vhdx', files, { variant: 'dynamic', size: 64 * MIB, blockSize: 2 * MIB, random });
  const disk = await openVhdx('/d/a.vhdx', files, { readOnly: false, random });
  await disk.write(Buffer.alloc(16 * MIB, 1), 0);
  await disk.flush();
  const before = (await files.stat('/d/a.vhdx'))!.size;
  await disk.zero(0, 16 * MIB);
  await disk.flush();
  assert.ok((await files.stat('/d/a.vhdx'))!.allocated < MIB, 'holes were punched');
  await disk.write(Buffer.alloc(16 * MIB, 2), 32 * MIB);
  await disk.close();
  assert.equal((await files.stat('/d/a.vhdx'))!.size, before);
});

test('room that is used again shows nothing of its earlier life, even where no hole could be punched', async () => {
  const random = new Seeded(4);
  const files = new CrashFiles();
  files.canPunch = false;
  await createVhdx('/d/a.vhdx', files, { variant: 'dynamic', size: 16 * MIB, blockSize: 2 * MIB, random });
  const disk = await openVhdx('/d/a.vhdx', files, { readOnly: false, random });
  await disk.write(Buffer.alloc(4 * MIB, 1), 0);
  await disk.zero(0, 4 * MIB);
  await disk.flush();
  const size = (await files.stat('/d/a.vhdx'))!.size;
  const model = Buffer.alloc(16 * MIB);
  await disk.write(model.fill(2, 9 * MIB, 9 * MIB + 700).subarray(9 * MIB, 9 * MIB + 700), 9 * MIB);
  await disk.flush();
  assert.equal((await files.stat('/d/a.vhdx'))!.size, size, 'the room was used again');
  await assertHolds(disk, model, 'used again');
  await disk.close();
});

test('a failed sync makes every later write and flush fail, and the last good state is what is opened next', async () => {
  const random = new Seeded(5);
  const files = new CrashFiles();
  await createVhdx('/d/a.vhdx', files, { variant: 'dynamic', size: 4 * MIB, blockSize: MIB, random });
  const disk = await openVhdx('/d/a.vhdx', files, { readOnly: false, random });
  await disk.write(Buffer.alloc(5000, 1), 0);
  await disk.flush();
  await disk.write(Buffer.alloc(5000, 2), 2 * MIB);
  files.failNext = { kind: 'sync', code: 'EIO', after: 0 };
  await assert.rejects(disk.flush(), { code: 'EIO' });
  await assert.rejects(disk.flush(), { code: 'EIO' });
  await assert.rejects(disk.write(Buffer.alloc(10), 0), { code: 'EIO' });
  await disk.close();
  const again = await openVhdx('/d/a.vhdx', files, { readOnly: true, random });
  const seen = Buffer.alloc(5000);
  await again.read(seen, 0);
  assert.deepEqual(seen, Buffer.alloc(5000, 1));
  await again.close();
});

test('a full volume fails the write and nothing else', async () => {
  const random = new Seeded(6);
  const files = new CrashFiles();
  await createVhdx('/d/a.vhdx', files, { variant: 'dynamic', size: 4 * MIB, blockSize: MIB, random });
  const disk = await openVhdx('/d/a.vhdx', files, { readOnly: false, random });
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
