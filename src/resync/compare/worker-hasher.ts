/**
 * Tags on a thread of their own, so that the thread that serves guest I/O neither reads nor hashes: of a raw file or
 * block device, and of VHD and VHDX images. Where the bytes of those lie is known here and changes under a guest's
 * writes, so the thread is told with each job, and the places are lent until it has answered (`VirtualDisk.lend`).
 */
import { stat } from 'node:fs/promises';
import type { LentRuns, VirtualDisk } from '../../disk/virtual-disk.ts';
import type { TagList } from './digest-tree.ts';
import {
  type DataRuns,
  type HasherOptions,
  InThreadHasher,
  type LeafHasher,
  type Pace,
  ZeroTags,
  dataRuns,
  leafLength,
} from './leaf-hasher.ts';
import { TAG_BYTES, leafTagger } from './leaf-tags.ts';
import { HashingThread } from './hashing-thread.ts';
import type { LeafJob, LeafResult } from './leaf-worker.ts';
import type { LeafDifferences, PageHashing } from './page-hashes.ts';
import { type TreeShape, pagesPerLeaf } from './tree-shape.ts';

/**
 * Leaves of one message; two messages wait at the thread, so that it never idles for one. A guest that gives a block back waits for those that
 * the block is lent to: two of these at most, as it was at rest, or its messages would be short.
 */
const JOB_BYTES = 8 << 20;
const JOBS_IN_FLIGHT = 2;
/** While the pace has the thread wait: short work and short pauses, so that whoever else needs the processor waits for neither. */
const PACED_JOB_BYTES = 1 << 20;
/** Of one reading. */
const STRETCH_BYTES = 256 << 10;

type Stretch = readonly [first: number, count: number];

interface Question {
  ask: Exclude<LeafJob['ask'], { kind: 'differing' }>;
  /** Of the answer, for one leaf. */
  answerBytes: number;
  /** What of a raw file is read; null: all of each stretch, or what the disk lends of it. */
  data: DataRuns['data'] | null;
}

export class WorkerHasher implements LeafHasher {
  readonly #disk: VirtualDisk;
  readonly #shape: TreeShape;
  readonly #pace: Pace;
  readonly #zeroes: ZeroTags;
  readonly #stretchLeaves: number;
  readonly #thread: HashingThread;
  /** The last job had to wait for the pace. */
  #isPaced = false;
  #isClosed = false;

