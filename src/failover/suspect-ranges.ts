/** Ranges of several disks as bytes for the link: 16 bytes each, and never more than the link takes. Pure. */
import type { Range } from '../tracking/change-map.ts';
import { SUSPECT_RANGES_MAX } from './direction-messages.ts';

export type RangesByDisk = Map<string, Range[]>;

/*
 *  offset  size  field    one range, little-endian
 *       0     8  offset   bytes
 *       8     8  length   bytes
 */
const RANGE_BYTES = 16;

/** Coarser where there are too many: ranges may grow, none gets lost. */
export function encodeRanges(byDisk: RangesByDisk): { disks: { diskId: string; ranges: number }[]; payload: Buffer } {
  const limit = Math.floor(SUSPECT_RANGES_MAX / Math.max(1, byDisk.size));
  const kept = [...byDisk].map(([diskId, ranges]) => ({ diskId, ranges: atMost(ranges, limit) }));
  const payload = Buffer.alloc(kept.reduce((sum, { ranges }) => sum + ranges.length, 0) * RANGE_BYTES);
  let at = 0;
  for (const { ranges } of kept) {
    for (const { offset, length } of ranges) {
      payload.writeBigUInt64LE(BigInt(offset), at);
      payload.writeBigUInt64LE(BigInt(length), at + 8);
      at += RANGE_BYTES;
    }
  }
  return { disks: kept.map(({ diskId, ranges }) => ({ diskId, ranges: ranges.length })), payload };
}

/** Null when the bytes are not what `disks` announces. */
export function decodeRanges(disks: readonly { diskId: string; ranges: number }[], payload: Buffer): RangesByDisk | null {
  if (payload.length !== disks.reduce((sum, { ranges }) => sum + ranges, 0) * RANGE_BYTES) return null;
  const byDisk: RangesByDisk = new Map();
  let at = 0;
  for (const { diskId, ranges } of disks) {
    const found: Range[] = [];
    for (let index = 0; index < ranges; index++, at += RANGE_BYTES) {
      found.push({ offset: Number(payload.readBigUInt64LE(at)), length: Number(payload.readBigUInt64LE(at + 8)) });
    }
    byDisk.set(diskId, found);
  }
  return byDisk;
}

/** In order of offset; neighbours are joined until there are few enough. */
function atMost(ranges: Range[], limit: number): Range[] {
  const joined: Range[] = [];
  const group = Math.ceil(ranges.length / limit);
  for (let index = 0; index < ranges.length; index += group) {
    const last = ranges[Math.min(index + group, ranges.length) - 1]!;
    joined.push({ offset: ranges[index]!.offset, length: last.offset + last.length - ranges[index]!.offset });
  }
  return joined;
}
