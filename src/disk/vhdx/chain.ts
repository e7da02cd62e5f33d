import type { Files } from '../../model/ports.ts';
import type { ChainLink } from '../vhd/chain.ts';
import { ChainGuard } from '../vhd/open.ts';
import { inspectVhdx, parentOf } from './open.ts';
import type { OpenOptions } from './open.ts';

/**
 * The chain from the disk at `path` to its base, identities checked.
 * @throws UnderstudyError as `openVhdx`
 */
export async function chainOfVhdx(
  path: string,
  files: Files,
  options: Pick<OpenOptions, 'allowParentOutside'> = {},
): Promise<ChainLink[]> {
  const links: ChainLink[] = [];
  const guard = new ChainGuard();
  for (let at: string | null = path; at !== null;) {
    await guard.enter(at, files);
    const image = await inspectVhdx(at, files);
    links.push({
      path: at,
      format: 'vhdx',
      variant: image.variant,
      virtualSize: image.parameters.virtualSize,
      identity: image.header.dataWriteGuid,
      parentIdentity: image.parentLocator?.linkage ?? null,
    });
    at = image.parentLocator === null ? null : await parentOf(at, files, image, options);
  }
  return links;
}
