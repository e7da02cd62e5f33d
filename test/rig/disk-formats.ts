/** The formats that replication and resynchronization run on alike, and how tests make, edit and compare disks of each. */
import assert from 'node:assert/strict';
import { hostClock } from '../../src/disk/host-clock.ts';
import { createImage } from '../../src/disk/images/create-image.ts';
import { diskCompare } from '../../src/resync/disk-sync.ts';
import { mustRun } from './program.ts';

export type TestFormat = 'raw' | 'vhd' | 'vhdx';

const ALL: readonly TestFormat[] = ['raw', 'vhd', 'vhdx'];

/** What a test with real servers runs on: on all when it is cheap or there is time for it, else on raw disks alone. */
export const formatsFor = (cost: 'cheap' | 'dear'): readonly TestFormat[] =>
  (cost === 'cheap' || process.env['UNDERSTUDY_TEST_LONG'] === '1' ? ALL : ['raw']);

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
