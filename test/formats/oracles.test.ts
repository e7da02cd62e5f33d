import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hostFiles } from '../../src/disk/host-files.ts';
import { createVhd } from '../../src/disk/vhd/create.ts';
import { openVhd } from '../../src/disk/vhd/open.ts';
import { createVhdx } from '../../src/disk/vhdx/create.ts';
import { openVhdx } from '../../src/disk/vhdx/open.ts';
import { assertHolds, exercise, wholeDisk } from './exercise.ts';
import {
  digestOf,
  libvhdiDigest,
  missing,
  missingMounts,
  qemuCheck,
  qemuDigest,
  qemuSize,
  sevenZipDigest,
  withFolder,
} from './oracle-programs.ts';
import { clock, SEED, Seeded } from './seeded.ts';

const MIB = 1 << 20;
const noQemu = missing('qemu-img', 'qemu-io');
const noTools = missing('qemu-img', '7z');

for (const variant of ['fixed', 'dynamic'] as const) {
  test(`QEMU and 7-Zip read the ${variant} VHDs that we write (SEED=${SEED})`, { skip: noTools }, () =>
    withFolder(async (folder) => {
      const random = new Seeded(SEED);
      for (const blockSize of [512 * 1024, 2 * MIB]) {
        const path = join(folder, `${blockSize}.vhd`);
        const size = random.integer(8000, 40000) * 512;
        await createVhd(path, hostFiles, { variant, size, blockSize, random, clock });
        const disk = await openVhd(path, hostFiles, { readOnly: false });
        await exercise(disk, await wholeDisk(disk), random, 60);
        const digest = await digestOf(disk);
        await disk.close();
        assert.equal(await qemuSize(path, 'vpc'), size);
        assert.equal(await qemuDigest(path, 'vpc'), digest);
        assert.equal(await sevenZipDigest(path, 'VHD'), digest);
      }
    }),
  );

  test(
    `QEMU and 7-Zip read the ${variant} VHDXs that we write, and check finds nothing (SEED=${SEED})`,
    { skip: noTools },
    () =>
      withFolder(async (folder) => {
        const random = new Seeded(SEED);
        for (const [blockSize, logicalSectorSize] of [
          [MIB, 512],
          [2 * MIB, 512],
        ] as const) {
          const path = join(folder, `${blockSize}.vhdx`);
          const size = random.integer(2000, 5000) * 4096;
          await createVhdx(path, hostFiles, { variant, size, blockSize, logicalSectorSize, random });
          const disk = await openVhdx(path, hostFiles, { readOnly: false, random });
          await exercise(disk, await wholeDisk(disk), random, 60);
          const digest = await digestOf(disk);
          await disk.close();
          await qemuCheck(path);
          assert.equal(await qemuSize(path, 'vhdx'), size);
          assert.equal(await qemuDigest(path, 'vhdx'), digest);
          assert.equal(await sevenZipDigest(path, 'VHDX'), digest);
        }
      }),
  );
}

test(`7-Zip reads our chains of differencing VHDs (SEED=${SEED})`, { skip: missing('7z') }, () =>
  withFolder(async (folder) => {
    const random = new Seeded(SEED + 1);
    const names = ['base.vhd', 'one.avhd', 'two.avhd'].map((name) => join(folder, name));
    for (let level = 0; level < names.length; level++) {
      const path = names[level]!;
      if (level === 0) await createVhd(path, hostFiles, { variant: 'dynamic', size: 9 * MIB, random, clock });
      else await createVhd(path, hostFiles, { variant: 'differencing', parent: names[level - 1]!, random, clock });
      const disk = await openVhd(path, hostFiles, { readOnly: false });
      await exercise(disk, await wholeDisk(disk), random, 40, { lengthMax: 60_000 });
      const digest = await digestOf(disk);
      await disk.close();
      assert.equal(await sevenZipDigest(path, 'VHD'), digest, `level ${level}`);
    }
  }),
);

