/**
 * The thread behind HashingThread: reads with plain blocking reads into one reused buffer and hashes it there. A quarter
 * megabyte at a time stays inside of the processor's cache between the read and the hash.
 *
 * It knows no format: of a raw disk a leaf lies at its own offset; of any other one each job says where, for as long as
 * it takes. It works for one disk, and after that for the next one.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { LONGEST_SLICE_NS, libc } from '../../disk/libc.ts';
import { TAG_BYTES, type TagInto, leafTagger } from './leaf-tags.ts';
import { DifferenceGatherer, type LeafDifferences, type PageHashing, pageHashes } from './page-hashes.ts';
import { PAGE_BYTES } from './tree-shape.ts';

const NICE = 10;

export interface ThreadDisk {
  /** One for a raw disk; else those that jobs speak of. */
  paths: readonly string[];
  virtualSize: number;
  leafBytes: number;
  /** Of the tags. */
  key: Uint8Array;
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
/** Tags, page hashes, or what differs. */
export type LeafResult = Uint8Array | LeafDifferences;
/** Jobs come between a disk and `close`. */
export type ToThread = { disk: ThreadDisk } | LeafJob | 'close';
export type LeafAnswer = { id: number; result: LeafResult } | { id: number; failed: string; errno: string };

// Of this thread alone: where cores are few, those that serve guests come first, and it is let in when they have had their turn. A long turn is
// what makes way at once: the scheduler interrupts it for whoever asks for a shorter one, and lets one of usual length end first.
setPriority(NICE);
libc().setSlice(LONGEST_SLICE_NS);

class OpenDisk {
  readonly #disk: ThreadDisk;
  readonly #files: number[] = [];
  readonly #buffer: Buffer;
  /** The leaves of a whole stretch; a shorter one has a shorter last leaf. */
  readonly #leaves: Buffer[];
  readonly #tag: TagInto;
  readonly #zeroes: Buffer;
  readonly #zeroTag = new Uint8Array(TAG_BYTES);
  readonly #pages: number;

  constructor(disk: ThreadDisk) {
    const { key, leafBytes, stretchLeaves } = disk;
    this.#disk = disk;
    const buffer = Buffer.allocUnsafeSlow(stretchLeaves * leafBytes);
    this.#buffer = buffer;
    this.#leaves = Array.from({ length: stretchLeaves }, (_, leaf) => buffer.subarray(leaf * leafBytes, (leaf + 1) * leafBytes));
    this.#tag = leafTagger(key);
    this.#zeroes = Buffer.alloc(leafBytes);
    this.#tag(this.#zeroes, this.#zeroTag, 0);
    this.#pages = leafBytes / PAGE_BYTES;
  }

  open(): void {
    for (const path of this.#disk.paths) this.#files.push(openSync(path, 'r'));
  }

  close(): void {
    for (const file of this.#files) closeSync(file);
  }

  resultOf(job: LeafJob): LeafResult {
    const { ask } = job;
    const leaves = leavesOf(job);
    if (ask.kind === 'leaves') {
      const tags = new Uint8Array(leaves * TAG_BYTES);
      this.#eachLeaf(job, (index, bytes) => {
        if (bytes.length === this.#zeroes.length && bytes.equals(this.#zeroes)) tags.set(this.#zeroTag, index * TAG_BYTES);
        else this.#tag(bytes, tags, index * TAG_BYTES);
      });
      return tags;
    }
    const { hashing } = ask;
    const [pages, tag] = [this.#pages, this.#tag];
    if (ask.kind === 'pages') {
      const hashes = new Uint8Array(leaves * pages * hashing.bytes);
      this.#eachLeaf(job, (index, bytes) => hashes.set(pageHashes(bytes, pages, hashing, tag), index * pages * hashing.bytes));
      return hashes;
    }
    const gatherer = new DifferenceGatherer({ leaves, pages, theirs: ask.theirs, hashing, tag, into: new Uint8Array(ask.into) });
    this.#eachLeaf(job, (index, bytes) => gatherer.add(index, bytes));
    return gatherer.found();
  }

  /** Visits the leaves of a job in their order, each until the next one. */
  #eachLeaf({ stretches, places }: LeafJob, visit: (index: number, bytes: Buffer) => void): void {
    const { leafBytes, virtualSize } = this.#disk;
    let [index, place] = [0, 0];
    for (let at = 0; at < stretches.length; at += 2) {
      const offset = stretches[at]! * leafBytes;
      const length = Math.min(stretches[at + 1]! * leafBytes, virtualSize - offset);
      if (places === null) this.#read(0, offset, { at: 0, length });
      else place = this.#readPlaced(places, place, length);
      const whole = Math.floor(length / leafBytes);
      for (let leaf = 0; leaf < whole; leaf++) visit(index++, this.#leaves[leaf]!);
      if (length % leafBytes !== 0) visit(index++, this.#buffer.subarray(whole * leafBytes, length));
    }
  }

  /** Reads a stretch of so many bytes by its runs, which begin at `from` in `places`; returns where those of the next one do. */
  #readPlaced(places: Float64Array, from: number, length: number): number {
    const count = places[from]!;
    // One run of the whole stretch, as most are, leaves nothing to be zeroed.
    if (count !== 1 || places[from + 4] !== length) this.#buffer.fill(0, 0, length);
    let next = from + 1;
    for (; next < from + 1 + 4 * count; next += 4) {
      this.#read(places[next]!, places[next + 1]!, { at: places[next + 2]!, length: places[next + 3]! });
    }
    return next;
  }

  #read(file: number, position: number, { at, length }: { at: number; length: number }): void {
    for (let done = 0; done < length;) {
      const count = readSync(this.#files[file]!, this.#buffer, at + done, length - done, position + done);
      if (count === 0) {
        throw Object.assign(new Error(`${this.#disk.paths[file]!} ends at byte ${position + done}, inside of the disk`), { code: 'EIO' });
      }
      done += count;
    }
  }
}

function leavesOf({ stretches }: LeafJob): number {
  let leaves = 0;
  for (let at = 1; at < stretches.length; at += 2) leaves += stretches[at]!;
  return leaves;
}

let current: OpenDisk | null = null;
/** Why the files of the disk could not be opened: the answer to every job. */
let refused: unknown = null;

function begin(disk: ThreadDisk): void {
  current = new OpenDisk(disk);
  refused = null;
  try {
    current.open();
  } catch (error) {
    refused = error;
  }
}

function answer(job: LeafJob): LeafAnswer {
  try {
    if (refused !== null) throw refused;
    return { id: job.id, result: current!.resultOf(job) };
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return { id: job.id, failed: error instanceof Error ? error.message : String(error), errno };
  }
}

parentPort!.on('message', (message: ToThread) => {
  if (message === 'close') {
    current?.close();
    current = null;
    parentPort!.postMessage('closed');
    return;
  }
  if ('disk' in message) return begin(message.disk);
  const given = answer(message);
  const result = 'result' in given ? given.result : null;
  const lent = result === null ? [] : result instanceof Uint8Array ? [result] : [result.masks, result.tags, result.payload];
  parentPort!.postMessage(given, lent.map(({ buffer: memory }) => memory as ArrayBuffer));
});
