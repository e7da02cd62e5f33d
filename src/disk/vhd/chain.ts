import type { Files } from '../../model/ports.ts';
import type { DiskFormat, DiskVariant } from '../virtual-disk.ts';
import { ChainGuard, parentOf } from './open.ts';
import type { OpenOptions } from './open.ts';
import { inspectVhd } from './vhd-image.ts';

/** One file of a chain of differencing disks. */
export interface ChainLink {
  path: string;
  format: DiskFormat;
  variant: DiskVariant;
  virtualSize: number;
  /** What a child of this file has to name: the unique id (VHD) or the data write GUID (VHDX); null in formats without. */
  identity: string | null;
  /** What this file names as its parent; null without one. */
  parentIdentity: string | null;
}

/**
 * The chain from the disk at `path` to its base, identities checked.
 * @throws UnderstudyError as `openVhd`
 */
export async function chainOfVhd(
  path: string,
  files: Files,
  options: Pick<OpenOptions, 'allowParentOutside'> = {},
): Promise<ChainLink[]> {
  const links: ChainLink[] = [];
  const guard = new ChainGuard();
  for (let at: string | null = path; at !== null;) {
    await guard.enter(at, files);
    const image = await inspectVhd(at, files);
    const differencing = image.variant === 'differencing';
    links.push({
      path: at,
      format: 'vhd',
      variant: image.variant,
      virtualSize: image.virtualSize,
      identity: image.footer.uniqueId,
      parentIdentity: differencing ? image.sparse!.header.parentUniqueId : null,
    });
    at = differencing ? await parentOf(at, files, image, options) : null;
  }
  return links;
}
