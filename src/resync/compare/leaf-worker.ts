/**
 * The thread behind WorkerHasher: reads with plain blocking reads into one reused buffer and hashes it there. A quarter
 * megabyte at a time stays inside of the processor's cache between the read and the hash.
 *
 * It knows no format: of a raw disk a leaf lies at its own offset; of any other one each job says where, for as long as
 * it takes.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { blake3 } from '@napi-rs/blake-hash';

const PAGE_BYTES = 4096;
const DIGEST_BYTES = 32;

export interface LeafWorkerData {
  /** One for a raw disk; else those that jobs speak of. */
  paths: readonly string[];
  virtualSize: number;
  leafBytes: number;
}

/**
 * `leaves` lists leaf numbers of the disk; the answer holds one digest, or one per page, for each in that order. `places`:
 * where their bytes are, what they do not name reads as zeroes: for each leaf the count of its runs, then for each run
 * the file's index, the position in the file, the offset in the leaf and the length.
 */
export type LeafJob =
  | { id: number; kind: 'leaves' | 'pages'; leaves: Uint32Array; places: Float64Array | null }
  | { kind: 'close' };
export type LeafAnswer = { id: number; digests: Uint8Array } | { id: number; failed: string; errno: string };

const { paths, virtualSize, leafBytes } = workerData as LeafWorkerData;
const files = paths.map((path) => openSync(path, 'r'));
const buffer = Buffer.allocUnsafeSlow(leafBytes);
const zeroes = Buffer.alloc(leafBytes);
const zeroDigest = blake3(zeroes);

/** Reads the leaves of a job one after another. */
class LeafReader {
  readonly #places: Float64Array | null;
  #at = 0;

  constructor(places: Float64Array | null) {
    this.#places = places;
  }

  read(leaf: number): Buffer {
    const offset = leaf * leafBytes;
    const length = Math.min(leafBytes, virtualSize - offset);
    if (this.#places === null) readFully(0, offset, buffer.subarray(0, length));
    else this.#readPlaces(this.#places, buffer.subarray(0, length));
    return buffer.subarray(0, length);
  }

  #readPlaces(places: Float64Array, into: Buffer): void {
    const count = places[this.#at++]!;
    // One run of the whole leaf, as most are, leaves nothing to be zeroed.
    if (count !== 1 || places[this.#at + 3] !== into.length) into.fill(0);
    for (let left = count; left > 0; left--) {
      const [file, position, at, length] = places.subarray(this.#at, this.#at + 4);
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

function digestLeaves(leaves: Uint32Array, reader: LeafReader): Uint8Array {
  const digests = new Uint8Array(leaves.length * DIGEST_BYTES);
  for (let index = 0; index < leaves.length; index++) {
    const bytes = reader.read(leaves[index]!);
    digests.set(bytes.length === leafBytes && bytes.equals(zeroes) ? zeroDigest : blake3(bytes), index * DIGEST_BYTES);
  }
  return digests;
}

function digestPages(leaves: Uint32Array, reader: LeafReader): Uint8Array {
  const perLeaf = (leafBytes / PAGE_BYTES) * DIGEST_BYTES;
  const digests = new Uint8Array(leaves.length * perLeaf);
  for (let index = 0; index < leaves.length; index++) {
    const bytes = reader.read(leaves[index]!);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
      digests.set(blake3(bytes.subarray(at, at + PAGE_BYTES)), index * perLeaf + (at / PAGE_BYTES) * DIGEST_BYTES);
    }
  }
  return digests;
}

function answer(job: Exclude<LeafJob, { kind: 'close' }>): LeafAnswer {
  try {
    const reader = new LeafReader(job.places);
    return { id: job.id, digests: job.kind === 'leaves' ? digestLeaves(job.leaves, reader) : digestPages(job.leaves, reader) };
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return { id: job.id, failed: error instanceof Error ? error.message : String(error), errno };
  }
}

parentPort!.on('message', (job: LeafJob) => {
  if (job.kind === 'close') {
    for (const file of files) closeSync(file);
    parentPort!.close();
    return;
  }
  const result = answer(job);
  parentPort!.postMessage(result, 'digests' in result ? [result.digests.buffer as ArrayBuffer] : []);
});
