/**
 * Pieces of memory for page data, used again: a new megabyte for each message fills the count by which the collector decides to look
 * through the whole heap. What is never given back is collected like anything else.
 */
import { MEND_BYTES } from './tree-shape.ts';

/** What is kept for later. */
const KEPT_MAX = 12;

export class MendMemory {
  readonly #free: ArrayBuffer[] = [];

  /** Room for one message; it holds what was in it before. */
  take(): ArrayBuffer {
    return this.#free.pop() ?? new ArrayBuffer(MEND_BYTES);
  }

  /** Nobody reads or writes it any more. */
  give(memory: ArrayBufferLike | undefined): void {
    if (memory instanceof ArrayBuffer && memory.byteLength === MEND_BYTES && this.#free.length < KEPT_MAX) this.#free.push(memory);
  }
}
