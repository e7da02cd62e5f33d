/**
 * Memory for payloads and replies: slabs of power-of-two sizes, reused, and bounded over all connections.
 *
 * Invariants
 * - The capacity of all slabs in use plus those kept for reuse stays within the limit, except for the first slab of
 *   each connection.
 * - A slab goes back when its last user releases it; nobody touches its bytes afterwards.
 * - Who finds no memory waits in line. While anybody waits, nobody else is served, so that large requests are not
 *   starved.
 */

/** One connection's receive buffer, and the unit in which replies of small reads are gathered. */
export const SLAB_BYTES = 256 * 1024;

export class Slab {
  readonly bytes: Buffer;
  users = 1;

  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
  }
}

interface Waiter {
  bytes: number;
  wake: () => void;
}

export class SlabPool {
  readonly #limit: number;
  readonly #free = new Map<number, Slab[]>();
  #freeBytes = 0;
  #usedBytes = 0;
  #waiters: Waiter[] = [];
  #serving = false;
  #scheduled = false;

  constructor(limitBytes: number) {
    this.#limit = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Somebody waits for memory. */
  get isShort(): boolean {
    return this.#waiters.length > 0;
  }

  /** A slab of at least `bytes` with one user, or null: then call `wait`. */
  take(bytes: number): Slab | null {
    const capacity = capacityFor(bytes);
    if ((this.isShort && !this.#serving) || this.#usedBytes + capacity > this.#limit) return null;
    this.#serving = false; // One slab for each place in the line.
    return this.takeAnyway(capacity);
  }

  /** Ignores the limit: for the first slab of a connection, whose number is bounded elsewhere. */
  takeAnyway(bytes: number): Slab {
    const capacity = capacityFor(bytes);
    this.#usedBytes += capacity;
    const kept = this.#free.get(capacity)?.pop();
    if (kept === undefined) {
      this.#dropKept(capacity);
      return new Slab(capacity);
    }
    this.#freeBytes -= capacity;
    kept.users = 1;
    return kept;
  }

  release(slab: Slab): void {
    slab.users -= 1;
    if (slab.users > 0) return;
    const capacity = slab.bytes.length;
    this.#usedBytes -= capacity;
    if (this.#usedBytes + this.#freeBytes + capacity <= this.#limit) {
      const kept = this.#free.get(capacity);
      if (kept === undefined) this.#free.set(capacity, [slab]);
      else kept.push(slab);
      this.#freeBytes += capacity;
    }
    if (this.isShort) this.#serveSoon();
  }

  /** Calls `wake` once when `bytes` may be had; `take` inside of `wake` succeeds. */
  wait(bytes: number, wake: () => void): void {
    this.#waiters.push({ bytes: capacityFor(bytes), wake });
    this.#serveSoon();
  }

  /** Leaves the line. */
  cancel(wake: () => void): void {
    this.#waiters = this.#waiters.filter((waiter) => waiter.wake !== wake);
    if (this.isShort) this.#serveSoon();
  }

  /** Later, because whoever releases is in the middle of its own work. */
  #serveSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      while (this.isShort && this.#usedBytes + this.#waiters[0]!.bytes <= this.#limit) {
        const { wake } = this.#waiters.shift()!;
        this.#serving = true;
        wake();
        this.#serving = false;
      }
    });
  }

  /**
   * Makes room for a new slab among those kept for reuse: sizes that are no longer asked for must not fill the memory.
   */
  #dropKept(capacity: number): void {
    for (const [size, kept] of this.#free) {
      while (kept.length > 0 && this.#usedBytes + this.#freeBytes + capacity > this.#limit) {
        kept.pop();
        this.#freeBytes -= size;
      }
    }
  }
}

function capacityFor(bytes: number): number {
  return bytes <= SLAB_BYTES ? SLAB_BYTES : 2 ** Math.ceil(Math.log2(bytes));
}
