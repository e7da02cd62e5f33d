/**
 * Tags of leaves and short hashes of their pages, read from a disk. Holes are known from the disk's extents and are never read;
 * leaves of zeroes have one constant tag. Two implementations give the same answers: this one, over any
 * VirtualDisk, and worker-hasher.ts, which reads raw files off the main thread.
 */
import type { Extent, VirtualDisk } from '../../disk/virtual-disk.ts';
import { isZero } from '../../model/zero-bytes.ts';
import type { TagList } from './digest-tree.ts';
import { TAG_BYTES, type TagInto, leafTagger } from './leaf-tags.ts';
import { DifferenceGatherer, type LeafDifferences, type PageHashing, pageHashes } from './page-hashes.ts';
import { type TreeShape, pagesPerLeaf } from './tree-shape.ts';

/** Awaited with the bytes about to be read, so that a share of the disk and the guest's own I/O can be honoured. */
export type Pace = (bytes: number) => Promise<void> | void;

/** Fills `into` from the disk; the tracker's read takes turns with guest writes. */
export type ReadSpan = (into: Uint8Array, offset: number) => Promise<void> | void;

export interface LeafHasher {
  /** One tag for each of the leaves `[first, first + count)` of the disk. */
  leaves(first: number, count: number): Promise<TagList>;
  /** The short hashes of all pages of each of these leaves, side by side. */
  pages(leaves: readonly number[], hashing: PageHashing): Promise<Uint8Array>;
  /**
   * The pages of these leaves whose hashes are not `theirs`: masks, tags and bytes are of one and the same reading of each leaf. `into` has
   * room for all of their bytes, is given away until the promise resolves, and comes back as the memory of `payload`.
   */
  differing(leaves: readonly number[], theirs: Uint8Array, hashing: PageHashing, into: ArrayBuffer): Promise<LeafDifferences>;
  close(): Promise<void>;
}

/** Several leaves per read, so that one system call or message is not felt. */
export const READ_BYTES = 1024 * 1024;

export const leafLength = (leaf: number, shape: TreeShape, virtualSize: number): number =>
  Math.min(shape.leafBytes, virtualSize - leaf * shape.leafBytes);

export interface DataRuns {
  /** Runs of leaves that hold data. */
  leaves: [first: number, count: number][];
  /** Where in them it lies, bytes of the disk, in order and apart; what is between two of them reads as zeroes. */
  data: { offset: number; length: number }[];
}

/** What of `[first, first + count)` holds data; everything else reads as zeroes. */
export async function dataRuns(
  disk: Pick<VirtualDisk, 'extents' | 'virtualSize'>,
  first: number,
  count: number,
  leafBytes: number,
): Promise<DataRuns> {
  const offset = first * leafBytes;
  const end = Math.min(disk.virtualSize, (first + count) * leafBytes);
  const leaves: DataRuns['leaves'] = [];
  const data: DataRuns['data'] = [];
  const extents: AsyncIterable<Extent> = disk.extents(offset, end - offset);
  for await (const extent of extents) {
    if (extent.kind === 'zero' || extent.length === 0) continue;
    const before = data.at(-1);
    if (before !== undefined && before.offset + before.length === extent.offset) before.length += extent.length;
    else data.push({ offset: extent.offset, length: extent.length });
    const from = Math.max(first, Math.floor(extent.offset / leafBytes));
    const to = Math.min(first + count, Math.ceil((extent.offset + extent.length) / leafBytes));
    const last = leaves.at(-1);
    if (last !== undefined && from <= last[0] + last[1]) last[1] = Math.max(last[1], to - last[0]);
    else leaves.push([from, to - from]);
  }
  return { leaves, data };
}

/** The constant tags of zeroes: of a full leaf, and of the last leaf of a disk. */
export class ZeroTags {
  readonly #tag: TagInto;
  readonly #known = new Map<number, Uint8Array>();

  constructor(tag: TagInto) {
    this.#tag = tag;
  }

  of(length: number): Uint8Array {
    const known = this.#known.get(length);
    if (known !== undefined) return known;
    const fresh = new Uint8Array(TAG_BYTES);
    this.#tag(new Uint8Array(length), fresh, 0);
    this.#known.set(length, fresh);
    return fresh;
  }
}

