/**
 * Buffers that are used again. V8 starts a full collection for every 64 MiB or so of new buffers, and one collection costs as much
 * as moving tens of MiB: a transfer that allocates for each piece spends most of its time there.
 *
 * Whoever gives a buffer back must be the last who knows it: after a failure, when somebody else may still read from it, it is left
 * to the collector instead.
 */
export class BufferPool {
  readonly #bytes: number;
  readonly #keep: number;
  readonly #free: Buffer[] = [];

  /** Buffers of `bytes`, of which at most `keep` wait to be used again. */
  constructor(bytes: number, keep: number) {
    this.#bytes = bytes;
    this.#keep = keep;
  }

  /** Holds anything. What is longer than a buffer of the pool, or much shorter, is a new one. */
  take(length: number): Buffer {
    if (length > this.#bytes || length < this.#bytes / 16) return Buffer.allocUnsafeSlow(length);
    return (this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes)).subarray(0, length);
  }

  /** Takes back what `take` gave; anything else is left alone. */
  give(taken: Uint8Array): void {
    const isOurs = taken.byteOffset === 0 && taken.buffer.byteLength === this.#bytes;
    if (isOurs && this.#free.length < this.#keep) this.#free.push(Buffer.from(taken.buffer as ArrayBuffer));
  }
}
