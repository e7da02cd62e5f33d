/**
 * Digests on a thread of their own, so that the thread that serves guest I/O neither reads nor hashes: of a raw file or
 * block device, and of VHD and VHDX images. Where the bytes of those lie is known here and changes under a guest's
 * writes, so the thread is told with each job, and the places are lent until it has answered (`VirtualDisk.lend`).
 */
import { stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import type { LentRuns, VirtualDisk } from '../../disk/virtual-disk.ts';
import type { Digest, DigestList } from './digest-tree.ts';
import {
  type HasherOptions,
  InThreadHasher,
  type LeafHasher,
  type Pace,
  ZeroDigests,
  dataLeaves,
  leafLength,
} from './leaf-hasher.ts';
import type { LeafAnswer, LeafJob, LeafWorkerData } from './leaf-worker.ts';
import { DIGEST_BYTES, type TreeShape } from './tree-shape.ts';

/** 8 MiB of leaves per message; two messages wait at the thread, so that it never idles for one. */
const JOB_LEAVES = 32;
const JOBS_IN_FLIGHT = 2;
/** What is lent may hold up a guest that gives a block back, so a message is shorter: 2 MiB. */
const LENT_JOB_LEAVES = 8;

type Waiting = { resolve: (digests: DigestList) => void; reject: (error: Error) => void };

export class WorkerHasher implements LeafHasher {
  readonly #disk: VirtualDisk;
  readonly #shape: TreeShape;
  readonly #pace: Pace;
  readonly #zeroes: ZeroDigests;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #jobs = 0;
  #failure: Error | null = null;

  /** The disk must lend its places, or be a raw file or block device at `disk.location`: see `hasherFor`. */
  constructor(disk: VirtualDisk, { shape, digest, pace }: { shape: TreeShape; digest: Digest; pace?: Pace }) {
    this.#disk = disk;
    this.#shape = shape;
    this.#pace = pace ?? (() => {});
    this.#zeroes = new ZeroDigests(digest);
    const workerData: LeafWorkerData = {
      paths: disk.lentFiles ?? [disk.location],
      virtualSize: disk.virtualSize,
      leafBytes: shape.leafBytes,
    };
    // The build turns .ts into .js, also for the file of the thread.
    const file = new URL(import.meta.url.endsWith('.ts') ? './leaf-worker.ts' : './leaf-worker.js', import.meta.url);
    this.#worker = new Worker(file, { workerData, name: 'compare', resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 } });
    this.#worker.on('message', (answer: LeafAnswer) => this.#onAnswer(answer));
    this.#worker.on('error', (error) => this.#fail(error as Error));
    this.#worker.on('exit', () =>
      this.#fail(Object.assign(new Error('the hashing thread has ended'), { code: 'EIO' })),
    );
  }

  async leaves(first: number, count: number): Promise<DigestList> {
    const digests = new Uint8Array(count * DIGEST_BYTES);
    const zero = this.#zeroes.of(this.#shape.leafBytes);
    for (let index = 0; index < count; index++) digests.set(zero, index * DIGEST_BYTES);
    const last = leafLength(first + count - 1, this.#shape, this.#disk.virtualSize);
    digests.set(this.#zeroes.of(last), (count - 1) * DIGEST_BYTES);
    const runs = await dataLeaves(this.#disk, first, count, this.#shape.leafBytes);
    const data = runs.flatMap(([from, length]) => Array.from({ length }, (_, index) => from + index));
    await this.#eachJob('leaves', data, (leaf, digest) => digests.set(digest, (leaf - first) * DIGEST_BYTES), 1);
    return digests;
  }

  async pages(leaves: readonly number[]): Promise<DigestList> {
    const pages = this.#shape.leafBytes / 4096;
    const digests = new Uint8Array(leaves.length * pages * DIGEST_BYTES);
    let at = 0;
    await this.#eachJob(
      'pages',
      leaves,
      (_leaf, digest) => {
        digests.set(digest, at);
        at += digest.length;
      },
      pages,
    );
    return digests;
  }

  async close(): Promise<void> {
    this.#failure ??= new Error('the hasher is closed');
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve));
    if (this.#worker.threadId === -1) return;
    this.#worker.postMessage({ kind: 'close' } satisfies LeafJob);
    await exited;
  }

  /** Posts the leaves in messages, two ahead, and visits the answers in order. */
  async #eachJob(
    kind: 'leaves' | 'pages',
    leaves: readonly number[],
    visit: (leaf: number, digests: Uint8Array) => void,
    digestsPerLeaf: number,
  ): Promise<void> {
    const step = digestsPerLeaf * DIGEST_BYTES;
    const flying: { leaves: readonly number[]; digests: Promise<DigestList> }[] = [];
    const settle = async () => {
      const { leaves: asked, digests } = flying.shift()!;
      const got = await digests;
      for (const [index, leaf] of asked.entries()) visit(leaf, got.subarray(index * step, (index + 1) * step));
    };
    const perJob = this.#disk.lend === undefined ? JOB_LEAVES : LENT_JOB_LEAVES;
    for (let at = 0; at < leaves.length; at += perJob) {
      const some = leaves.slice(at, at + perJob);
      if (flying.length === JOBS_IN_FLIGHT) await settle();
      await this.#pace(some.length * this.#shape.leafBytes);
      const digests = this.#ask(kind, some);
      digests.catch(() => {}); // Seen by `settle`, or the call has failed already at an earlier job.
      flying.push({ leaves: some, digests });
    }
    while (flying.length > 0) await settle();
  }

  async #ask(kind: 'leaves' | 'pages', leaves: readonly number[]): Promise<DigestList> {
    if (this.#disk.lend === undefined) return this.#post(kind, leaves, null);
    const lent: LentRuns[] = [];
    try {
      for (const leaf of leaves) {
        lent.push(await this.#disk.lend(leaf * this.#shape.leafBytes, leafLength(leaf, this.#shape, this.#disk.virtualSize)));
      }
      return await this.#post(kind, leaves, placesOf(lent, leaves, this.#shape.leafBytes));
    } finally {
      for (const { release } of lent) release();
    }
  }

  #post(kind: 'leaves' | 'pages', leaves: readonly number[], places: Float64Array | null): Promise<DigestList> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const id = this.#jobs++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, kind, leaves: Uint32Array.from(leaves), places } satisfies LeafJob);
    });
  }

  #onAnswer(answer: LeafAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('digests' in answer) waiting?.resolve(answer.digests);
    else waiting?.reject(Object.assign(new Error(answer.failed), { code: answer.errno }));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

/** As `LeafJob` has them. */
function placesOf(lent: readonly LentRuns[], leaves: readonly number[], leafBytes: number): Float64Array {
  return Float64Array.from(lent.flatMap(({ runs }, index) => [runs.length, ...runs.flatMap(({ file, position, offset, length }) =>
    [file, position, offset - leaves[index]! * leafBytes, length])]));
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

  async leaves(first: number, count: number): Promise<DigestList> {
    return (await this.#hasher()).leaves(first, count);
  }

  async pages(leaves: readonly number[]): Promise<DigestList> {
    return (await this.#hasher()).pages(leaves);
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
