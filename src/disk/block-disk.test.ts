import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { notRoot, run, temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { pattern, readBack, virtualDiskSuite } from '../../test/conformance/virtual-disk.suite.ts';
import { deviceNumbers, openBlockDisk, sectorsChanged, type BlockDisk } from './block-disk.ts';
import { portableLibc } from './libc.ts';
import { createRawDisk } from './raw-disk.ts';

const MIB = 1 << 20;
const WRITER = { readOnly: false, lock: true };

interface LoopDevice {
  device: string;
  folder: string;
  remove(): Promise<void>;
}

async function loopDevice(): Promise<LoopDevice> {
  const folder = await temporaryFolder();
  const image = join(folder.path, 'image');
  await (await createRawDisk(image, 4 * MIB)).close();
  const { stdout } = await run('losetup', ['--find', '--show', image]);
  const device = stdout.trim();
  const remove = async (): Promise<void> => {
    await run('losetup', ['--detach', device]);
    await folder.remove();
  };
  return { device, folder: folder.path, remove };
}

const cannotLoop = notRoot() || (await loopDevice().then(async (loop) => {
  await loop.remove();
  return false as const;
}, (error: unknown) => `no loop device: ${String(error)}`));

async function onLoop(work: (loop: LoopDevice) => Promise<void>): Promise<void> {
  const loop = await loopDevice();
  try {
    await work(loop);
  } finally {
    await loop.remove();
  }
}

virtualDiskSuite('block device', async () => {
  const loop = await loopDevice();
  const open = (): Promise<BlockDisk> => openBlockDisk(loop.device, WRITER);
  const disk = await open().catch(async (error: unknown) => {
    await loop.remove();
    throw error;
  });
  return { disk, reopen: open, cleanup: () => loop.remove() };
}, { skip: cannotLoop, zeroMakesHoles: false, runs: 15 });

describe('block device', { skip: cannotLoop }, () => {
  test('its sizes come from the kernel, with libc and without', () => onLoop(async ({ device }) => {
    for (const options of [WRITER, { ...WRITER, libc: portableLibc }]) {
      const disk = await openBlockDisk(device, options);
      assert.equal(disk.virtualSize, 4 * MIB);
      assert.equal(disk.logicalSectorSize, 512);
      await disk.write(pattern(5000, 1), 1000);
      await disk.zero(2000, 3000);
      const expected = pattern(5000, 1).fill(0, 1000, 4000);
      assert.ok((await readBack(disk, 1000, 5000)).equals(expected));
      await disk.close();
    }
  }));

  test('the seal changes with any write and zeroing, and with nothing else', () => onLoop(async ({ device }) => {
    const disk = await openBlockDisk(device, WRITER);
    await disk.write(pattern(512, 1), 0);
    const seals = [await disk.seal()];
    assert.equal(seals[0]!.kind, 'block');
    await readBack(disk, 0, MIB);
    await disk.close();
    const again = await openBlockDisk(device, WRITER);
    assert.deepEqual(await again.seal(), seals[0]);
    for (const change of [() => again.write(pattern(512, 2), 0), () => again.zero(0, MIB), () => again.zero(5, 20)]) {
      await change();
      seals.push(await again.seal());
      assert.notDeepEqual(seals.at(-1), seals.at(-2));
    }
    await again.close();
  }));

  test('the seal of another boot is another seal', () => onLoop(async ({ device, folder }) => {
    const bootIdFile = join(folder, 'boot_id');
    writeFileSync(bootIdFile, 'first\n');
    const disk = await openBlockDisk(device, { ...WRITER, bootIdFile });
    const first = await disk.seal();
    writeFileSync(bootIdFile, 'second\n');
    assert.deepEqual(await disk.seal(), { ...first, bootId: 'second' });
    await disk.close();
    const unproven = await openBlockDisk(device, { ...WRITER, bootIdFile: join(folder, 'absent') });
    assert.equal((await unproven.seal()).kind, 'none');
    await unproven.close();
  }));

  test('a device that is opened or mounted by others is DISK_IN_USE', () => onLoop(async ({ device, folder }) => {
    const disk = await openBlockDisk(device, WRITER);
    await assert.rejects(openBlockDisk(device, WRITER), { kind: 'state', code: 'DISK_IN_USE' });
    await assert.rejects(openBlockDisk(device, { readOnly: true, lock: true }), { code: 'DISK_IN_USE' });
    await disk.close();
    await run('mkfs.ext4', ['-q', device]);
    const mount = join(folder, 'mount');
    mkdirSync(mount);
    await run('mount', [device, mount]);
    await assert.rejects(openBlockDisk(device, WRITER), { code: 'DISK_IN_USE' }).finally(() => run('umount', [mount]));
    await (await openBlockDisk(device, WRITER)).close();
  }));

  test('a device that may only be read is DISK_READ_ONLY', () => onLoop(async ({ device }) => {
    await run('blockdev', ['--setro', device]);
    try {
      await assert.rejects(openBlockDisk(device, WRITER), { code: 'DISK_READ_ONLY' });
      const disk = await openBlockDisk(device, { readOnly: true, lock: true });
      await assert.rejects(disk.write(Buffer.alloc(1), 0), { code: 'EPERM' });
      await disk.close();
    } finally {
      await run('blockdev', ['--setrw', device]); // it would outlive the loop device
    }
  }));

  test('a file is not a block device', () => onLoop(async ({ folder }) => {
    await assert.rejects(openBlockDisk(join(folder, 'image'), WRITER), { code: 'DISK_NOT_SUPPORTED' });
  }));
});

test('device numbers are taken apart as Linux packs them', () => {
  assert.deepEqual(deviceNumbers(0x0703n), { major: 7, minor: 3 });
  assert.deepEqual(deviceNumbers(0x4561_2378n), { major: 0x123, minor: 0x45678 });
  assert.deepEqual(deviceNumbers(0x0001_2000_4563_4578n), { major: 0x12345, minor: 0x45678 });
});

test('sectors changed are those written and those discarded', () => {
  const line = '  1 2 3 4 5 6 700 8 9 10 11 12 13 50 15 16 17\n';
  assert.equal(sectorsChanged(line), '750');
  assert.equal(sectorsChanged('1 2 3 4 5 6 7 8 9 10 11'), '7', 'kernels before 4.18 count no discards');
  assert.equal(sectorsChanged('nonsense'), null);
});
