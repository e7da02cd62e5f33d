/**
 * Folding digests and comparing short pieces of them. Pure but for the digest function that is handed in.
 *
 * Short hashes only *locate* differences; they prove nothing. What they judge equal is proven afterwards by a full
 * digest, and when that proof fails the next *round* uses the next bytes of the same tags and digests.
 */
import { TAG_BYTES } from './leaf-tags.ts';
import { DIGEST_BYTES, NODE_LEAVES, type TreeShape, segmentLeaves } from './tree-shape.ts';

export type Digest = (data: Uint8Array) => Uint8Array;

/** Digests side by side, 32 bytes each. */
export type DigestList = Uint8Array;

/** Tags of leaves side by side, 16 bytes each. */
export type TagList = Uint8Array;

export interface SegmentTree {
  leaves: TagList;
  nodes: DigestList;
  root: Uint8Array;
}

/** Whether the tag at this index is the given one. */
export function isTag(list: TagList, index: number, tag: Uint8Array): boolean {
  for (let byte = 0; byte < TAG_BYTES; byte++) if (list[index * TAG_BYTES + byte] !== tag[byte]) return false;
  return true;
}

/** `leaves` holds one tag per leaf of a full segment, zeroes where the selection has ended. */
export function growSegment(leaves: TagList, shape: TreeShape, digest: Digest): SegmentTree {
  if (leaves.length !== segmentLeaves(shape) * TAG_BYTES)
    throw new RangeError(`${leaves.length} bytes of leaf tags`);
  const nodes = foldEach(leaves, NODE_LEAVES, digest);
  return { leaves, nodes, root: digest(nodes) };
}

/** One digest over each `width` neighbours of the list. */
function foldEach(list: TagList, width: number, digest: Digest): DigestList {
  const step = width * TAG_BYTES;
  const folded = new Uint8Array((list.length / step) * DIGEST_BYTES);
  for (let at = 0; at < list.length; at += step)
    folded.set(digest(list.subarray(at, at + step)), (at / step) * DIGEST_BYTES);
  return folded;
}

/** How many rounds a hash width allows before a tag has no unused bytes left. */
export const roundsOf = (hashBytes: number): number => Math.floor(TAG_BYTES / hashBytes);

/** Bytes `[round × width, (round + 1) × width)` of each tag or digest of the list, which have `itemBytes` each. */
export function shortHashes(list: TagList | DigestList, itemBytes: number, hashBytes: number, round: number): Uint8Array {
  const count = list.length / itemBytes;
  const hashes = new Uint8Array(count * hashBytes);
  for (let index = 0; index < count; index++) {
    const from = index * itemBytes + round * hashBytes;
    hashes.set(list.subarray(from, from + hashBytes), index * hashBytes);
  }
  return hashes;
}

/** Indexes at which two equally long lists of short hashes differ. */
export function differingIndexes(ours: Uint8Array, theirs: Uint8Array, hashBytes: number): number[] {
  const found: number[] = [];
  for (let index = 0; index * hashBytes < ours.length; index++) {
    const at = index * hashBytes;
    for (let byte = 0; byte < hashBytes; byte++) {
      if (ours[at + byte] === theirs[at + byte]) continue;
      found.push(index);
      break;
    }
  }
  return found;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/**
 * The digest over the tags of all leaves of a group but the listed ones: the proof that what the short hashes judged equal is
 * equal. `excluded` holds indexes within the group, ascending.
 */
export function restProof(
  trees: readonly SegmentTree[],
  excluded: readonly number[],
  shape: TreeShape,
  digest: Digest,
): Uint8Array {
  const perSegment = segmentLeaves(shape);
  const rest = Buffer.concat(trees.map((tree) => tree.leaves));
  for (const index of excluded) rest.fill(0, index * TAG_BYTES, (index + 1) * TAG_BYTES);
  if (rest.length !== trees.length * perSegment * TAG_BYTES) throw new RangeError('a segment tree of another shape');
  return digest(rest);
}

export const groupRoot = (trees: readonly SegmentTree[], digest: Digest): Uint8Array =>
  digest(Buffer.concat(trees.map((tree) => tree.root)));
