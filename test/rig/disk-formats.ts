/** The formats that replication and resynchronization run on alike, and how tests make, edit and compare disks of each. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { hostClock } from '../../src/disk/host-clock.ts';
import { createImage, formatOfName } from '../../src/disk/images/create-image.ts';
import { openDisk } from '../../src/disk/open-disk.ts';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { diskCompare } from '../../src/resync/disk-sync.ts';
import { mustRun } from './program.ts';

export type TestFormat = 'raw' | 'vhd' | 'vhdx';

const ALL: readonly TestFormat[] = ['raw', 'vhd', 'vhdx'];

/** One format alone, whatever a test would choose: UNDERSTUDY_TEST_FORMAT=vhdx node --test test/system/points.test.ts */
const ONLY = ALL.filter((format) => format === process.env['UNDERSTUDY_TEST_FORMAT']);

/**
 * What a test with real servers runs on: on all when it is cheap or there is time for it (`npm run test:long`), else on one. Tests of
 * one subject name different ones, so that a short run sees each format somewhere.
 */
export const formatsFor = (cost: 'cheap' | 'dear', short: TestFormat = 'raw'): readonly TestFormat[] =>
  (ONLY.length > 0 ? ONLY : cost === 'cheap' || process.env['UNDERSTUDY_TEST_LONG'] === '1' ? ALL : [short]);

/** An empty disk; VHD and VHDX are dynamic, with blocks small enough for small tests. */
export async function makeDisk(path: string, format: TestFormat, size: number): Promise<void> {
  await createImage(path, { format, size, ...(format === 'raw' ? {} : { blockSize: 1 << 20 }) });
}

const QEMU_NAMES: Record<string, string> = { vhd: 'vpc', vhdx: 'vhdx' };

/** By the end of its name. */
export const qemuName = (path: string): string => QEMU_NAMES[path.replace(/^.*\./, '')] ?? 'raw';

/** The disks must be equal as guests see them; nobody may be writing. QEMU may not open an image that a server has open. */
export async function assertSameDisk(a: string, b: string): Promise<void> {
  if (qemuName(a) === 'raw') {
    await mustRun('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', a, b]);
    return;
  }
  const { equal, firstDifference } = await diskCompare(a, b, { clock: hostClock, lock: false });
  assert.ok(equal, `${a} and ${b} differ first at ${firstDifference}`);
}

/** All that a guest sees of an image, also of one that a server has open. */
export async function guestBytes(path: string): Promise<Buffer> {
  const disk = await openDisk(path, { readOnly: true, lock: false, format: formatOfName(path) });
  try {
    const bytes = Buffer.alloc(disk.virtualSize);
    await disk.read(bytes, 0);
    return bytes;
  } finally {
    await disk.close();
  }
}

/** Writes random bytes over the first part of an image, as somebody does who does not know of replication. */
export async function scramble(path: string, length: number): Promise<void> {
  const disk = await openWhenFree(path);
  try {
    for (let at = 0; at < length; at += 1 << 20) await disk.write(randomBytes(Math.min(1 << 20, length - at)), at);
    await disk.flush();
  } finally {
    await disk.close();
  }
}

/** A server that has stopped a VM still opens its disks for moments of its own; two writers would spoil an image. */
async function openWhenFree(path: string): Promise<VirtualDisk> {
  for (const end = performance.now() + 60_000; ;) {
    try {
      return await openDisk(path, { readOnly: false, format: formatOfName(path) });
    } catch (error) {
      if ((error as { code?: string }).code !== 'DISK_IN_USE' || performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
