/**
 * Jobs of writing that one thread hands to another, in shared memory: which descriptor, where in the file, and where in this process's
 * memory the bytes lie. The thread that writes needs no object of the other's, and copies nothing.
 *
 * Invariants
 * - A slot is FREE, then POSTED by the one who asks; from there either the writing thread makes it RUNNING and then DONE, or the asker makes
 *   it TAKEN_BACK: by one compare-and-exchange, so that a job is done once or not at all.
 * - The asker frees a slot that is DONE, the writing thread one that was TAKEN_BACK, when it comes to it.
 * - The asker holds on to the memory of a job's buffers until it is DONE or TAKEN_BACK. Short ones are copied into the slot: they may
 *   lie in memory that the collector moves.
 */
import type { Libc } from './libc.ts';

export const SLOTS = 64;
export const SLOT_STATE = { FREE: 0, POSTED: 1, RUNNING: 2, DONE: 3, TAKEN_BACK: 4 } as const;

/**
 * What goes to the file in one call. Pages that come to the page cache in one call are kept as one piece there, and every small write
 * into a large piece costs in proportion to that: 8 to 20 µs at 1 MiB, 4 at 128 KiB. New pages are cheaper by a third, too.
 */
export const CALL_BYTES_MAX = 128 * 1024;

const SLOT_BYTES = 16 * 1024;
/** Bytes that are copied lie at the slot's end. */
const COPIED_BYTES = 4 * 1024;
/** Up to here a buffer is copied. */
const COPY_BYTES_MAX = 256;
const VECTOR_BYTES = 16;
/** Of a call: descriptor, position, number of vectors, bytes. */
const CALL_WORDS = 4;
const [POSTED_COUNT, TOLD, STATES, RESULTS] = [0, 1, 2, 2 + SLOTS];
const CONTROL_BYTES = 4096;

export interface RingWrite {
  fd: number;
  buffers: readonly Uint8Array[];
  position: number;
}

export class WriteRing {
  readonly memory: SharedArrayBuffer;
  readonly #control: Int32Array;
  readonly #numbers: Float64Array;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #native: Libc;
  readonly #base: number;
  /** Of large pieces of memory, which are used again and again. */
  readonly #addresses = new WeakMap<ArrayBufferLike, number>();

  /** `memory`: of the ring that another thread has made. */
  constructor(native: Libc, memory = new SharedArrayBuffer(CONTROL_BYTES + SLOTS * SLOT_BYTES)) {
    this.memory = memory;
    this.#native = native;
    this.#control = new Int32Array(memory, 0, RESULTS + SLOTS);
    this.#numbers = new Float64Array(memory);
    this.#words = new Uint32Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#base = native.addressOf(this.#bytes) ?? 0;
  }

  /** False where this host has no such calls. */
  get works(): boolean {
    return this.#base > 0;
  }

