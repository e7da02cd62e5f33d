/**
 * zstd on threads of its own, for pieces of up to 1 MiB and a little. Data goes there and back through shared memory, of which there
 * is a fixed amount: a job waits until a slot is free.
 *
 * The threads begin with the first job, and do not keep the process alive while nothing is asked of them.
 */
import { Worker } from 'node:worker_threads';
import type { ZstdAnswer, ZstdJob, ZstdThreadData } from './zstd-thread.ts';

const THREADS = 2;
/** One is worked on while the next is filled. */
const SLOTS_PER_THREAD = 2;
/** Of either half of a slot. */
export const ZSTD_SLOT_BYTES = (1 << 20) + (64 << 10);

type Result = Uint8Array | null;
interface Job {
  kind: ZstdJob['kind'];
  data: Uint8Array;
  most: number;
  into: Uint8Array | undefined;
  resolve: (result: Result) => void;
  reject: (error: Error) => void;
}

class ZstdThread {
  readonly #worker: Worker;
  readonly #slots = Array.from({ length: SLOTS_PER_THREAD }, () => new SharedArrayBuffer(2 * ZSTD_SLOT_BYTES));
  readonly #jobs: (Job | null)[] = this.#slots.map(() => null);
  readonly #onFree: () => void;
  failed = false;

  constructor(level: number, onFree: () => void) {
    this.#onFree = onFree;
    const workerData: ZstdThreadData = { slots: this.#slots, level };
    const file = new URL(import.meta.url.endsWith('.ts') ? './zstd-thread.ts' : './zstd-thread.js', import.meta.url);
    this.#worker = new Worker(file, { workerData, name: 'zstd', resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 } });
    this.#worker.on('message', (answer: ZstdAnswer) => this.#done(answer));
    this.#worker.on('error', (error) => this.#fail(error as Error));
    this.#worker.on('exit', () => this.#fail(new Error('the compressing thread has ended')));
    this.#worker.unref();
  }

  get running(): number {
    return this.#jobs.filter((job) => job !== null).length;
  }

  get isFull(): boolean {
    return this.failed || this.running === SLOTS_PER_THREAD;
  }

  start(job: Job): void {
    if (this.running === 0) this.#worker.ref();
    const slot = this.#jobs.indexOf(null);
    this.#jobs[slot] = job;
    new Uint8Array(this.#slots[slot]!, 0, job.data.length).set(job.data);
    this.#worker.postMessage({ slot, kind: job.kind, length: job.data.length, most: job.most } satisfies ZstdJob);
  }

  #done(answer: ZstdAnswer): void {
    const job = this.#jobs[answer.slot]!;
    const result = 'failed' in answer || answer.length === null
      ? null : copied(new Uint8Array(this.#slots[answer.slot]!, ZSTD_SLOT_BYTES, answer.length), job.into);
    this.#jobs[answer.slot] = null;
    if (this.running === 0) this.#worker.unref();
    if ('failed' in answer) job.reject(new Error(answer.failed));
    else job.resolve(result);
    this.#onFree();
  }

  #fail(error: Error): void {
    if (this.failed) return;
    this.failed = true;
    for (const job of this.#jobs) job?.reject(error);
    this.#jobs.fill(null);
    this.#onFree();
  }
}

/** The slot is filled again at once. */
function copied(result: Uint8Array, into: Uint8Array | undefined): Uint8Array {
  if (into === undefined || into.length < result.length) return Buffer.from(result);
  into.set(result);
  return into.subarray(0, result.length);
}

export class ZstdThreads {
  readonly #level: number;
  #threads: ZstdThread[] = [];
  readonly #queue: Job[] = [];

  constructor(level: number) {
    this.#level = level;
  }

  /**
   * Null when the result would have more than `most` bytes. `data` must not change until then, nor be longer than ZSTD_SLOT_BYTES. The
   * result lies in `into` where that is long enough.
   */
  compress(data: Uint8Array, most: number, into?: Uint8Array): Promise<Uint8Array | null> {
    return this.#run('compress', data, most, into);
  }

  /** Rejects when the data is malformed or would exceed `most` bytes; neither may be more than ZSTD_SLOT_BYTES. */
  async decompress(data: Uint8Array, most: number, into?: Uint8Array): Promise<Uint8Array> {
    const result = await this.#run('decompress', data, most, into);
    if (result === null) throw new Error(`more than ${most} bytes`);
    return result;
  }

  #run(kind: ZstdJob['kind'], data: Uint8Array, most: number, into: Uint8Array | undefined): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ kind, data, most, into, resolve, reject });
      this.#assign();
    });
  }

  #assign(): void {
    while (this.#queue.length > 0) {
      this.#threads = this.#threads.filter(({ failed }) => !failed);
      let thread = this.#threads.toSorted((a, b) => a.running - b.running)[0];
      if ((thread === undefined || thread.running > 0) && this.#threads.length < THREADS) {
        thread = new ZstdThread(this.#level, () => this.#assign());
        this.#threads.push(thread);
      }
      if (thread!.isFull) return;
      thread!.start(this.#queue.shift()!);
    }
  }
}
