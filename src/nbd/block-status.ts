/** `base:allocation` of a range: the extents of an export as the descriptors of one BLOCK_STATUS chunk. */
import { NBD_STATE, type NbdStatusExtent } from '../disk/nbd/protocol.ts';
import type { NbdExport } from './export.ts';

/** 64 KiB of descriptors. A client that gets fewer than it asked for asks again. */
const DESCRIPTORS_MAX = 8192;

/**
 * At least one descriptor, neighbours differ, and their sum is at most `length`. Rejects when the export names no
 * extent at all.
 */
export async function statusExtents(
  target: Pick<NbdExport, 'extents'>, offset: number, length: number, onlyOne: boolean,
): Promise<NbdStatusExtent[]> {
  const found: NbdStatusExtent[] = [];
  let left = length;
  for await (const extent of target.extents(offset, length)) {
    const flags = extent.kind === 'zero' ? NBD_STATE.HOLE | NBD_STATE.ZERO : 0;
    const count = Math.min(extent.length, left);
    const last = found.at(-1);
    if (last?.flags === flags) last.length += count;
    else if (found.length === (onlyOne ? 1 : DESCRIPTORS_MAX)) break;
    else if (count > 0) found.push({ length: count, flags });
    left -= count;
    if (left === 0) break;
  }
  if (found.length === 0) throw new Error(`no extent at ${offset}+${length}`);
  return found;
}