  stateOf(slot: number): number {
    return Atomics.load(this.#control, STATES + slot);
  }

  /** The errno of a job that is DONE; 0 when it was done. */
  resultOf(slot: number): number {
    return this.#control[RESULTS + slot]!;
  }

  /** Fills a FREE slot and posts it. False, with nothing posted, when it is not free or the job is too long for it. */
  post(sequence: number, writes: readonly RingWrite[]): boolean {
    const slot = sequence % SLOTS;
    if (this.stateOf(slot) !== SLOT_STATE.FREE || !this.#fill(slot, writes)) return false;
    Atomics.store(this.#control, STATES + slot, SLOT_STATE.POSTED);
    Atomics.store(this.#control, POSTED_COUNT, sequence + 1);
    Atomics.notify(this.#control, POSTED_COUNT);
    return true;
  }

  /** True: the writing thread has not begun it, and will not. */
  takeBack(slot: number): boolean {
    const { POSTED, TAKEN_BACK } = SLOT_STATE;
    return Atomics.compareExchange(this.#control, STATES + slot, POSTED, TAKEN_BACK) === POSTED;
  }

  free(slot: number): void {
    Atomics.store(this.#control, STATES + slot, SLOT_STATE.FREE);
  }

  /** The asker has been woken, and looks at all slots after this. */
  heard(): void {
    Atomics.store(this.#control, TOLD, 0);
  }

  /** For the writing thread: waits until job number `sequence` is there. */
  awaitPosted(sequence: number): void {
    for (let posted = Atomics.load(this.#control, POSTED_COUNT); posted === sequence; posted = Atomics.load(this.#control, POSTED_COUNT)) {
      Atomics.wait(this.#control, POSTED_COUNT, posted);
    }
  }

  /** For the writing thread: does the job unless it was taken back. True when the asker must be woken. */
  perform(sequence: number): boolean {
    const slot = sequence % SLOTS;
    const { POSTED, RUNNING, DONE } = SLOT_STATE;
    if (Atomics.compareExchange(this.#control, STATES + slot, POSTED, RUNNING) !== POSTED) {
      this.free(slot);
      return false;
    }
    this.#control[RESULTS + slot] = this.#write(slot);
    Atomics.store(this.#control, STATES + slot, DONE);
    return Atomics.exchange(this.#control, TOLD, 1) === 0;
  }

  #fill(slot: number, writes: readonly RingWrite[]): boolean {
    const start = CONTROL_BYTES + slot * SLOT_BYTES;
    const end = start + SLOT_BYTES - COPIED_BYTES;
    let [at, calls, copied] = [start + 8, 0, end];
    for (const { fd, buffers, position } of writes) {
      let [place, head, vectors, bytes] = [position, -1, 0, 0];
      const endCall = () => {
        this.#numbers[head / 8] = fd;
        this.#numbers[head / 8 + 1] = place;
        this.#numbers[head / 8 + 2] = vectors;
        this.#numbers[head / 8 + 3] = bytes;
        place += bytes;
        [head, vectors, bytes] = [-1, 0, 0];
        calls++;
      };
      for (const buffer of buffers) {
        let address = buffer.length <= COPY_BYTES_MAX ? this.#base + copied : this.#addressOf(buffer);
        if (buffer.length <= COPY_BYTES_MAX) {
          if (copied + buffer.length > start + SLOT_BYTES) return false;
          this.#bytes.set(buffer, copied);
          copied += buffer.length;
        }
        for (let left = buffer.length; left > 0;) {
          if (at + CALL_WORDS * 8 + VECTOR_BYTES > end) return false;
          if (head < 0) [head, at] = [at, at + CALL_WORDS * 8];
          // Calls end at multiples of what one may take, as the pieces in the page cache do.
          const count = Math.min(left, CALL_BYTES_MAX - ((place + bytes) % CALL_BYTES_MAX));
          this.#putVector(at, address, count);
          [at, vectors, bytes, address, left] = [at + VECTOR_BYTES, vectors + 1, bytes + count, address + count, left - count];
          if ((place + bytes) % CALL_BYTES_MAX === 0) endCall();
        }
      }
      if (head >= 0) endCall();
    }
    this.#numbers[start / 8] = calls;
    return true;
  }

  #putVector(at: number, address: number, length: number): void {
    this.#words[at / 4] = address % 2 ** 32;
    this.#words[at / 4 + 1] = address / 2 ** 32;
    this.#words[at / 4 + 2] = length;
    this.#words[at / 4 + 3] = 0;
  }

  #addressOf(buffer: Uint8Array): number {
    const memory = buffer.buffer;
    if (memory.byteLength < CALL_BYTES_MAX) return this.#native.addressOf(buffer)!;
    let address = this.#addresses.get(memory);
    if (address === undefined) this.#addresses.set(memory, address = this.#native.addressOf(buffer)! - buffer.byteOffset);
    return address + buffer.byteOffset;
  }

  /** 0, or the errno of the first call that failed; those behind it are not made. */
  #write(slot: number): number {
    let at = CONTROL_BYTES + slot * SLOT_BYTES;
    let calls = this.#numbers[at / 8]!;
    for (at += 8; calls > 0; calls--) {
      const [fd, position, vectors, bytes] = this.#numbers.subarray(at / 8, at / 8 + CALL_WORDS) as unknown as [number, number, number, number];
      at += CALL_WORDS * 8;
      const failure = this.#writeVectors(fd, position, at, vectors, bytes);
      if (failure !== 0) return failure;
      at += vectors * VECTOR_BYTES;
    }
    return 0;
  }

  #writeVectors(fd: number, position: number, at: number, vectors: number, bytes: number): number {
    for (let done = 0; done < bytes;) {
      const count = this.#native.writeVectors(fd, this.#base + at, vectors, position + done);
      if (count < 0) return -count;
      if (count === 0) return EIO;
      done += count;
      if (done < bytes) [at, vectors] = this.#skip(at, vectors, count);
    }
    return 0;
  }

  /** Leaves out of the vectors what a short write has written. */
  #skip(at: number, vectors: number, count: number): [at: number, vectors: number] {
    let [first, left, more] = [at, vectors, count];
    for (; more >= this.#words[first / 4 + 2]!; left--, first += VECTOR_BYTES) more -= this.#words[first / 4 + 2]!;
    const address = this.#words[first / 4]! + this.#words[first / 4 + 1]! * 2 ** 32;
    this.#putVector(first, address + more, this.#words[first / 4 + 2]! - more);
    return [first, left];
  }
}

const EIO = 5;
