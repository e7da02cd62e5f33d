/**
 * Folding digests and comparing short pieces of them. Pure but for the digest function that is handed in.
 *
 * Short hashes only *locate* differences; they prove nothing. What they judge equal is proven afterwards by a full
 * digest, and when that proof fails the next *round* uses the next bytes of the same digests.
 */
import { DIGEST_BYTES, NODE_LEAVES, type TreeShape, segmentLeaves } from './tree-shape.ts';

export type Digest = (data: Uint8Array) => Uint8Array;

/** The same, into memory that is there already. */
export type DigestInto = (data: Uint8Array, into: Buffer, at: number) => void;

/** Digests side by side, 32 bytes each. */
export type DigestList = Uint8Array;

export interface SegmentTree {
  leaves: DigestList;
  nodes: DigestList;
  root: Uint8Array;
}

export const digestAt = (list: DigestList, index: number): Uint8Array =>
  list.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);

/** `leaves` holds one digest per leaf of a full segment, zeroes where the selection has ended. */
export function growSegment(leaves: DigestList, shape: TreeShape, digest: Digest): SegmentTree {
  if (leaves.length !== segmentLeaves(shape) * DIGEST_BYTES)
    throw new RangeError(`${leaves.length} bytes of leaf digests`);
  const nodes = foldEach(leaves, NODE_LEAVES, digest);
  return { leaves, nodes, root: digest(nodes) };
}

/** One digest over each `width` neighbours of the list. */
function foldEach(list: DigestList, width: number, digest: Digest): DigestList {
  const step = width * DIGEST_BYTES;
  const folded = new Uint8Array((list.length / step) * DIGEST_BYTES);
  for (let at = 0; at < list.length; at += step)
    folded.set(digest(list.subarray(at, at + step)), (at / step) * DIGEST_BYTES);
  return folded;
}

/** How many rounds a hash width allows before the digest has no unused bytes left. */
export const roundsOf = (hashBytes: number): number => Math.floor(DIGEST_BYTES / hashBytes);

/** Bytes `[round × width, (round + 1) × width)` of each digest of the list. */
export function shortHashes(list: DigestList, hashBytes: number, round: number): Uint8Array {
  const count = list.length / DIGEST_BYTES;
  const hashes = new Uint8Array(count * hashBytes);
  for (let index = 0; index < count; index++) {
    const from = index * DIGEST_BYTES + round * hashBytes;
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
 * The digest over all leaves of a group but the listed ones: the proof that what the short hashes judged equal is
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
  for (const index of excluded) rest.fill(0, index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
  if (rest.length !== trees.length * perSegment * DIGEST_BYTES) throw new RangeError('a segment tree of another shape');
  return digest(rest);
}

export const groupRoot = (trees: readonly SegmentTree[], digest: Digest): Uint8Array =>
  digest(Buffer.concat(trees.map((tree) => tree.root)));
