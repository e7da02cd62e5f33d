/**
 * Writes into the page cache on a thread of their own. Node's pool of threads wakes one thread and then the event loop for every single
 * write; here one job is any number of writes to any number of files, and its thread goes on from one to the next without being woken.
 * Measured on ext4 with eight pages and an index frame: 24 µs of processor time, 8 of them for the change of threads, against 30 to 47.
 *
 * Invariants
 * - A job is done by the thread or not at all: until the thread has begun it, it can be taken back.
 * - Nobody waits behind a file that hangs, but for a moment: what the thread has not begun SLOW_MS after it was asked for is taken back,
 *   and whoever asked uses the pool. So does everybody while a job is under way that is slow, and as long again afterwards.
 * - Descriptors and memory are held until the job is over, also one that hangs.
 */
import { getSystemErrorName } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { Clock } from '../model/ports.ts';
import type { Descriptor } from './descriptor.ts';
import { ioError } from './disk-errors.ts';
import { libc, type Libc } from './libc.ts';
import { SLOT_STATE, SLOTS, WriteRing } from './write-ring.ts';

/** A job usually takes 20 µs to 2 ms; the scheduler of a busy host may add a few milliseconds. */
const SLOW_MS = 25;
const REST_PER_SLOWNESS = 4;
/** More than this may take long by itself; the pool has more threads for it. */
export const JOB_BYTES_MAX = 8 << 20;

export interface Write {
  file: Descriptor;
  buffers: readonly Uint8Array[];
  position: number;
}

interface Job {
  slot: number;
  since: number;
  writes: readonly Write[];
  resolve: (isDone: boolean) => void;
  reject: (reason: Error) => void;
}

/** What is used of a worker. */
export interface WritingThread {
  on(event: 'message' | 'error' | 'exit', listener: (value: unknown) => void): unknown;
  ref(): void;
  unref(): void;
}

export class WriteThread {
  readonly #clock: Pick<Clock, 'monotonic' | 'sleep'>;
  readonly #native: Libc;
  readonly #start: (memory: SharedArrayBuffer) => WritingThread;
  #ring: WriteRing | null = null;
  #thread: WritingThread | null = null;
  #isReady = false;
  #sequence = 0;
  /** In the order in which the thread does them. */
  #jobs: Job[] = [];
  #restUntil = -Infinity;
  #isWatched = false;

  /** `start`: a seam for tests. */
  constructor(clock: Pick<Clock, 'monotonic' | 'sleep'>, native: Libc = libc(), start = startWorker) {
    this.#clock = clock;
    this.#native = native;
    this.#start = start;
  }

  /**
   * Makes the writes one after another; behind one that fails none is made. Resolves to false when it was taken back: nothing is written then.
   * Null when the thread cannot take it now. Either way the pool can.
   */
  write(writes: readonly Write[]): Promise<boolean> | null {
    if (!this.#isReady) this.#begin();
    this.#collect();
    const since = this.#clock.monotonic();
    if (!this.#isReady || since < this.#restUntil || bytesOf(writes) > JOB_BYTES_MAX) return null;
    if (this.#jobs.length > 0 && since - this.#jobs[0]!.since > SLOW_MS) return null;
    // In this order: a descriptor that is closed throws before anything is posted.
    const posted = this.#ring!.post(this.#sequence, writes.map(({ file, buffers, position }) => ({ fd: file.fd, buffers, position })));
    if (!posted) return null;
    for (const { file } of writes) file.borrow();
    if (this.#jobs.length === 0) this.#thread!.ref();
    const promise = new Promise<boolean>((resolve, reject) => {
      this.#jobs.push({ slot: this.#sequence % SLOTS, since, writes, resolve, reject });
    });
    this.#sequence++;
    if (!this.#isWatched) void this.#watch();
    return promise;
  }

  #begin(): void {
    if (this.#thread !== null || (this.#ring !== null && !this.#ring.works)) return;
    const ring = this.#ring = new WriteRing(this.#native);
    if (!ring.works) return;
    const thread = this.#thread = this.#start(ring.memory);
    thread.on('message', (what) => {
      if (what === 'ready') this.#isReady = true;
      ring.heard();
      this.#collect();
    });
    thread.on('error', () => this.#over());
    thread.on('exit', () => this.#over());
    thread.unref();
  }

  /** Settles the jobs that are over. */
  #collect(): void {
    const jobs = this.#jobs;
    const ring = this.#ring!;
    while (jobs.length > 0 && ring.stateOf(jobs[0]!.slot) === SLOT_STATE.DONE) {
      const job = jobs.shift()!;
      const took = this.#clock.monotonic() - job.since;
      if (took > SLOW_MS) this.#restUntil = job.since + (1 + REST_PER_SLOWNESS) * took;
      const errno = ring.resultOf(job.slot);
      ring.free(job.slot);
      this.#settle(job, errno === 0 ? true : ioError(getSystemErrorName(-errno), `${job.writes[0]!.file.path}: write at ${job.writes[0]!.position}`));
    }
  }

  #settle(job: Job, outcome: boolean | Error): void {
    for (const { file } of job.writes) file.giveBack();
    if (this.#jobs.length === 0) this.#thread!.unref();
    if (typeof outcome === 'boolean') job.resolve(outcome);
    else job.reject(outcome);
  }

  /** While jobs are under way: takes back those behind a slow one. */
  async #watch(): Promise<void> {
    this.#isWatched = true;
    while (this.#jobs.length > 0) {
      await this.#clock.sleep(SLOW_MS);
      this.#collect();
      if (this.#jobs.length > 0 && this.#clock.monotonic() - this.#jobs[0]!.since > SLOW_MS) this.#takeBack();
    }
    this.#isWatched = false;
  }

  #takeBack(): void {
    const taken = this.#jobs.filter(({ slot }) => this.#ring!.takeBack(slot));
    this.#jobs = this.#jobs.filter((job) => !taken.includes(job));
    for (const job of taken) this.#settle(job, false);
  }

  /** The thread has ended by itself, which only a failure of this program can bring about. What it was doing may be half done. */
  #over(): void {
    this.#isReady = false;
    this.#collect();
    this.#takeBack();
    const lost = this.#jobs;
    this.#jobs = [];
    for (const job of lost) this.#settle(job, ioError('EIO', 'the writing thread has ended'));
  }
}

function bytesOf(writes: readonly Write[]): number {
  let bytes = 0;
  for (const { buffers } of writes) for (const buffer of buffers) bytes += buffer.length;
  return bytes;
}

function startWorker(memory: SharedArrayBuffer): WritingThread {
  // The build turns .ts into .js, also for the file of the thread.
  const file = new URL(import.meta.url.endsWith('.ts') ? './write-worker.ts' : './write-worker.js', import.meta.url);
  return new Worker(file, { workerData: memory, name: 'write', resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1 } });
}