for (const logicalSectorSize of [512, 4096] as const) {
  // libvhdi 20210425 shows the parent where a child's block is ZERO ([MS-VHDX] 2.5.1.1 and 7-Zip: zeroes), so it gets no
  // such blocks.
  for (const reader of ['7-Zip', 'libvhdi'] as const) {
    const skip = reader === '7-Zip' ? missing('7z') : missingMounts();
    test(`${reader} reads our chains of VHDXs with sectors of ${logicalSectorSize} bytes (SEED=${SEED})`, { skip }, () =>
      withFolder(async (folder) => {
        const random = new Seeded(SEED + 2);
        const names = ['base.vhdx', 'one.avhdx', 'two.avhdx'].map((name) => join(folder, name));
        for (let level = 0; level < names.length; level++) {
          const path = names[level]!;
          const base = { variant: 'dynamic', size: 9 * MIB, blockSize: 2 * MIB, logicalSectorSize } as const;
          await createVhdx(path, hostFiles, {
            ...(level === 0 ? base : { variant: 'differencing', parent: names[level - 1]! }),
            random,
          });
          const disk = await openVhdx(path, hostFiles, { readOnly: false, random });
          await exercise(disk, await wholeDisk(disk), random, 40, {
            lengthMax: 60_000,
            zeroWholeBlocks: reader === '7-Zip',
          });
          const digest = await digestOf(disk);
          await disk.close();
          const seen =
            reader === '7-Zip' ? await sevenZipDigest(path, 'VHDX') : await libvhdiDigest(path, level + 1, disk.virtualSize);
          assert.equal(seen, digest, `level ${level}`);
        }
      }),
    );
  }
}

test(`we read and write what QEMU made, with its rounded sizes (SEED=${SEED})`, { skip: noQemu }, () =>
  withFolder(async (folder) => {
    const random = new Seeded(SEED + 3);
    const raw = join(folder, 'raw');
    writeFileSync(
      raw,
      Buffer.concat([
        random.bytes(700_000),
        Buffer.alloc(5 * MIB),
        random.bytes(90_000),
        Buffer.alloc(10 * MIB - 5 * MIB - 790_000),
      ]),
    );
    const makes = [
      ['vpc', 'dynamic', 10514432],
      ['vpc', 'fixed', 10514432],
      ['vpc', 'dynamic,force_size=on', 10 * MIB],
      ['vhdx', 'dynamic', 10 * MIB],
      ['vhdx', 'fixed', 10 * MIB],
    ] as const;
    for (const [index, [format, subformat, size]] of makes.entries()) {
      const path = join(folder, `${index}.${format}`);
      execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', format, '-o', `subformat=${subformat}`, raw, path]);
      const open = (readOnly: boolean) =>
        format === 'vpc' ? openVhd(path, hostFiles, { readOnly }) : openVhdx(path, hostFiles, { readOnly, random });
      const reader = await open(true);
      assert.equal(reader.virtualSize, size, `${format} ${subformat}`);
      assert.equal(await digestOf(reader), await qemuDigest(path, format), `${format} ${subformat}`);
      await reader.close();
      const disk = await open(false);
      const model = await wholeDisk(disk);
      await exercise(disk, model, random, 30);
      await assertHolds(disk, model, `${format} ${subformat}`);
      const digest = await digestOf(disk);
      await disk.close();
      assert.equal(await qemuDigest(path, format), digest, `${format} ${subformat}, written by us`);
      if (format === 'vhdx') await qemuCheck(path);
      // QEMU writes on, and we read that.
      execFileSync('qemu-io', ['-f', format, '-c', 'write -P 77 1000k 300k', path], { stdio: 'ignore' });
      model.fill(77, 1000 * 1024, 1300 * 1024);
      const again = await open(true);
      await assertHolds(again, model, `${format} ${subformat}, written by QEMU`);
      await again.close();
    }
  }),
);
