/**
 * Short hashes of the pages of a leaf, and what they find. Pure: the other thread and this one call the same functions.
 *
 * They locate and prove nothing; while mending, the digest of the leaf proves them afterwards. So the first round may take what is
 * fastest, a CRC-32: that two pages have the same by chance costs a second round, that somebody made them so does too. Later rounds, and
 * a compare that is followed by no proof, use BLAKE3.
 */
import { crc32 } from 'node:zlib';
import type { DigestInto } from './digest-tree.ts';
import { DIGEST_BYTES, PAGE_BYTES, SPAN_PAGES } from './tree-shape.ts';

const CRC_BYTES = 4;
/** After this many rounds a leaf is sent whole, whatever the hashes say. */
export const HASHED_ROUNDS = 3;

/** Plain, since it is sent to another thread. */
export interface PageHashing {
  /** From 0; each uses other bytes. */
  round: number;
  /** Of each page, 1 to 16. */
  bytes: number;
  /** A digest of the leaf proves afterwards what they find. */
  proven: boolean;
}

/** One hash per page, side by side; zeroes for pages past the end of a short leaf. `pages`: how many a full leaf has. */
export function pageHashes(leaf: Uint8Array, pages: number, hashing: PageHashing, digest: DigestInto): Uint8Array {
  const { bytes } = hashing;
  const hashes = new Uint8Array(pages * bytes);
  for (let at = 0, page = 0; at < leaf.length; at += PAGE_BYTES, page++) {
    writeHash(hashes, page * bytes, leaf.subarray(at, at + PAGE_BYTES), hashing, digest);
  }
  return hashes;
}

const whole = Buffer.alloc(DIGEST_BYTES);

function writeHash(into: Uint8Array, at: number, page: Uint8Array, { round, bytes, proven }: PageHashing, digest: DigestInto): void {
  if (proven && round === 0 && bytes <= CRC_BYTES) {
    const sum = crc32(page);
    for (let byte = 0; byte < bytes; byte++) into[at + byte] = sum >>> (8 * byte);
    return;
  }
  const from = Math.min(round, Math.floor(DIGEST_BYTES / bytes) - 1) * bytes;
  digest(page, whole, 0);
  into.set(whole.subarray(from, from + bytes), at);
}

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
  digests: Uint8Array;
  /** The marked pages, one after another; it lies in the memory that was handed in. */
  payload: Uint8Array;
}

/** Gathers the differences of leaves as they are read. `into`: room for all of their bytes. */
export class DifferenceGatherer {
  readonly #hashing: PageHashing;
  readonly #digest: DigestInto;
  readonly #theirs: Uint8Array;
  readonly #into: Uint8Array;
  readonly #masks: Uint8Array;
  readonly #digests: Buffer;
  readonly #pages: number;
  #used = 0;

  constructor({ leaves, pages, theirs, hashing, digest, into }: {
    leaves: number; pages: number; theirs: Uint8Array; hashing: PageHashing; digest: DigestInto; into: Uint8Array;
  }) {
    this.#pages = pages;
    this.#theirs = theirs;
    this.#hashing = hashing;
    this.#digest = digest;
    this.#into = into;
    this.#masks = new Uint8Array((leaves * pages) / SPAN_PAGES);
    this.#digests = Buffer.alloc(leaves * DIGEST_BYTES);
  }

  /** `index`: of the leaf among those that are gathered; called in their order. */
  add(index: number, leaf: Uint8Array): void {
    const spans = this.#pages / SPAN_PAGES;
    const hashBytes = this.#pages * this.#hashing.bytes;
    const { bytes, round } = this.#hashing;
    const mask = round < HASHED_ROUNDS
      ? differingMask(pageHashes(leaf, this.#pages, this.#hashing, this.#digest), this.#theirs.subarray(index * hashBytes, (index + 1) * hashBytes), bytes)
      : fullMask(leaf.length, this.#pages);
    this.#masks.set(mask, index * spans);
    this.#digest(leaf, this.#digests, index * DIGEST_BYTES);
    for (let page = 0; page * PAGE_BYTES < leaf.length; page++) {
      if ((mask[Math.floor(page / SPAN_PAGES)]! & (1 << (page % SPAN_PAGES))) === 0) continue;
      const bytes = leaf.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      this.#into.set(bytes, this.#used);
      this.#used += bytes.length;
    }
  }

  found(): LeafDifferences {
    return { masks: this.#masks, digests: this.#digests, payload: this.#into.subarray(0, this.#used) };
  }
}
