/**
 * The receive side of one connection: bytes arrive in a slab and are parsed where they lie. Small write payloads stay
 * there until the write has ended (each is a user of the slab); a large one gets a slab of its own, into which the
 * socket then reads directly.
 *
 * Invariants
 * - Bytes [parsed, filled) of the slab have arrived and are not parsed yet; they precede what a large payload still
 *   misses.
 * - The socket reads either to where the next byte belongs, or into SPILL, from which `accept` copies at once. SPILL is
 *   what a socket gets that is about to be paused, because what the bytes will belong to is decided later. It is
 *   shared: nothing stays in it.
 */
import { NBD_REQUEST_BYTES } from '../disk/nbd/protocol.ts';
import { SLAB_BYTES, type Slab, type SlabPool } from './slab-pool.ts';

/** Writes with more payload than this get a slab of their own; options are not longer either (`NbdLimits.optionBytes`). */
export const LARGE_PAYLOAD_BYTES = 64 * 1024;
/** A read is not worth a system call for less room than this. */
const ROOM_BYTES = 16 * 1024;

export const SPILL = Buffer.allocUnsafeSlow(ROOM_BYTES);

export class Inbox {
  readonly #pool: SlabPool;
  slab: Slab;
  parsed = 0;
  #filled = 0;
  #large: { slab: Slab; length: number; filled: number } | null = null;
  /**
   * After a large write another is likely: then only the next header is read, so that its payload need not be copied
   * either.
   */
  #expectLarge = false;

  constructor(pool: SlabPool) {
    this.#pool = pool;
    this.slab = pool.takeAnyway(SLAB_BYTES);
  }

  get available(): number {
    return this.#filled - this.parsed;
  }

  get isMidPayload(): boolean {
    return this.#large !== null;
  }

  /** Where the socket shall read to. Call `makeRoom` first. */
  target(): Buffer {
    const large = this.#large;
    if (large !== null) return large.slab.bytes.subarray(large.filled, large.length);
    const end = this.#expectLarge && this.available === 0 ? this.#filled + NBD_REQUEST_BYTES : this.slab.bytes.length;
    return this.slab.bytes.subarray(this.#filled, end);
  }

  /** `count` bytes have arrived in `from`, which is the last `target()` or SPILL. */
  accept(count: number, from: Buffer): void {
    if (from === SPILL) {
      const moved = this.#fillLarge(SPILL, 0, count);
      SPILL.copy(this.slab.bytes, this.#filled, moved, count);
      this.#filled += count - moved;
    } else if (this.#large !== null) {
      this.#large.filled += count;
    } else {
      this.#filled += count;
    }
  }

  consume(count: number): void {
    this.parsed += count;
    this.#expectLarge = false;
  }

  /**
   * Lets a piece of `bytes` from `parsed` on, and a worthwhile read, fit into the slab, once all complete pieces are
   * parsed. False when that needs another slab and none can be had now.
   */
  makeRoom(bytes: number): boolean {
    const { slab } = this;
    if (this.available === 0 && slab.users === 1) this.parsed = this.#filled = 0;
    if (this.#filled + ROOM_BYTES <= slab.bytes.length && this.parsed + bytes <= slab.bytes.length) return true;
    if (slab.users === 1) {
      slab.bytes.copyWithin(0, this.parsed, this.#filled);
    } else {
      const next = this.#pool.take(SLAB_BYTES);
      if (next === null) return false;
      slab.bytes.copy(next.bytes, 0, this.parsed, this.#filled);
      this.#pool.release(slab);
      this.slab = next;
    }
    this.#filled -= this.parsed;
    this.parsed = 0;
    return true;
  }

  /**
   * What has arrived next of `length` payload bytes, and all that follows, goes into `slab`. Its user is the caller.
   */
  beginLarge(slab: Slab, length: number): void {
    this.#large = { slab, length, filled: 0 };
    this.consume(this.#fillLarge(this.slab.bytes, this.parsed, this.#filled));
  }

  /** True once when the large payload has arrived. */
  endLarge(): boolean {
    if (this.#large === null || this.#large.filled < this.#large.length) return false;
    this.#large = null;
    this.#expectLarge = true;
    return true;
  }

  /** The connection is over; slabs with unfinished writes go back when those end. */
  dispose(): void {
    this.#pool.release(this.slab);
    if (this.#large !== null) this.#pool.release(this.#large.slab);
    this.#large = null;
  }

  #fillLarge(from: Buffer, start: number, end: number): number {
    const large = this.#large;
    if (large === null) return 0;
    const count = Math.min(end - start, large.length - large.filled);
    from.copy(large.slab.bytes, large.filled, start, start + count);
    large.filled += count;
    return count;
  }
}
