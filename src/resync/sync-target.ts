/**
 * Where `disk sync` writes: into the disk itself, into a new one, or with `--diff` into a diff disk over it.
 *
 * Invariants
 * - With a diff disk the disk under it is opened for reading only: nothing that happens here can change it.
 * - A file that is no diff disk is never taken for one: it stays, and the name is refused.
 * - A diff disk has one writer: its file is locked as images are.
 */
import { resolve } from 'node:path';
import type { DiffDisk } from '../disk/diff-disk.ts';
import { openDiffDiskFor } from '../disk/differencing-diff.ts';
import { hostFiles } from '../disk/host-files.ts';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { openDisk } from '../disk/open-disk.ts';
import { createRawDisk, openRawDisk } from '../disk/raw-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import { sizeMismatch } from './compare/mismatch.ts';
import type { CompareMode } from './compare/options.ts';

export interface TargetChoice {
  mode: CompareMode;
  /** A disk that is made gets this size, and none is made over a disk of another; null: none is made. */
  sourceSize: number | null;
  lock?: boolean | undefined;
  /** Write into this diff disk over the disk. */
  diff?: string | undefined;
}

export interface SyncTarget {
  /** What is scanned; reads as `target` does at the start. */
  base: VirtualDisk;
  target: VirtualDisk;
  /** `failed`: what has arrived is made durable as far as it goes, so that the next run need not fetch it again. */
  close(failed: boolean): Promise<void>;
}

/** Fails with the codes of `openDisk`, and DIFF_DISK_NAME_TAKEN, DIFF_DISK_DAMAGED, DISK_IN_USE. */
export async function openTarget(location: string, choice: TargetChoice): Promise<SyncTarget> {
  if (choice.diff !== undefined) return openDiffTarget(location, choice.diff, choice);
  const disk = await openPlainTarget(location, choice);
  return { base: disk, target: disk, close: () => disk.close() };
}

/** A disk that is missing is made, or imagined as one hole when nothing is to be written. */
async function openPlainTarget(location: string, { mode, sourceSize, lock }: TargetChoice): Promise<VirtualDisk> {
  const found = await openDisk(location, { readOnly: mode === 'compare-only', ...(lock !== undefined && { lock }) }).catch((error: unknown) => {
    const missing = error instanceof UnderstudyError && error.code === 'DISK_NOT_FOUND';
    if (!missing || sourceSize === null || /^[a-z][a-z0-9+.-]*:/i.test(location)) throw error;
    return null;
  });
  if (found !== null) return found;
  return mode === 'mend' ? createRawDisk(location, sourceSize!) : new MemoryDisk(sourceSize!, { location, readOnly: true });
}

async function openDiffTarget(location: string, diff: string, { mode, sourceSize, lock = true }: TargetChoice): Promise<SyncTarget> {
  const base = await openDisk(location, { readOnly: true, lock });
  const path = diffPathOf(resolve(diff), base);
  const holders: VirtualDisk[] = [];
  const holdFile = async (file: string) => {
    if (lock) holders.push(await openRawDisk(file, { readOnly: mode === 'compare-only', lock: true }));
  };
  const closeAll = async (disk: VirtualDisk) => {
    try {
      await disk.close();
    } finally {
      for (const holder of holders) await holder.close();
    }
  };
  let owner: VirtualDisk = base;
  try {
    const { logicalSectorSize } = base;
    const mismatch = sourceSize === null ? null : sizeMismatch({ virtualSize: sourceSize, logicalSectorSize, sameSectorSize: false }, base);
    if (mismatch !== null) throw mismatch;
    const exists = await existingDiff(path, base);
    if (exists === null && mode === 'compare-only') return { base, target: base, close: () => closeAll(base) };
    if (exists !== null) await holdFile(exists);
    const overlay: DiffDisk = await openDiffDiskFor(hostFiles, path, base, { readOnly: mode === 'compare-only', mustExist: exists !== null });
    owner = overlay;
    if (exists === null) await holdFile(overlay.location);
    const close = async (failed: boolean) => {
      if (failed && mode === 'mend') await overlay.flush().catch(() => undefined);
      await closeAll(overlay);
    };
    // The base of an empty diff disk is read on another thread, and reads the same.
    return { base: overlay.heldBytes === 0 ? base : overlay, target: overlay, close };
  } catch (error) {
    await closeAll(owner);
    throw error;
  }
}

/** Over a VHD or VHDX the differencing image has its format's ending; the user may have written it. */
function diffPathOf(diff: string, { format }: VirtualDisk): string {
  const ending = `.a${format}`;
  return (format === 'vhd' || format === 'vhdx') && diff.toLowerCase().endsWith(ending) ? diff.slice(0, -ending.length) : diff;
}

/** The file that holds what an earlier run has put there; null when there was none. */
async function existingDiff(path: string, { format, location }: VirtualDisk): Promise<string | null> {
  const child = format === 'vhd' || format === 'vhdx' ? `${path}.a${format}` : null;
  if (child !== null && (await hostFiles.stat(child)) !== null) return child;
  if ((await hostFiles.stat(path)) === null) return null;
  if (path !== location && (await hostFiles.stat(`${path}.map`)) !== null) return path;
  throw new UnderstudyError('usage', 'DIFF_DISK_NAME_TAKEN', `${path} exists and is no diff disk: there is no ${path}.map beside it`,
    'Name a file that does not exist yet, or the diff disk of an earlier run.');
}
