/** Brings what a plain diff disk (of `disk sync --diff`) holds into the disk that it was made over. */
import { UnderstudyError } from '../../model/errors.ts';
import { openDiffDisk, removeDiffDisk, type PageDiffDisk } from '../diff-disk.ts';
import { hostFiles } from '../host-files.ts';
import { openDisk } from '../open-disk.ts';
import { openRawDisk } from '../raw-disk.ts';
import type { LongWork } from '../vhd/merge-runs.ts';

export const diffDiskNotFound = (diff: string): UnderstudyError =>
  new UnderstudyError('usage', 'DIFF_DISK_NOT_FOUND', `${diff} is no diff disk: there is no ${diff}.map`,
    'Name the .diff file beside the disk; an .avhd or .avhdx is a differencing image already.');

/**
 * May be repeated after an interruption: until it ends, base seen through the diff disk reads as before. Removes the diff disk at the end
 * unless `keepChild`. Returns the base's path.
 * @throws DIFF_DISK_NOT_FOUND, DIFF_DISK_DAMAGED, DISK_IN_USE, and as `openDisk`
 */
export async function mergeDiff(diff: string, base: string, { progress, signal, keepChild = false }: LongWork & { keepChild?: boolean }): Promise<string> {
  if ((await hostFiles.stat(`${diff}.map`)) === null) throw diffDiskNotFound(diff);
  const holder = await openRawDisk(diff, { readOnly: false, lock: true });
  try {
    const into = await openDisk(base, { readOnly: false });
    let source: PageDiffDisk;
    try {
      source = await openDiffDisk(hostFiles, diff, into, { mustExist: true });
    } catch (error) {
      await into.close();
      throw error;
    }
    try {
      const total = source.heldBytes;
      await source.merge(into, { ...(signal && { signal }), onProgress: (merged) => progress?.(merged, total) });
    } finally {
      await source.close(); // And the base with it.
    }
    if (!keepChild) await removeDiffDisk(hostFiles, diff);
    return base;
  } finally {
    await holder.close();
  }
}
