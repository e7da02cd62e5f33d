/** From a disk to the digest tree of one segment of the selection. */
import { type Digest, type SegmentTree, growSegment } from './digest-tree.ts';
import type { LeafHasher } from './leaf-hasher.ts';
import { TAG_BYTES } from './leaf-tags.ts';
import type { Selection } from './selection.ts';
import { type TreeShape, segmentLeaves } from './tree-shape.ts';

export const segmentCount = (selection: Selection, shape: TreeShape): number =>
  Math.ceil(selection.count / segmentLeaves(shape));

/** Positions of segment number `segment`: the last one may be shorter. */
export function segmentPositions(
  segment: number,
  selection: Selection,
  shape: TreeShape,
): { first: number; count: number } {
  const first = segment * segmentLeaves(shape);
  return { first, count: Math.min(segmentLeaves(shape), selection.count - first) };
}

export async function scanSegment(
  segment: number,
  { selection, shape, hasher, digest }: { selection: Selection; shape: TreeShape; hasher: LeafHasher; digest: Digest },
): Promise<SegmentTree> {
  const leaves = new Uint8Array(segmentLeaves(shape) * TAG_BYTES);
  const { first, count } = segmentPositions(segment, selection, shape);
  for (const run of selection.runsOf(first, count)) {
    leaves.set(await hasher.leaves(run.leaf, run.count), (run.position - first) * TAG_BYTES);
  }
  return growSegment(leaves, shape, digest);
}