export interface HasherOptions {
  shape: TreeShape;
  /** Of the tags of this compare. */
  key: Uint8Array;
  pace?: Pace;
  /** Default: the disk's own read. */
  read?: ReadSpan;
}

/** Reads the next megabyte while it hashes the last one. */
export class InThreadHasher implements LeafHasher {
  readonly #disk: VirtualDisk;
  readonly #shape: TreeShape;
  readonly #tag: TagInto;
  readonly #pace: Pace;
  readonly #read: ReadSpan;
  readonly #zeroes: ZeroTags;

  constructor(disk: VirtualDisk, { shape, key, pace, read }: HasherOptions) {
    this.#disk = disk;
    this.#shape = shape;
    this.#tag = leafTagger(key);
    this.#pace = pace ?? (() => {});
    this.#read = read ?? ((into, offset) => disk.read(into, offset));
    this.#zeroes = new ZeroTags(this.#tag);
  }

  async leaves(first: number, count: number): Promise<TagList> {
    const tags = new Uint8Array(count * TAG_BYTES);
    const { leaves: runs } = await dataRuns(this.#disk, first, count, this.#shape.leafBytes);
    const data = new Set(runs.flatMap(([from, length]) => Array.from({ length }, (_, index) => from + index)));
    for (let index = 0; index < count; index++) {
      if (!data.has(first + index)) tags.set(this.#zeroes.of(this.#length(first + index)), index * TAG_BYTES);
    }
    await this.#eachChunk(runs, (leaf, bytes) => {
      if (isZero(bytes)) tags.set(this.#zeroes.of(bytes.length), (leaf - first) * TAG_BYTES);
      else this.#tag(bytes, tags, (leaf - first) * TAG_BYTES);
    });
    return tags;
  }

  async pages(leaves: readonly number[], hashing: PageHashing): Promise<Uint8Array> {
    const pages = pagesPerLeaf(this.#shape);
    const hashes = new Uint8Array(leaves.length * pages * hashing.bytes);
    for (const [index, leaf] of leaves.entries()) {
      hashes.set(pageHashes(await this.#readChunk([leaf, 1]), pages, hashing, this.#tag), index * pages * hashing.bytes);
    }
    return hashes;
  }

  async differing(leaves: readonly number[], theirs: Uint8Array, hashing: PageHashing, into: ArrayBuffer): Promise<LeafDifferences> {
    const pages = pagesPerLeaf(this.#shape);
    const gatherer = new DifferenceGatherer({ leaves: leaves.length, pages, theirs, hashing, tag: this.#tag, into: new Uint8Array(into) });
    for (const [index, leaf] of leaves.entries()) gatherer.add(index, await this.#readChunk([leaf, 1]));
    return gatherer.found();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #eachChunk(runs: readonly [number, number][], visit: (leaf: number, bytes: Uint8Array) => void): Promise<void> {
    const { leafBytes } = this.#shape;
    const perRead = Math.max(1, READ_BYTES / leafBytes);
    const chunks = runs.flatMap(([from, count]) => {
      const pieces: [number, number][] = [];
      for (let at = 0; at < count; at += perRead) pieces.push([from + at, Math.min(perRead, count - at)]);
      return pieces;
    });
    let ahead = chunks[0] === undefined ? null : this.#readChunk(chunks[0]);
    for (const [index, [leaf]] of chunks.entries()) {
      const bytes = await ahead!;
      const following = chunks[index + 1];
      ahead = following === undefined ? null : this.#readChunk(following);
      for (let at = 0; at < bytes.length; at += leafBytes)
        visit(leaf + at / leafBytes, bytes.subarray(at, at + leafBytes));
    }
  }

  async #readChunk([leaf, count]: [number, number]): Promise<Uint8Array> {
    const { leafBytes } = this.#shape;
    const offset = leaf * leafBytes;
    const bytes = Buffer.allocUnsafe(Math.min(count * leafBytes, this.#disk.virtualSize - offset));
    await this.#pace(bytes.length);
    await this.#read(bytes, offset);
    return bytes;
  }

  #length(leaf: number): number {
    return leafLength(leaf, this.#shape, this.#disk.virtualSize);
  }
}
