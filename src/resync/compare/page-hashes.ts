/**
 * Short hashes of the pages of a leaf, which are pieces of their tags, and what they find. Pure: the other thread and this one call the same
 * functions. While mending they only locate, and the tag of the leaf proves them afterwards.
 */
import { TAG_BYTES, type TagInto } from './leaf-tags.ts';
import { PAGE_BYTES, SPAN_PAGES } from './tree-shape.ts';

/** After this many rounds a leaf is sent whole, whatever the hashes say. */
export const HASHED_ROUNDS = 3;

/** Plain, since it is sent to another thread. */
export interface PageHashing {
  /** From 0; each uses other bytes. */
  round: number;
  /** Of each page, 1 to 16. */
  bytes: number;
}

/** One hash per page, side by side; zeroes for pages past the end of a short leaf. `pages`: how many a full leaf has. */
export function pageHashes(leaf: Uint8Array, pages: number, hashing: PageHashing, tag: TagInto): Uint8Array {
  const { round, bytes } = hashing;
  const hashes = new Uint8Array(pages * bytes);
  const from = Math.min(round, Math.floor(TAG_BYTES / bytes) - 1) * bytes;
  for (let at = 0, page = 0; at < leaf.length; at += PAGE_BYTES, page++) {
    tag(leaf.subarray(at, at + PAGE_BYTES), whole, 0);
    for (let byte = 0; byte < bytes; byte++) hashes[page * bytes + byte] = whole[from + byte]!;
  }
  return hashes;
}

const whole = new Uint8Array(TAG_BYTES);

/** One bit per page whose two hashes differ, lowest first, one byte for eight pages. */
export function differingMask(ours: Uint8Array, theirs: Uint8Array, hashBytes: number): Uint8Array {
  const pages = theirs.length / hashBytes;
  const mask = new Uint8Array(Math.ceil(pages / SPAN_PAGES));
  for (let page = 0; page < pages; page++) {
    for (let at = page * hashBytes; at < (page + 1) * hashBytes; at++) {
      if (ours[at] === theirs[at]) continue;
      mask[Math.floor(page / SPAN_PAGES)]! |= 1 << (page % SPAN_PAGES);
      break;
    }
  }
  return mask;
}

/** All pages of a leaf of so many bytes. */
function fullMask(leafBytes: number, pages: number): Uint8Array {
  const mask = new Uint8Array(pages / SPAN_PAGES);
  for (let page = 0; page * PAGE_BYTES < leafBytes; page++) mask[Math.floor(page / SPAN_PAGES)]! |= 1 << (page % SPAN_PAGES);
  return mask;
}

/** What one reading of some leaves found, in their order. */
export interface LeafDifferences {
  /** Per leaf one byte for each eight pages. */
  masks: Uint8Array;
  /** Of the whole leaves, as they were read. */
  tags: Uint8Array;
  /** The marked pages, one after another; it lies in the memory that was handed in. */
  payload: Uint8Array;
}

/** Gathers the differences of leaves as they are read. `into`: room for all of their bytes. */
export class DifferenceGatherer {
  readonly #hashing: PageHashing;
  readonly #tag: TagInto;
  readonly #theirs: Uint8Array;
  readonly #into: Uint8Array;
  readonly #masks: Uint8Array;
  readonly #tags: Uint8Array;
  readonly #pages: number;
  #used = 0;

  constructor({ leaves, pages, theirs, hashing, tag, into }: {
    leaves: number; pages: number; theirs: Uint8Array; hashing: PageHashing; tag: TagInto; into: Uint8Array;
  }) {
    this.#pages = pages;
    this.#theirs = theirs;
    this.#hashing = hashing;
    this.#tag = tag;
    this.#into = into;
    this.#masks = new Uint8Array((leaves * pages) / SPAN_PAGES);
    this.#tags = new Uint8Array(leaves * TAG_BYTES);
  }

  /** `index`: of the leaf among those that are gathered; called in their order. */
  add(index: number, leaf: Uint8Array): void {
    const spans = this.#pages / SPAN_PAGES;
    const hashBytes = this.#pages * this.#hashing.bytes;
    const { bytes, round } = this.#hashing;
    const mask = round < HASHED_ROUNDS
      ? differingMask(pageHashes(leaf, this.#pages, this.#hashing, this.#tag), this.#theirs.subarray(index * hashBytes, (index + 1) * hashBytes), bytes)
      : fullMask(leaf.length, this.#pages);
    this.#masks.set(mask, index * spans);
    this.#tag(leaf, this.#tags, index * TAG_BYTES);
    for (let page = 0; page * PAGE_BYTES < leaf.length; page++) {
      if ((mask[Math.floor(page / SPAN_PAGES)]! & (1 << (page % SPAN_PAGES))) === 0) continue;
      const bytes = leaf.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      this.#into.set(bytes, this.#used);
      this.#used += bytes.length;
    }
  }

  found(): LeafDifferences {
    return { masks: this.#masks, tags: this.#tags, payload: this.#into.subarray(0, this.#used) };
  }
}
