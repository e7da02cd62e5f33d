import { dirname, join, resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Files, Random } from '../../model/ports.ts';
import { assertNoOtherChildren, copyOwnRuns, nullIfMalformed } from '../vhd/merge-runs.ts';
import type { LongWork } from '../vhd/merge-runs.ts';
import type { SparseDisk } from '../vhd/sparse-disk.ts';
import { allItems, virtualDiskItemsOf } from './create.ts';
import { FLAG, ITEM } from './metadata.ts';
import { diskOf, inspectVhdx, openForChange, openVhdx, parentOf } from './open.ts';
import type { OpenImage } from './open.ts';
import { encodeParentLocator } from './parent-locator.ts';
import { resizeVhdx } from './resize.ts';
import { metadataPages, withItem } from './structure-pages.ts';

export interface MergeOptions extends LongWork {
  random: Pick<Random, 'uuid'>;
  allowParentOutside?: boolean;
  /** Leave the child where it is; it is of no use any more. */
  keepChild?: boolean;
}

/**
 * Brings what a differencing VHDX holds into its parent and deletes the child ([MS-VHDX] 2.6.2.6.3, note 12). The disks
 * must not be open for writing. Restartable: until the child is gone, child and parent together read as before, and
 * merging again finishes the work.
 *
 * 1. the child names the identity that the parent is about to get, beside the one it has
 * 2. the parent gets it; any other child of the parent is refused from here on
 * 3. the child's sectors, then its metadata of the virtual disk, go into the parent
 * 4. the parent is closed cleanly, then the child is deleted
 *
 * @returns the path of the parent
 * @throws UnderstudyError DISK_HAS_CHILDREN, DISK_NOT_DIFFERENCING, and as `openVhdx`
 */
export async function mergeVhdx(path: string, files: Files, options: MergeOptions): Promise<string> {
  const child = await inspectVhdx(path, files);
  if (child.variant !== 'differencing') {
    throw new UnderstudyError(
      'usage',
      'DISK_NOT_DIFFERENCING',
      `${path} is a ${child.variant} disk: it has no parent`,
      'Name a differencing disk.',
    );
  }
  const parentPath = await parentOf(path, files, child, options);
  assertNoOtherChildren(
    parentPath,
    (await childrenOfVhdx(parentPath, files)).filter((other) => other !== resolve(path)),
  );
  assertNoOtherChildren(path, await childrenOfVhdx(path, files));
  if ((await inspectVhdx(parentPath, files)).parameters.virtualSize < child.parameters.virtualSize) {
    // Growing changes the identity too, so it is promised in the same way.
    const dataWriteGuid = await promiseIdentity(path, parentPath, files, options.random);
    await resizeVhdx(parentPath, files, { size: child.parameters.virtualSize, random: options.random, dataWriteGuid });
  }
  const dataWriteGuid = await promiseIdentity(path, parentPath, files, options.random);
  await copyInto(path, parentPath, files, dataWriteGuid, options);
  if (options.keepChild !== true) {
    await files.remove(path);
    await files.syncFolder(dirname(resolve(path)));
  }
  return parentPath;
}

/** Step 1. Whatever an interrupted merge left: from here on the child accepts the parent as it is and as it will be. */
export async function promiseIdentity(path: string, parentPath: string, files: Files, random: Pick<Random, 'uuid'>): Promise<string> {
  const next = random.uuid();
  const parent = await inspectVhdx(parentPath, files);
  const { file, image, session } = await openForChange(path, files, random);
  try {
    const locator = encodeParentLocator({ ...image.parentLocator!, linkage: parent.header.dataWriteGuid, linkage2: next });
    await session.beginLayout();
    await session.sync();
    await session.writeTogether(
      await metadataPages(image, file, withItem(await allItems(image), ITEM.parentLocator, locator)),
    );
    await session.rest();
  } finally {
    await file.close();
  }
  return next;
}

/** Steps 2 and 3. */
async function copyInto(
  path: string,
  parentPath: string,
  files: Files,
  dataWriteGuid: string,
  options: MergeOptions,
): Promise<void> {
  const items = await virtualDiskItemsOf(path, files);
  const child = await openVhdx(path, files, { ...options, readOnly: true });
  try {
    const { disk: parent, image, session } = await openParent(parentPath, files, options);
    try {
      // Also a child that holds nothing ends with this identity.
      await session.beginData(dataWriteGuid);
      await copyOwnRuns(child, parent, options);
      await parent.flush();
      const own = (await allItems(image)).filter((item) => (item.flags & FLAG.virtualDisk) === 0);
      await session.writeTogether(await metadataPages(image, session.file, [...own, ...items]));
    } finally {
      await parent.close();
    }
  } finally {
    await child.close();
  }
}

/** The parent for writing, with its own parents for reading. */
async function openParent(path: string, files: Files, options: MergeOptions): Promise<OpenImage & { disk: SparseDisk }> {
  const open = await openForChange(path, files, options.random);
  try {
    const above =
      open.image.variant === 'differencing'
        ? await openVhdx(await parentOf(path, files, open.image, options), files, { ...options, readOnly: true })
        : null;
    return { ...open, disk: diskOf(open.image, open.session, above, files) };
  } catch (error) {
    await open.file.close();
    throw error;
  }
}

/** The differencing disks in the folder of a disk that name its contents as their parent. */
export async function childrenOfVhdx(path: string, files: Files): Promise<string[]> {
  const { dataWriteGuid } = (await inspectVhdx(path, files)).header;
  const folder = dirname(resolve(path));
  const children: string[] = [];
  for (const name of await files.list(folder)) {
    if (!/\.a?vhdx$/i.test(name)) continue;
    const image = await inspectVhdx(join(folder, name), files).catch(nullIfMalformed);
    const locator = image?.parentLocator;
    if (locator?.linkage === dataWriteGuid || locator?.linkage2 === dataWriteGuid) children.push(join(folder, name));
  }
  return children;
}
