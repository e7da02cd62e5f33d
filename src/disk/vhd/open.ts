import { UnderstudyError } from '../../model/errors.ts';
import type { Files, OpenFile } from '../../model/ports.ts';
import { fileSeal } from './file-seal.ts';
import { FixedMap } from './fixed-map.ts';
import { GuardedFile } from './guarded-file.ts';
import { findParent } from './parent-path.ts';
import { readForWriting, resizeFile } from './resize.ts';
import { SparseDisk, type GrownParts } from './sparse-disk.ts';
import type { Seal } from '../virtual-disk.ts';
import { readVhd } from './vhd-image.ts';
import type { VhdImage } from './vhd-image.ts';
import { VhdMap } from './vhd-map.ts';

export interface OpenOptions {
  readOnly: boolean;
  /** Follow a parent locator to a file outside of the image's own folder. Default no. */
  allowParentOutside?: boolean;
}

/**
 * Opens a fixed, dynamic or differencing VHD; of a chain every parent, read-only.
 * @throws UnderstudyError DISK_MALFORMED, DISK_PARENT_MISSING, DISK_PARENT_OUTSIDE, DISK_PARENT_MISMATCH, DISK_CHAIN_LOOP
 */
export function openVhd(path: string, files: Files, options: OpenOptions): Promise<SparseDisk> {
  return openLink(path, files, options, new ChainGuard());
}

/** Notices when a chain of parents comes back to a file it has been through. */
export class ChainGuard {
  readonly #seen = new Map<string, string>();

  async enter(path: string, files: Files): Promise<void> {
    const stat = await files.stat(path);
    if (stat === null) throw Object.assign(new Error(`${path} does not exist`), { code: 'ENOENT' });
    const key = `${stat.device}:${stat.inode}`;
    const before = this.#seen.get(key);
    this.#seen.set(key, path);
    if (before === undefined) return;
    throw new UnderstudyError('io', 'DISK_CHAIN_LOOP', `${path} is its own ancestor (reached as ${before} before)`,
      'Restore the parent that the disk was made from.');
  }
}

async function openLink(path: string, files: Files, options: OpenOptions, guard: ChainGuard): Promise<SparseDisk> {
  await guard.enter(path, files);
  const file = options.readOnly ? await files.open(path, 'read') : new GuardedFile(await files.open(path, 'write'));
  let parent: SparseDisk | null = null;
  try {
    const foundSeal = options.readOnly ? null : await fileSeal(path, files);
    const image = options.readOnly ? await readVhd(file) : await readForWriting(file);
    if (image.variant === 'differencing') parent = await openParent(path, files, image, options, guard);
    // The first flush mends footers that a crash has left different.
    return diskOf(file, image, parent, files, foundSeal);
  } catch (error) {
    await file.close();
    await parent?.close();
    throw error;
  }
}

/** The disk over a file that was read already; owns both from now on. `foundSeal`: null when it is open for reading. */
export function diskOf(file: OpenFile, image: VhdImage, parent: SparseDisk | null, files: Files, foundSeal: Seal | null): SparseDisk {
  const readOnly = foundSeal === null;
  const map = image.sparse === null ? new FixedMap(file, image.footer.growth) : new VhdMap(file, image, image.sparse, readOnly);
  return new SparseDisk({
    location: file.path, format: 'vhd', variant: image.variant, virtualSize: image.virtualSize,
    logicalSectorSize: 512, physicalSectorSize: 512, geometry: image.footer.geometry,
    readOnly, file, map, parent, sealAtRest: () => fileSeal(file.path, files),
    ...(readOnly ? {} : { foundSeal, grow: (size) => grown(file, files, size) }),
  });
}

async function grown(file: OpenFile, files: Files, size: number): Promise<GrownParts> {
  await resizeFile(file, size);
  const image = await readVhd(file);
  const map = image.sparse === null ? new FixedMap(file) : new VhdMap(file, image, image.sparse, false);
  return { virtualSize: image.virtualSize, geometry: image.footer.geometry, map, sealAtRest: () => fileSeal(file.path, files) };
}

async function openParent(
  path: string, files: Files, image: VhdImage, options: OpenOptions, guard: ChainGuard,
): Promise<SparseDisk> {
  const parentPath = await parentOf(path, files, image, options);
  const parent = await openLink(parentPath, files, { ...options, readOnly: true }, guard);
  return parent;
}

/** The parent's path, found and with its identity checked. */
export async function parentOf(
  path: string, files: Files, image: VhdImage, options: Pick<OpenOptions, 'allowParentOutside'>,
): Promise<string> {
  const { header, parentPaths } = image.sparse!;
  const parentPath = await findParent(path, parentPaths, files, options);
  const file = await files.open(parentPath, 'read');
  try {
    const { footer } = await readVhd(file);
    if (footer.uniqueId === header.parentUniqueId) return parentPath;
    throw new UnderstudyError('io', 'DISK_PARENT_MISMATCH',
      `${path} was made over the disk ${header.parentUniqueId}, but ${parentPath} is ${footer.uniqueId}`,
      'Restore the parent that the disk was made from.');
  } finally {
    await file.close();
  }
}
