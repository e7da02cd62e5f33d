/**
 * What a plain diff disk holds, as an image that others can open over the same base: over a VHD or VHDX as a differencing image of
 * that format, which Hyper-V could merge, over a raw disk as a qcow2 overlay for QEMU.
 */
import { openDiffDisk, type MergeTarget } from '../diff-disk.ts';
import { openFailure } from '../disk-errors.ts';
import { hostClock } from '../host-clock.ts';
import { hostFiles } from '../host-files.ts';
import { openDisk } from '../open-disk.ts';
import type { LongWork } from '../vhd/merge-runs.ts';
import { createChild } from './change-image.ts';
import { formatOfName } from './create-image.ts';
import { diffDiskNotFound } from './merge-diff.ts';
import { qemuCreate, qemuImage, writeQcow2 } from './qemu-tools.ts';
import type { DiskFormat } from '../virtual-disk.ts';

/**
 * Makes the image at `dest` over `base`. The diff disk stays as it is; nobody may be writing to it. After an interruption there is
 * nothing at `dest`. `format`: the base's; by default what its name says.
 * @throws DIFF_DISK_NOT_FOUND, DIFF_DISK_DAMAGED, DISK_EXISTS, QEMU_IMG_FAILED, and as `createChild`
 */
export async function exportDiff(
  base: string, diff: string, dest: string, { format = formatOfName(base), ...work }: LongWork & { format?: DiskFormat; blockSize?: number },
): Promise<void> {
  if ((await hostFiles.stat(dest)) !== null) throw openFailure(dest, Object.assign(new Error(dest), { code: 'EEXIST' }));
  if ((await hostFiles.stat(`${diff}.map`)) === null) throw diffDiskNotFound(diff);
  const source = await openDiffDisk(hostFiles, diff, await openDisk(base, { readOnly: true, lock: false, format }));
  try {
    const merge = (into: MergeTarget) => source.merge(into, {
      ...(work.signal && { signal: work.signal }), onProgress: (merged) => work.progress?.(merged, source.heldBytes) });
    if (format === 'raw') await asOverlay(base, dest, work, merge);
    else await asChild(base, dest, { ...work, format }, merge);
  } catch (error) {
    await hostFiles.remove(dest);
    throw error;
  } finally {
    await source.close();
  }
}

type Merge = (into: MergeTarget) => Promise<void>;

async function asOverlay(base: string, dest: string, { signal }: LongWork, merge: Merge): Promise<void> {
  try {
    await qemuCreate(dest, { backing: await qemuImage(base, 'raw', hostFiles, { write: false }) });
    const overlay = await qemuImage(dest, 'qcow2', hostFiles, { write: true });
    await writeQcow2(overlay, `${dest}.socket`, { clock: hostClock, ...(signal && { signal }) }, merge);
  } finally {
    await hostFiles.remove(`${dest}.socket`);
  }
}

async function asChild(base: string, dest: string, shape: { format: DiskFormat; blockSize?: number }, merge: Merge): Promise<void> {
  const child = await openDisk(dest, { readOnly: false, format: await createChild(base, dest, shape) });
  try {
    await merge(child);
  } finally {
    await child.close();
  }
}
