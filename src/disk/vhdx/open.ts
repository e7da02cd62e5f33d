import { UnderstudyError } from '../../model/errors.ts';
import type { Files, OpenFile, Random } from '../../model/ports.ts';
import { fileSeal } from '../vhd/file-seal.ts';
import { ChainGuard } from '../vhd/open.ts';
import { findParent } from '../vhd/parent-path.ts';
import type { ParentPaths } from '../vhd/parent-path.ts';
import { GuardedFile } from '../vhd/guarded-file.ts';
import { SparseDisk, type GrownParts } from '../vhd/sparse-disk.ts';
import type { Seal } from '../virtual-disk.ts';
import type { Header } from './header.ts';
import { resizeOpen } from './resize.ts';
import { readVhdx } from './vhdx-image.ts';
import type { VhdxImage } from './vhdx-image.ts';
import { VhdxMap } from './vhdx-map.ts';
import { VhdxSession } from './vhdx-session.ts';

export interface OpenOptions {
  readOnly: boolean;
  /** Makes the GUIDs of a writing session. */
  random: Pick<Random, 'uuid'>;
  /** Follow a parent locator to a file outside of the image's own folder. Default no. */
  allowParentOutside?: boolean;
}

/** A file that is open for changes to its structures. */
export interface OpenImage {
  file: OpenFile;
  image: VhdxImage;
  session: VhdxSession;
}

/**
 * Opens a fixed, dynamic or differencing VHDX; of a chain every parent, read-only. A log that was left behind is replayed:
 * into the file when it is opened for writing, else in memory.
 * @throws UnderstudyError DISK_MALFORMED, DISK_PARENT_MISSING, DISK_PARENT_OUTSIDE, DISK_PARENT_MISMATCH, DISK_CHAIN_LOOP
 */
export function openVhdx(path: string, files: Files, options: OpenOptions): Promise<SparseDisk> {
  return openLink(path, files, options, new ChainGuard());
}

async function openLink(path: string, files: Files, options: OpenOptions, guard: ChainGuard): Promise<SparseDisk> {
  await guard.enter(path, files);
  const file = options.readOnly ? await files.open(path, 'read') : new GuardedFile(await files.open(path, 'write'));
  let parent: SparseDisk | null = null;
  try {
    const image = await readVhdx(file);
    if (image.variant === 'differencing') {
      const parentPath = await parentOf(path, files, image, options);
      parent = await openLink(parentPath, files, { ...options, readOnly: true }, guard);
      assertSameSectors(image, parent);
    }
    if (options.readOnly) return diskOf(image, null, parent, files);
    const foundSeal = await sealOf(path, files, image.header);
    const opened = await startSession(file, image, options.random);
    return diskOf(opened.image, opened.session, parent, files, { foundSeal, random: options.random });
  } catch (error) {
    await file.close();
    await parent?.close();
    throw error;
  }
}

/** Replays the log into the file when there is one; after that the file is as its image says. */
export async function startSession(file: OpenFile, seen: VhdxImage, random: Pick<Random, 'uuid'>): Promise<OpenImage> {
  const session = new VhdxSession(file, seen, random);
  if (seen.pendingLog.length === 0) return { file, image: seen, session };
  await session.replay(seen);
  return { file, image: await readVhdx(file), session };
}

/** Opens one file of a chain for changes to its structures; nothing is changed yet, except that a log is replayed. */
export async function openForChange(path: string, files: Files, random: Pick<Random, 'uuid'>): Promise<OpenImage> {
  const file = await files.open(path, 'write');
  try {
    return await startSession(file, await readVhdx(file), random);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The disk over an image; owns the file and the parent from now on. */
export function diskOf(
  image: VhdxImage,
  session: VhdxSession | null,
  parent: SparseDisk | null,
  files: Files,
  opening?: { foundSeal: Seal; random: Pick<Random, 'uuid'> },
): SparseDisk {
  const { parameters, path } = image;
  return new SparseDisk({
    location: path,
    format: 'vhdx',
    variant: image.variant,
    virtualSize: parameters.virtualSize,
    logicalSectorSize: parameters.logicalSectorSize,
    physicalSectorSize: parameters.physicalSectorSize,
    geometry: null,
    readOnly: session === null,
    file: session?.file ?? image.file,
    map: new VhdxMap(image, session),
    parent,
    sealAtRest: () => sealOf(path, files, session?.header ?? image.header),
    ...(opening && { foundSeal: opening.foundSeal, grow: (size) => grown(session!.file, files, opening.random, size) }),
  });
}

async function sealOf(path: string, files: Files, { fileWriteGuid, dataWriteGuid }: Pick<Header, 'fileWriteGuid' | 'dataWriteGuid'>): Promise<Seal> {
  return { kind: 'vhdx', fileWriteGuid, dataWriteGuid, file: await fileSeal(path, files) };
}

async function grown(file: OpenFile, files: Files, random: Pick<Random, 'uuid'>, size: number): Promise<GrownParts> {
  await resizeOpen(await startSession(file, await readVhdx(file), random), { size });
  const { image, session } = await startSession(file, await readVhdx(file), random);
  return { virtualSize: image.parameters.virtualSize, geometry: null, map: new VhdxMap(image, session),
    sealAtRest: () => sealOf(file.path, files, session.header) };
}

/** The parent's path, found and with its identity checked. */
export async function parentOf(
  path: string,
  files: Files,
  image: VhdxImage,
  options: Pick<OpenOptions, 'allowParentOutside'>,
): Promise<string> {
  const locator = image.parentLocator!;
  const parentPath = await findParent(path, pathsOf(image), files, options);
  const { header } = await inspectVhdx(parentPath, files);
  if (header.dataWriteGuid === locator.linkage || header.dataWriteGuid === locator.linkage2) return parentPath;
  throw new UnderstudyError(
    'io',
    'DISK_PARENT_MISMATCH',
    `${path} was made over the contents ${locator.linkage}, but ${parentPath}, written since, holds ${header.dataWriteGuid}`,
    'Restore the parent as it was when the child was made; writing to a disk that has children breaks them.',
  );
}

function pathsOf(image: VhdxImage): ParentPaths {
  const { relative, volume, absolute } = image.parentLocator!;
  return { relative: relative === null ? [] : [relative], absolute: [volume, absolute].filter((path) => path !== null) };
}

function assertSameSectors(image: VhdxImage, parent: SparseDisk): void {
  if (image.parameters.logicalSectorSize === parent.logicalSectorSize) return;
  throw new UnderstudyError(
    'io',
    'DISK_PARENT_MISMATCH',
    `${image.path} has sectors of ${image.parameters.logicalSectorSize} bytes, ` +
      `its parent ${parent.location} of ${parent.logicalSectorSize}`,
    'Restore the parent that the disk was made from.',
  );
}

/** Opens for reading, reads, closes. The image's `file` is closed: only what was read is of use. */
export async function inspectVhdx(path: string, files: Files): Promise<VhdxImage> {
  const file = await files.open(path, 'read');
  try {
    return await readVhdx(file);
  } finally {
    await file.close();
  }
}
