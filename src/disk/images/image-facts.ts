/** What an image says of itself and of the files it is built on. Only reads; needs no locks. */
import type { Seal } from '../virtual-disk.ts';
import { hostFiles } from '../host-files.ts';
import { isNbdUri } from '../nbd/uri.ts';
import { openDisk, probeDisk, probedFormat } from '../open-disk.ts';
import { chainOfVhd, type ChainLink } from '../vhd/chain.ts';
import { imageFiles } from '../vhd/image-files.ts';
import { parentOf as parentOfVhd } from '../vhd/open.ts';
import { inspectVhd } from '../vhd/vhd-image.ts';
import type { DiskFormat } from '../virtual-disk.ts';
import { chainOfVhdx } from '../vhdx/chain.ts';
import { inspectVhdx, parentOf as parentOfVhdx } from '../vhdx/open.ts';
import { backingNameOf, backingOf } from '../vhdx/qemu-access.ts';

export interface ParentOptions {
  /** Follow parents out of the image's own folder. Default no. */
  allowParentOutside?: boolean;
}

export interface Ancestry {
  /** Path of the parent; null without one. */
  parent: string | null;
  /** A VHDX that was not closed cleanly: its log is replayed by whoever opens it for writing. */
  dirtyLog: boolean;
}

/** Where the parent is, and whether the image has a log to replay. @throws DISK_PARENT_MISSING, DISK_PARENT_OUTSIDE, … */
export async function ancestryOf(location: string, format: DiskFormat, options: ParentOptions = {}): Promise<Ancestry> {
  const files = imageFiles('none');
  if (format === 'vhd') {
    const image = await inspectVhd(location, files);
    return { parent: image.variant === 'differencing' ? await parentOfVhd(location, files, image, options) : null, dirtyLog: false };
  }
  if (format === 'vhdx') {
    const image = await inspectVhdx(location, files);
    const parent = image.parentLocator === null ? null : await parentOfVhdx(location, files, image, options);
    return { parent, dirtyLog: image.pendingLog.length > 0 };
  }
  // Only named, never opened: it may lie anywhere.
  if (format === 'qcow2') return { parent: await backingNameOf(location, hostFiles), dirtyLog: false };
  return { parent: null, dirtyLog: false };
}

/** What tells that nobody wrote since (rule R24); null where nothing can tell. */
export async function identityOf(location: string, format: DiskFormat, options: ParentOptions = {}): Promise<Seal | null> {
  if (format === 'qcow2') return null;
  const disk = await openDisk(location, { ...options, readOnly: true, lock: false, format });
  try {
    const seal = await disk.seal();
    return seal.kind === 'none' ? null : seal;
  } finally {
    await disk.close();
  }
}

/** The image and its parents, the base last. */
export async function chainOf(location: string, options: ParentOptions = {}): Promise<ChainLink[]> {
  const links: ChainLink[] = [];
  for (let at: string | null = location; at !== null; ) {
    const format: DiskFormat = isNbdUri(at) ? 'nbd' : await probedFormat(at);
    if (format === 'vhd') return [...links, ...(await chainOfVhd(at, imageFiles('none'), options))];
    if (format === 'vhdx') return [...links, ...(await chainOfVhdx(at, imageFiles('none'), options))];
    const { variant, virtualSize } = await probeDisk(at, format === 'qcow2' ? {} : { format });
    links.push({ path: at, format, variant, virtualSize, identity: null, parentIdentity: null });
    // A raw disk below a qcow2 has no parent, whatever its guest has made it look like.
    const backing: Awaited<ReturnType<typeof backingOf>> = format === 'qcow2' ? await backingOf(at, hostFiles, options) : null;
    if (backing !== null && backing.format === 'raw') {
      const base = await probeDisk(backing.path, { format: 'raw' });
      links.push({ path: backing.path, format: 'raw', variant: base.variant, virtualSize: base.virtualSize, identity: null, parentIdentity: null });
      return links;
    }
    at = backing?.path ?? null;
  }
  return links;
}
