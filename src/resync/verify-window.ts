/**
 * What a verify looks at while it holds the replica once: the next stretch of what is left that can be compared in a few minutes. Holes
 * cost nothing, so only data counts.
 */
import type { Extent } from '../disk/virtual-disk.ts';
import { DEFAULT_SHAPE } from './compare/tree-shape.ts';
import type { Range } from './ladder.ts';

/** How long apply is to wait for a window. */
const WINDOW_MS = 300_000;
/** Each window costs a log switch and a round trip. */
const WINDOW_BYTES_MIN = 16 << 20;
/** What the compare looks at as a whole; windows end at such borders. */
const LEAF_BYTES = DEFAULT_SHAPE.leafBytes;

/** By disk id, in order and without overlaps. */
export type DiskRanges = Record<string, Range[]>;

export class WindowSize {
  bytes: number;
  readonly #fixed: boolean;
  readonly #max: number;

  /** `diskBytesPerSec`: as fast as a verify may read. `fixed`: always so many bytes. */
  constructor(diskBytesPerSec: number, fixed?: number) {
    this.#fixed = fixed !== undefined;
    this.#max = fixed ?? Math.max(WINDOW_BYTES_MIN, (diskBytesPerSec / 1000) * WINDOW_MS);
    this.bytes = this.#max;
  }

  /** A whole window took so long: the next one is as large as fits, should disk or link be slower than they may be. */
  learn(ms: number): void {
    if (!this.#fixed) this.bytes = Math.min(this.#max, Math.max(WINDOW_BYTES_MIN, (this.bytes / Math.max(1, ms)) * WINDOW_MS));
  }

  /** False when it cannot be smaller. */
  halve(): boolean {
    if (this.#fixed || this.bytes <= WINDOW_BYTES_MIN) return false;
    this.bytes = Math.max(WINDOW_BYTES_MIN, this.bytes / 2);
    return true;
  }
}

/** The first of what is left with so many bytes of data in it, and the rest. */
export async function takeWindow(
  open: DiskRanges, bytes: number, extentsOf: (diskId: string, range: Range) => AsyncIterable<Extent>,
): Promise<{ window: DiskRanges; rest: DiskRanges }> {
  const [window, rest]: [DiskRanges, DiskRanges] = [{}, {}];
  let left = bytes;
  for (const [diskId, ranges] of Object.entries(open)) {
    for (const range of ranges) {
      const { offset, length } = range;
      const found = left > 0 ? await stretchOf(extentsOf(diskId, range), range, left) : { end: offset, dataBytes: 0 };
      left -= found.dataBytes;
      if (found.end > offset) (window[diskId] ??= []).push({ offset, length: found.end - offset });
      if (found.end < offset + length) (rest[diskId] ??= []).push({ offset: found.end, length: offset + length - found.end });
    }
  }
  return { window, rest };
}

async function stretchOf(extents: AsyncIterable<Extent>, { offset, length }: Range, bytes: number): Promise<{ end: number; dataBytes: number }> {
  let dataBytes = 0;
  for await (const extent of extents) {
    if (extent.kind !== 'data') continue;
    const wanted = bytes - dataBytes;
    // Upwards, so that every window gets further; a stretch that was left by one is whole leaves again.
    const end = Math.ceil((extent.offset + Math.min(wanted, extent.length)) / LEAF_BYTES) * LEAF_BYTES;
    dataBytes += Math.min(wanted, extent.length);
    if (dataBytes >= bytes) return { end: Math.min(end, offset + length), dataBytes };
  }
  return { end: offset + length, dataBytes };
}

/** Both; those of later windows lie behind those of earlier ones. */
export function united(a: DiskRanges, b: DiskRanges): DiskRanges {
  const all: DiskRanges = { ...a };
  for (const [diskId, ranges] of Object.entries(b)) all[diskId] = [...(all[diskId] ?? []), ...ranges];
  return all;
}

export const sumOf = (ranges: DiskRanges): number =>
  Object.values(ranges).reduce((sum, some) => sum + some.reduce((all, { length }) => all + length, 0), 0);

/** Ranges in order, each grown to the leaves that it touches, and joined: the compare looks at whole leaves. */
export function wholeLeaves(ranges: readonly Range[], size: number): Range[] {
  const grown: Range[] = [];
  for (const { offset, length } of ranges) {
    const from = Math.floor(offset / LEAF_BYTES) * LEAF_BYTES;
    const to = Math.min(size, Math.ceil((offset + length) / LEAF_BYTES) * LEAF_BYTES);
    const before = grown.at(-1);
    if (before !== undefined && from <= before.offset + before.length) before.length = Math.max(before.length, to - before.offset);
    else grown.push({ offset: from, length: to - from });
  }
  return grown;
}

/** What of `ranges` lies outside of `without`; both in order and without overlaps. */
export function subtract(ranges: Range[], without: Range[]): Range[] {
  const left: Range[] = [];
  for (const { offset, length } of ranges) {
    let from = offset;
    for (const hole of without) {
      if (hole.offset + hole.length <= from || hole.offset >= offset + length) continue;
      if (hole.offset > from) left.push({ offset: from, length: hole.offset - from });
      from = Math.max(from, hole.offset + hole.length);
    }
    if (from < offset + length) left.push({ offset: from, length: offset + length - from });
  }
  return left;
}

export function intersect(ranges: Range[], others: Range[]): Range[] {
  const common: Range[] = [];
  for (const { offset, length } of ranges) {
    for (const other of others) {
      const from = Math.max(offset, other.offset);
      const to = Math.min(offset + length, other.offset + other.length);
      if (from < to) common.push({ offset: from, length: to - from });
    }
  }
  return common;
}
