/**
 * A thread that reads and tags leaves (leaf-worker.ts), for one disk after another: to start one costs 70 ms of processor time, and as much again
 * until its code is compiled. A host that resynchronizes many disks, one by one after a crash, has one thread for all of them.
 *
 * Invariants
 * - A thread belongs to one user at a time, who took it and has not closed it; only one that has said that its files are closed is taken again.
 * - One that has failed is never taken again. Two at most wait for their next user, at 8 MiB each; they never keep the program running.
 */
import { Worker } from 'node:worker_threads';
import type { LeafAnswer, LeafJob, LeafResult, ThreadDisk, ToThread } from './leaf-worker.ts';

/** As many as one side of a compare has: its disk, and the diff disk over it. */
const IDLE_MAX = 2;
const idle: HashingThread[] = [];

type Waiting = { resolve: (result: LeafResult) => void; reject: (error: Error) => void };

export class HashingThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #jobs = 0;
  #failure: Error | null = null;
  #closed: (() => void) | null = null;

  /** An idle thread, or a new one, that works for this disk until it is closed. */
  static take(disk: ThreadDisk): HashingThread {
    const thread = idle.pop() ?? new HashingThread();
    thread.#begin(disk);
    return thread;
  }

  private constructor() {
    // The build turns .ts into .js, also for the file of the thread.
    const file = new URL(import.meta.url.endsWith('.ts') ? './leaf-worker.ts' : './leaf-worker.js', import.meta.url);
    this.#worker = new Worker(file, { name: 'compare', resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 } });
    this.#worker.on('message', (answer: LeafAnswer | 'closed') => (answer === 'closed' ? this.#onClosed() : this.#onAnswer(answer)));
    this.#worker.on('error', (error) => this.#fail(error as Error));
    this.#worker.on('exit', () => this.#fail(Object.assign(new Error('the hashing thread has ended'), { code: 'EIO' })));
  }

  /** `lent`: memory that is given away with the question. */
  ask(job: Omit<LeafJob, 'id'>, lent: readonly ArrayBuffer[]): Promise<LeafResult> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const id = this.#jobs++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ id, ...job }, lent);
    });
  }

  /** Resolves when its files are closed. The caller asks nothing afterwards. */
  async close(): Promise<void> {
    if (this.#failure !== null) return;
    const closed = new Promise<void>((resolve) => (this.#closed = resolve));
    this.#post('close');
    await closed;
    if (this.#failure !== null) return;
    this.#worker.unref();
    if (idle.length < IDLE_MAX) idle.push(this);
    else await this.#worker.terminate();
  }

  #begin(disk: ThreadDisk): void {
    this.#worker.ref();
    this.#post({ disk });
  }

  #post(message: ToThread, lent: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, lent);
  }

  #onAnswer(answer: LeafAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('result' in answer) waiting?.resolve(answer.result);
    else waiting?.reject(Object.assign(new Error(answer.failed), { code: answer.errno }));
  }

  #onClosed(): void {
    this.#closed?.();
    this.#closed = null;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const at = idle.indexOf(this);
    if (at >= 0) idle.splice(at, 1);
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    this.#onClosed();
  }
}