  /** The disk must lend its places, or be a raw file or block device at `disk.location`: see `hasherFor`. */
  constructor(disk: VirtualDisk, { shape, key, pace }: Omit<HasherOptions, 'read'>) {
    this.#disk = disk;
    this.#shape = shape;
    this.#pace = pace ?? (() => {});
    this.#zeroes = new ZeroTags(leafTagger(key));
    this.#stretchLeaves = Math.max(1, STRETCH_BYTES / shape.leafBytes);
    this.#thread = HashingThread.take({
      paths: disk.lentFiles ?? [disk.location],
      virtualSize: disk.virtualSize,
      leafBytes: shape.leafBytes,
      key,
      stretchLeaves: this.#stretchLeaves,
    });
  }

  async leaves(first: number, count: number): Promise<TagList> {
    const tags = new Uint8Array(count * TAG_BYTES);
    tags.set(this.#zeroes.of(this.#shape.leafBytes));
    // Each copy is twice as long as the one before.
    for (let filled = TAG_BYTES; filled < tags.length; filled *= 2) tags.copyWithin(filled, 0, filled);
    const last = leafLength(first + count - 1, this.#shape, this.#disk.virtualSize);
    tags.set(this.#zeroes.of(last), (count - 1) * TAG_BYTES);
    const found = await dataRuns(this.#disk, first, count, this.#shape.leafBytes);
    const data = this.#disk.lend === undefined ? found.data : null;
    await this.#eachJob(this.#stretches(found.leaves), { ask: { kind: 'leaves' }, answerBytes: TAG_BYTES, data }, (stretches, got) => {
      let at = 0;
      for (const [leaf, leaves] of stretches) {
        tags.set(got.subarray(at, (at += leaves * TAG_BYTES)), (leaf - first) * TAG_BYTES);
      }
    });
    return tags;
  }

  async pages(leaves: readonly number[], hashing: PageHashing): Promise<Uint8Array> {
    const perLeaf = pagesPerLeaf(this.#shape) * hashing.bytes;
    const hashes = new Uint8Array(leaves.length * perLeaf);
    let at = 0;
    const question: Question = { ask: { kind: 'pages', hashing }, answerBytes: perLeaf, data: null };
    await this.#eachJob(this.#stretches(runsOf(leaves)), question, (_stretches, got) => {
      hashes.set(got, at);
      at += got.length;
    });
    return hashes;
  }

  async differing(leaves: readonly number[], theirs: Uint8Array, hashing: PageHashing, into: ArrayBuffer): Promise<LeafDifferences> {
    await this.#pace(leaves.length * this.#shape.leafBytes);
    return (await this.#ask(this.#stretches(runsOf(leaves)), { kind: 'differing', hashing, theirs, into })) as LeafDifferences;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#thread.close();
  }

  /** Runs of leaves, cut into what the thread reads at once. */
  #stretches(runs: readonly Stretch[]): Stretch[] {
    return runs.flatMap(([first, count]) => {
      const pieces: Stretch[] = [];
      for (let at = 0; at < count; at += this.#stretchLeaves) pieces.push([first + at, Math.min(this.#stretchLeaves, count - at)]);
      return pieces;
    });
  }

  /** Posts the stretches in messages, two ahead, and visits the answers in order. */
  async #eachJob(
    stretches: readonly Stretch[],
    { ask, answerBytes, data }: Question,
    visit: (stretches: readonly Stretch[], result: Uint8Array) => void,
  ): Promise<void> {
    const flying: { asked: readonly Stretch[]; result: Promise<LeafResult> }[] = [];
    const settle = async () => {
      const { asked, result } = flying.shift()!;
      const got = (await result) as Uint8Array;
      if (got.length !== leavesIn(asked) * answerBytes) throw new RangeError(`${got.length} bytes for ${leavesIn(asked)} leaves`);
      visit(asked, got);
    };
    const stretchBytes = this.#stretchLeaves * this.#shape.leafBytes;
    for (let at = 0; at < stretches.length;) {
      const some = stretches.slice(at, at + (this.#isPaced ? PACED_JOB_BYTES : JOB_BYTES) / stretchBytes);
      at += some.length;
      if (flying.length === JOBS_IN_FLIGHT) await settle();
      const places = data === null ? null : this.#placesOfData(some, data);
      const wait = this.#pace(places === null ? leavesIn(some) * this.#shape.leafBytes : bytesIn(places));
      if (wait !== undefined) await wait;
      this.#isPaced = wait !== undefined;
      const result = this.#ask(some, ask, places);
      result.catch(() => {}); // Seen by `settle`, or the call has failed already at an earlier job.
      flying.push({ asked: some, result });
    }
    while (flying.length > 0) await settle();
  }

  /**
   * Of a raw file: where the data of these stretches is. What is read of a hole would be zeroed first, and then lie in the page cache, for
   * which a machine that serves guests has better use.
   */
  #placesOfData(stretches: readonly Stretch[], data: DataRuns['data']): Float64Array {
    const runs = stretches.map((stretch) => ({ runs: dataInside(data, this.#rangeOf(stretch)) }));
    return placesOf(runs, stretches, this.#shape.leafBytes);
  }

  #rangeOf([first, count]: Stretch): { offset: number; length: number } {
    const { leafBytes } = this.#shape;
    const offset = first * leafBytes;
    return { offset, length: Math.min(count * leafBytes, this.#disk.virtualSize - offset) };
  }

  async #ask(stretches: readonly Stretch[], ask: LeafJob['ask'], places: Float64Array | null = null): Promise<LeafResult> {
    if (this.#disk.lend === undefined) return this.#post(stretches, ask, places);
    const lent: LentRuns[] = [];
    try {
      for (const stretch of stretches) {
        const { offset, length } = this.#rangeOf(stretch);
        lent.push(await this.#disk.lend(offset, length));
      }
      return await this.#post(stretches, ask, placesOf(lent, stretches, this.#shape.leafBytes));
    } finally {
      for (const { release } of lent) release();
    }
  }

  #post(stretches: readonly Stretch[], ask: LeafJob['ask'], places: Float64Array | null): Promise<LeafResult> {
    if (this.#isClosed) return Promise.reject(new Error('the hasher is closed'));
    return this.#thread.ask({ stretches: Uint32Array.from(stretches.flat()), places, ask }, ask.kind === 'differing' ? [ask.into] : []);
  }
}

const leavesIn = (stretches: readonly Stretch[]): number => stretches.reduce((sum, [, count]) => sum + count, 0);

/** Neighbours together, in the order given. */
function runsOf(leaves: readonly number[]): Stretch[] {
  const runs: [number, number][] = [];
  for (const leaf of leaves) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === leaf) last[1]++;
    else runs.push([leaf, 1]);
  }
  return runs;
}

/** What of the range is data, as a raw file has it. */
function dataInside(data: DataRuns['data'], { offset, length }: { offset: number; length: number }): LentRuns['runs'] {
  const end = offset + length;
  let [low, high] = [0, data.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data[middle]!.offset + data[middle]!.length <= offset) low = middle + 1;
    else high = middle;
  }
  const runs: LentRuns['runs'] = [];
  for (let at = low; at < data.length && data[at]!.offset < end; at++) {
    const from = Math.max(offset, data[at]!.offset);
    runs.push({ offset: from, length: Math.min(end, data[at]!.offset + data[at]!.length) - from, file: 0, position: from });
  }
  return runs;
}

/** That they name. */
function bytesIn(places: Float64Array): number {
  let bytes = 0;
  for (let at = 0; at < places.length;) {
    const count = places[at++]!;
    for (let run = 0; run < count; run++, at += 4) bytes += places[at + 3]!;
  }
  return bytes;
}

/** As `LeafJob` has them. */
function placesOf(lent: readonly Pick<LentRuns, 'runs'>[], stretches: readonly Stretch[], leafBytes: number): Float64Array {
  const places = new Float64Array(lent.reduce((sum, { runs }) => sum + 1 + 4 * runs.length, 0));
  let at = 0;
  for (const [index, { runs }] of lent.entries()) {
    places[at++] = runs.length;
    for (const { file, position, offset, length } of runs) {
      places[at++] = file;
      places[at++] = position;
      places[at++] = offset - stretches[index]![0] * leafBytes;
      places[at++] = length;
    }
  }
  return places;
}

/**
 * A thread for raw files and block devices, and for images that lend their places; else the calling thread. With `read`
 * handed in every byte goes through it.
 */
export async function hasherFor(disk: VirtualDisk, options: HasherOptions): Promise<LeafHasher> {
  return options.read === undefined && (await readableFromOutside(disk)) ? new WorkerHasher(disk, options) : new InThreadHasher(disk, options);
}

/** Made when it is asked for the first time: where nothing differs no thread is started. */
export class HasherAtNeed implements LeafHasher {
  readonly #make: () => Promise<LeafHasher>;
  #made: Promise<LeafHasher> | null = null;

  constructor(make: () => Promise<LeafHasher>) {
    this.#make = make;
  }

  async leaves(first: number, count: number): Promise<TagList> {
    return (await this.#hasher()).leaves(first, count);
  }

  async pages(leaves: readonly number[], hashing: PageHashing): Promise<Uint8Array> {
    return (await this.#hasher()).pages(leaves, hashing);
  }

  async differing(leaves: readonly number[], theirs: Uint8Array, hashing: PageHashing, into: ArrayBuffer): Promise<LeafDifferences> {
    return (await this.#hasher()).differing(leaves, theirs, hashing, into);
  }

  async close(): Promise<void> {
    await (await this.#made)?.close();
  }

  #hasher(): Promise<LeafHasher> {
    return (this.#made ??= this.#make());
  }
}

async function readableFromOutside(disk: VirtualDisk): Promise<boolean> {
  const paths = disk.lentFiles ?? [disk.location];
  if (!paths.every((path) => path.startsWith('/'))) return false;
  const found = await Promise.all(paths.map((path) => stat(path).catch(() => null)));
  if (disk.lend !== undefined) return found.every((one) => one?.isFile() === true || one?.isBlockDevice() === true);
  // A diff disk is raw too, but its file holds only what differs from its base.
  if (disk.format !== 'raw' || disk.variant !== 'fixed') return false;
  const [only] = found;
  return only?.isBlockDevice() === true || (only?.isFile() === true && only.size >= disk.virtualSize);
}
