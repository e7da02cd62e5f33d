/**
 * The thread behind WorkerHasher: reads with plain blocking reads into one reused buffer and hashes it there. A quarter
 * megabyte at a time stays inside of the processor's cache between the read and the hash.
 *
 * It knows no format: of a raw disk a leaf lies at its own offset; of any other one each job says where, for as long as
 * it takes.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { blake3, blake3UrlSafeBase64 } from '@napi-rs/blake-hash';
import { DifferenceGatherer, type LeafDifferences, type PageHashing, pageHashes } from './page-hashes.ts';
import { DIGEST_BYTES, PAGE_BYTES } from './tree-shape.ts';

const NICE = 10;

export interface LeafWorkerData {
  /** One for a raw disk; else those that jobs speak of. */
  paths: readonly string[];
  virtualSize: number;
  leafBytes: number;
  /** At most so many leaves are one stretch. */
  stretchLeaves: number;
}

/**
 * `stretches`: pairs of first leaf and count, in the order of the answer. `places`: where their bytes are, what they do not name reads as
 * zeroes: for each stretch the count of its runs, then for each run the file's index, the position in the file, the
 * offset in the stretch and the length.
 */
export interface LeafJob {
  id: number;
  stretches: Uint32Array;
  places: Float64Array | null;
  ask: { kind: 'leaves' } | { kind: 'pages'; hashing: PageHashing }
    | { kind: 'differing'; hashing: PageHashing; theirs: Uint8Array; into: ArrayBuffer };
}
/** Digests, page hashes, or what differs. */
export type LeafResult = Uint8Array | LeafDifferences;
export type LeafAnswer = { id: number; result: LeafResult } | { id: number; failed: string; errno: string };

// Of this thread alone: where cores are few, those that serve guests come first.
setPriority(NICE);

const { paths, virtualSize, leafBytes, stretchLeaves } = workerData as LeafWorkerData;
const files = paths.map((path) => openSync(path, 'r'));
const buffer = Buffer.allocUnsafeSlow(stretchLeaves * leafBytes);
const zeroes = Buffer.alloc(leafBytes);
const zeroDigest = blake3(zeroes);
const pages = leafBytes / PAGE_BYTES;

/**
 * The digest as text, since a string is made at half the cost of a Buffer that the native code owns: 1.6 µs less for each (of 16 µs for
 * 64 KiB), and nothing for the collector to give back.
 */
function digestInto(data: Uint8Array, into: Buffer, at: number): void {
  into.write(blake3UrlSafeBase64(data), at, DIGEST_BYTES, 'base64url');
}

/** Visits the leaves of a job in their order, each until the next one. */
function eachLeaf({ stretches, places }: LeafJob, visit: (index: number, bytes: Buffer) => void): void {
  const runs = places === null ? null : new PlacedRuns(places);
  let index = 0;
  for (let at = 0; at < stretches.length; at += 2) {
    const offset = stretches[at]! * leafBytes;
    const length = Math.min(stretches[at + 1]! * leafBytes, virtualSize - offset);
    const bytes = buffer.subarray(0, length);
    if (runs === null) readFully(0, offset, bytes);
    else runs.readNext(bytes);
    for (let from = 0; from < length; from += leafBytes) visit(index++, bytes.subarray(from, Math.min(length, from + leafBytes)));
  }
}

class PlacedRuns {
  readonly #places: Float64Array;
  #at = 0;

  constructor(places: Float64Array) {
    this.#places = places;
  }

  readNext(into: Buffer): void {
    const count = this.#places[this.#at++]!;
    // One run of the whole stretch, as most are, leaves nothing to be zeroed.
    if (count !== 1 || this.#places[this.#at + 3] !== into.length) into.fill(0);
    for (let left = count; left > 0; left--) {
      const [file, position, at, length] = this.#places.subarray(this.#at, this.#at + 4);
      readFully(file!, position!, into.subarray(at!, at! + length!));
      this.#at += 4;
    }
  }
}

function readFully(file: number, position: number, into: Buffer): void {
  for (let done = 0; done < into.length;) {
    const count = readSync(files[file]!, into, done, into.length - done, position + done);
    if (count === 0) {
      throw Object.assign(new Error(`${paths[file]!} ends at byte ${position + done}, inside of the disk`), { code: 'EIO' });
    }
    done += count;
  }
}

function leavesOf({ stretches }: LeafJob): number {
  let leaves = 0;
  for (let at = 1; at < stretches.length; at += 2) leaves += stretches[at]!;
  return leaves;
}

function resultOf(job: LeafJob): LeafResult {
  const { ask } = job;
  const leaves = leavesOf(job);
  if (ask.kind === 'leaves') {
    const digests = Buffer.alloc(leaves * DIGEST_BYTES);
    eachLeaf(job, (index, bytes) => {
      if (bytes.length === leafBytes && bytes.equals(zeroes)) digests.set(zeroDigest, index * DIGEST_BYTES);
      else digestInto(bytes, digests, index * DIGEST_BYTES);
    });
    return digests;
  }
  const { hashing } = ask;
  if (ask.kind === 'pages') {
    const hashes = new Uint8Array(leaves * pages * hashing.bytes);
    eachLeaf(job, (index, bytes) => hashes.set(pageHashes(bytes, pages, hashing, digestInto), index * pages * hashing.bytes));
    return hashes;
  }
  const gatherer = new DifferenceGatherer({ leaves, pages, theirs: ask.theirs, hashing, digest: digestInto, into: new Uint8Array(ask.into) });
  eachLeaf(job, (index, bytes) => gatherer.add(index, bytes));
  return gatherer.found();
}

function answer(job: LeafJob): LeafAnswer {
  try {
    return { id: job.id, result: resultOf(job) };
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return { id: job.id, failed: error instanceof Error ? error.message : String(error), errno };
  }
}

parentPort!.on('message', (job: LeafJob | 'close') => {
  if (job === 'close') {
    for (const file of files) closeSync(file);
    parentPort!.close();
    return;
  }
  const given = answer(job);
  const result = 'result' in given ? given.result : null;
  const lent = result === null ? [] : result instanceof Uint8Array ? [result] : [result.masks, result.digests, result.payload];
  parentPort!.postMessage(given, lent.map(({ buffer: memory }) => memory as ArrayBuffer));
});
