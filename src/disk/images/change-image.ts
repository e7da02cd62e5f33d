/**
 * Changes to an image file that nobody has open: check, resize, compact, differencing children and their merge, whatever the format.
 * What writes takes QEMU's image locks, and so fails with DISK_IN_USE beside a running VM.
 */
import { basename, dirname, resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import { isZero } from '../../model/zero-bytes.ts';
import { openFailure } from '../disk-errors.ts';
import { hostClock, hostRandom } from '../host-clock.ts';
import { hostFiles } from '../host-files.ts';
import { isNbdUri } from '../nbd/uri.ts';
import { openDisk, probeDisk, probedFormat } from '../open-disk.ts';
import { checkVhd, verdict, type CheckResult, type Finding } from '../vhd/check.ts';
import { compactVhd } from '../vhd/compact.ts';
import { createVhd } from '../vhd/create.ts';
import { imageFiles } from '../vhd/image-files.ts';
import { assertGrows, type LongWork } from '../vhd/merge-runs.ts';
import { childrenOfVhd, mergeVhd } from '../vhd/merge.ts';
import { resizeVhd } from '../vhd/resize.ts';
import type { DiskFormat } from '../virtual-disk.ts';
import { checkVhdx } from '../vhdx/check.ts';
import { compactVhdx } from '../vhdx/compact.ts';
import { createVhdx } from '../vhdx/create.ts';
import { childrenOfVhdx, mergeVhdx } from '../vhdx/merge.ts';
import { backingOf } from '../vhdx/qemu-access.ts';
import { resizeVhdx } from '../vhdx/resize.ts';
import type { ParentOptions } from './image-facts.ts';
import { qemuCheck, qemuCommit, qemuCreate, qemuImage, qemuResize } from './qemu-tools.ts';

export interface ChangeOptions extends ParentOptions, LongWork {
  /** Default: what the file looks like. */
  format?: DiskFormat;
}

/** Looks for damage in an image's structures, never at what a guest has stored. `repair`: mends what can be mended without guessing. */
export function checkImage(path: string, options: ChangeOptions & { repair?: boolean }): Promise<CheckResult> {
  const { repair = false } = options;
  return onFormat(path, options, {
    // Its structure is its size, which opening it has checked.
    raw: async () => {
      await (await openDisk(path, { readOnly: true, lock: false, format: 'raw' })).close();
      return verdict([]);
    },
    vhd: () => checkVhd(path, imageFiles('all'), options),
    vhdx: () => checkVhdx(path, imageFiles('all'), { ...options, random: hostRandom }),
    qcow2: async () => {
      const image = await qemuImage(path, 'qcow2', hostFiles, { ...options, write: repair });
      return verdict(findingsOf(await qemuCheck(image, repair, qemuOptions(options))));
    },
  });
}

/** Makes the disk larger; what is new reads as zeroes. @throws DISK_SHRINK_REFUSED, DISK_SIZE_REFUSED, DISK_HAS_CHILDREN */
export function resizeImage(path: string, size: number, options: ChangeOptions): Promise<void> {
  const files = imageFiles('writers');
  return onFormat(path, options, {
    raw: async () => {
      const disk = await openDisk(path, { readOnly: false, format: 'raw' });
      try {
        assertGrows(path, disk.virtualSize, size);
        if (disk.grow === undefined) throw notFor(path, 'a block device', 'is resized', 'Use the tool that made it, such as lvextend.');
        await disk.grow(size);
      } finally {
        await disk.close();
      }
    },
    vhd: async () => {
      assertChildless(path, await childrenOfVhd(path, files));
      await resizeVhd(path, files, { size });
    },
    vhdx: async () => {
      assertChildless(path, await childrenOfVhdx(path, files));
      await resizeVhdx(path, files, { size, random: hostRandom });
    },
    qcow2: async () => {
      assertGrows(path, (await probeDisk(path)).virtualSize, size);
      await qemuResize(await qemuImage(path, 'qcow2', hostFiles, { ...options, write: true }), size, qemuOptions(options));
    },
  });
}

/** Gives back what the image does not need: bytes on the volume before and after. */
export async function compactImage(path: string, options: ChangeOptions): Promise<{ before: number; after: number }> {
  const files = imageFiles('writers');
  const allocated = async () => (await hostFiles.stat(path))!.allocated;
  return onFormat(path, options, {
    raw: async () => {
      const before = await allocated();
      await punchZeroes(path, options);
      return { before, after: await allocated() };
    },
    vhd: () => compactVhd(path, files, options),
    vhdx: () => compactVhdx(path, files, { ...options, random: hostRandom }),
    qcow2: () => Promise.reject(notFor(path, 'a qcow2 image', 'is compacted', `Copy it: understudy disk convert ${path} NEW.qcow2 --format qcow2`)),
  });
}

/**
 * A new image over `parent`, which must not change from then on. VHD and VHDX have children of their own format; over raw and qcow2 it
 * is a qcow2 for QEMU. Returns the child's format.
 */
export async function createChild(parent: string, child: string, options: ChangeOptions & { blockSize?: number }): Promise<DiskFormat> {
  if (options.allowParentOutside !== true && !resolve(parent).startsWith(`${dirname(resolve(child))}/`)) {
    throw new UnderstudyError('usage', 'DISK_PARENT_OUTSIDE', `${child} would have its parent ${parent} outside of its own folder`,
      'Make it beside the parent, or say --allow-parent-outside here and wherever it is opened.');
  }
  if ((await hostFiles.stat(child)) !== null) throw openFailure(child, Object.assign(new Error(child), { code: 'EEXIST' }));
  const shape = { parent, random: hostRandom, variant: 'differencing' as const, ...(options.blockSize === undefined ? {} : { blockSize: options.blockSize }) };
  const overlay = (format: 'raw' | 'qcow2') => async () => {
    await qemuCreate(child, { backing: await qemuImage(parent, format, hostFiles, { ...options, write: false }) });
    return 'qcow2' as const;
  };
  return onFormat<DiskFormat>(parent, options, {
    raw: overlay('raw'),
    vhd: async () => {
      assertNamed(child, /\.a?vhd$/i, '.avhd');
      await createVhd(child, imageFiles('none'), { ...shape, clock: hostClock });
      return 'vhd';
    },
    vhdx: async () => {
      assertNamed(child, /\.a?vhdx$/i, '.avhdx');
      await createVhdx(child, imageFiles('none'), shape);
      return 'vhdx';
    },
    qcow2: overlay('qcow2'),
  });
}

/** Brings what a child holds into its parent, then deletes it unless told otherwise. Returns the parent. May be repeated after anything. */
export function mergeImage(path: string, options: ChangeOptions & { keepChild?: boolean }): Promise<string> {
  const files = imageFiles('writers');
  return onFormat(path, options, {
    raw: () => Promise.reject(notDifferencing(path, 'raw')),
    vhd: () => mergeVhd(path, files, { ...options, clock: hostClock }),
    vhdx: () => mergeVhdx(path, files, { ...options, random: hostRandom }),
    qcow2: async () => {
      const image = await qemuImage(path, 'qcow2', hostFiles, { ...options, write: true });
      const backing = await backingOf(path, hostFiles, options);
      if (backing === null) throw notDifferencing(path, 'qcow2');
      await qemuImage(backing.path, backing.format, hostFiles, { ...options, write: true });
      await qemuCommit(image, qemuOptions(options));
      if (options.keepChild !== true) {
        await hostFiles.remove(path);
        await hostFiles.syncFolder(dirname(resolve(path)));
      }
      return backing.path;
    },
  });
}

async function onFormat<T>(path: string, { format }: ChangeOptions, by: Record<Exclude<DiskFormat, 'nbd'>, () => Promise<T>>): Promise<T> {
  if (isNbdUri(path)) throw notFor(path, 'an NBD export', 'is changed as a file', 'Name the image file, on the host that serves it.');
  const found = format ?? (await probedFormat(path));
  try {
    return await by[found as Exclude<DiskFormat, 'nbd'>]();
  } catch (error) {
    throw openFailure(path, error);
  }
}

function qemuOptions({ signal, progress }: LongWork) {
  return { ...(signal && { signal }), onProgress: (percent: number) => progress?.(percent, 100) };
}

function findingsOf(check: Awaited<ReturnType<typeof qemuCheck>>): Finding[] {
  const found: Finding[] = [];
  const add = (count: number | undefined, severity: Finding['severity'], what: string) => {
    if (count !== undefined && count > 0) found.push({ severity, what: `${count} ${what}` });
  };
  add(check['corruptions-fixed'], 'repaired', 'corruptions');
  add(check['leaks-fixed'], 'repaired', 'leaked clusters');
  add(check['check-errors'], 'error', 'errors that kept the check from its end');
  add((check.corruptions ?? 0) - (check['corruptions-fixed'] ?? 0), 'error', 'corruptions');
  add((check.leaks ?? 0) - (check['leaks-fixed'] ?? 0), 'warning', 'leaked clusters: they waste space, no more');
  return found;
}

const CHUNK_BYTES = 1 << 20;
const PIECE_BYTES = 64 << 10;

async function punchZeroes(path: string, { progress, signal }: LongWork): Promise<void> {
  const disk = await openDisk(path, { readOnly: false, format: 'raw' });
  try {
    const buffer = Buffer.alloc(CHUNK_BYTES);
    for await (const { offset, length, kind } of disk.extents(0, disk.virtualSize)) {
      for (let done = 0; kind === 'data' && done < length; done += CHUNK_BYTES) {
        signal?.throwIfAborted();
        const chunk = buffer.subarray(0, Math.min(CHUNK_BYTES, length - done));
        await disk.read(chunk, offset + done);
        for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
          const piece = chunk.subarray(at, at + PIECE_BYTES);
          if (isZero(piece)) await disk.zero(offset + done + at, piece.length);
        }
      }
      progress?.(offset + length, disk.virtualSize);
    }
    await disk.flush();
  } finally {
    await disk.close();
  }
}

function assertChildless(path: string, children: readonly string[]): void {
  if (children.length === 0) return;
  throw new UnderstudyError('state', 'DISK_HAS_CHILDREN', `${path} is the parent of ${children.join(', ')}, which a new size would break`,
    'Merge or delete those disks first.');
}

/** Hyper-V, and the search for children before a merge, know images by their names. */
function assertNamed(child: string, pattern: RegExp, extension: string): void {
  if (pattern.test(child)) return;
  throw new UnderstudyError('usage', 'IMAGE_OPTION_REFUSED', `${basename(child)} is no name for a differencing image`, `End it in ${extension}.`);
}

const notDifferencing = (path: string, format: string): UnderstudyError =>
  new UnderstudyError('usage', 'DISK_NOT_DIFFERENCING', `${path} is a ${format} disk without a parent`, 'Name a differencing image.');

const notFor = (path: string, what: string, does: string, remedy: string): UnderstudyError =>
  new UnderstudyError('usage', 'DISK_NOT_SUPPORTED', `${path} is ${what}, and none of these ${does} here`, remedy);
