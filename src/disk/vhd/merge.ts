import { dirname, join, resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Clock, Files } from '../../model/ports.ts';
import { vhdTimestamp } from './footer.ts';
import { assertNoOtherChildren, copyOwnRuns, nullIfMalformed } from './merge-runs.ts';
import type { LongWork } from './merge-runs.ts';
import { openVhd, parentOf } from './open.ts';
import { resizeVhd, writeFooters } from './resize.ts';
import { layout } from './space.ts';
import { inspectVhd, readVhd, usedRanges } from './vhd-image.ts';

export interface MergeOptions extends LongWork {
  clock: Pick<Clock, 'now'>;
  allowParentOutside?: boolean;
  /** Leave the child where it is; it is of no use any more. */
  keepChild?: boolean;
}

/**
 * Brings what a differencing VHD holds into its parent and deletes the child. The disks must not be open for writing.
 * Restartable: until the child is gone, child and parent together read as before, and merging again finishes the work.
 * @returns the path of the parent
 * @throws UnderstudyError DISK_HAS_CHILDREN, DISK_NOT_DIFFERENCING, and as `openVhd`
 */
export async function mergeVhd(path: string, files: Files, options: MergeOptions): Promise<string> {
  const image = await inspectVhd(path, files);
  if (image.variant !== 'differencing') {
    throw new UnderstudyError(
      'usage',
      'DISK_NOT_DIFFERENCING',
      `${path} is a ${image.variant} disk: it has no parent`,
      'Name a differencing disk.',
    );
  }
  const parentPath = await parentOf(path, files, image, options);
  // Children know their parent by its unique id only, which a merge does not change: nothing else would stop them from
  // being used.
  assertNoOtherChildren(
    parentPath,
    (await childrenOfVhd(parentPath, files)).filter((other) => other !== resolve(path)),
  );
  assertNoOtherChildren(path, await childrenOfVhd(path, files));
  const parentSize = (await inspectVhd(parentPath, files)).virtualSize;
  if (parentSize < image.virtualSize) await resizeVhd(parentPath, files, { size: image.virtualSize });
  const child = await openVhd(path, files, { ...options, readOnly: true });
  try {
    const parent = await openVhd(parentPath, files, { ...options, readOnly: false });
    try {
      await copyOwnRuns(child, parent, options);
    } finally {
      await parent.close();
    }
  } finally {
    await child.close();
  }
  await stampParent(parentPath, files, options.clock);
  if (options.keepChild !== true) {
    await files.remove(path);
    await files.syncFolder(dirname(resolve(path)));
  }
  return parentPath;
}

/** The differencing disks in the folder of a disk that name it as their parent. */
export async function childrenOfVhd(path: string, files: Files): Promise<string[]> {
  const { uniqueId } = (await inspectVhd(path, files)).footer;
  const folder = dirname(resolve(path));
  const children: string[] = [];
  for (const name of await files.list(folder)) {
    if (!/\.a?vhd$/i.test(name)) continue;
    const image = await inspectVhd(join(folder, name), files).catch(nullIfMalformed);
    if (image?.variant === 'differencing' && image.sparse!.header.parentUniqueId === uniqueId)
      children.push(join(folder, name));
  }
  return children;
}

/** A new time in the footer, so that a check of a forgotten child can tell that its parent has changed. */
async function stampParent(path: string, files: Files, clock: Pick<Clock, 'now'>): Promise<void> {
  const file = await files.open(path, 'write');
  try {
    const image = await readVhd(file);
    if (image.sparse === null) return;
    const used = layout(usedRanges(image, image.sparse), 0);
    if ('overlap' in used) return;
    await writeFooters(file, used.end, { ...image.footer, timestamp: vhdTimestamp(clock.now()) });
  } finally {
    await file.close();
  }
}
