/**
 * The shape of the digest tree, from coarse to fine:
 *
 *   group (1 to 16 segments) → segment (64 nodes, 256 MiB) → node (64 leaves, 4 MiB) → leaf (64 KiB) → page (4 KiB)
 *
 * A leaf that differs is read again, so small leaves make scattered differences cheap; but a tag costs half a microsecond of calls beside the
 * 2.4 that it takes for 64 KiB.
 *
 * Everything below is counted in *positions*: the selected leaves of a disk, numbered from 0 without gaps (see
 * selection.ts). Memory is bounded by segments and windows, never by the size of the disk.
 */

export const PAGE_BYTES = 4096;
export const NODE_LEAVES = 64;
/** Bits of one byte of a page mask. */
export const SPAN_PAGES = 8;
/** BLAKE3, of nodes, segments, groups and proofs. Zero bytes stand for "no such leaf or node" past the end of the disk. */
export const DIGEST_BYTES = 32;

export interface TreeShape {
  /** 32 KiB to 256 KiB, a power of two. */
  leafBytes: number;
  /** Nodes of one segment, 1 to 64. */
  segmentNodes: number;
}

export const DEFAULT_SHAPE: TreeShape = { leafBytes: 64 * 1024, segmentNodes: 64 };

/** A group grows while nothing differs, so that equal disks cost a few hundred bytes; 16 segments are 4 GiB. */
export const GROUP_SEGMENTS_MAX = 16;
/**
 * How far a side may scan ahead of what is settled, so that a round trip of 600 ms idles no disk. 32 segments are 8
 * GiB.
 */
export const SEGMENT_WINDOW = 2 * GROUP_SEGMENTS_MAX;
/** Leaves opened and not yet proven, as many bytes of the disk; of each its short page hashes are kept. */
export const OPEN_BYTES = 256 * 1024 * 1024;
/** Leaves of one question for page hashes. */
export const LEAF_BATCH = 64;
/** Page payload of one mend message before compression, and so the largest frame but for its header. */
export const MEND_BYTES = 1024 * 1024;
/** Mend messages sent and not yet proven. */
export const MEND_WINDOW = 64;

export const pagesPerLeaf = (shape: TreeShape): number => shape.leafBytes / PAGE_BYTES;
export const spansPerLeaf = (shape: TreeShape): number => pagesPerLeaf(shape) / SPAN_PAGES;
export const leafWindow = (shape: TreeShape): number => OPEN_BYTES / shape.leafBytes;
export const segmentLeaves = (shape: TreeShape): number => shape.segmentNodes * NODE_LEAVES;

/** Why a shape named by the other side cannot be used, or null. */
export function shapeRefusal(shape: TreeShape): string | null {
  const { leafBytes, segmentNodes } = shape;
  const leafOk =
    Number.isInteger(Math.log2(leafBytes)) && leafBytes >= SPAN_PAGES * PAGE_BYTES && leafBytes <= 64 * PAGE_BYTES;
  if (!leafOk) return `leaves of ${leafBytes} bytes, expected a power of two from 32768 to 262144`;
  if (segmentNodes < 1 || segmentNodes > 64) return `segments of ${segmentNodes} nodes, expected 1 to 64`;
  return null;
}
