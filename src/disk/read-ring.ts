/**
 * Reads that have to wait for the device, without a thread: the kernel finishes them when the device has answered, and wakes the event loop
 * once for all that are done. Node's pool changes threads twice for each, and has as many threads as reads can be under way at once.
 *
 * Invariants
 * - A read ends once, by its answer. Until then its memory and its descriptor are held, also when the device never answers.
 * - What does not end well and whole is read again by the pool, which says what is wrong with the words that everybody knows.
 * - Each read wakes the event loop: a write of one byte to a pipe follows it in the kernel (IOSQE_IO_HARDLINK), however it ends.
 */
import { Socket } from 'node:net';
import type { Clock } from '../model/ports.ts';
import type { Descriptor } from './descriptor.ts';
import { IoUring, makePipe, OPCODE, type RequestRing, SQE_FLAG } from './io-uring.ts';
import { libc } from './libc.ts';

/** Under way at once; more use the pool. */
export const READS_MAX = 64;
/** Less may lie in memory that the collector moves. */
const READ_BYTES_MIN = 512;
/** The thread that asked copies what came; more than this is better copied by another one. */
const READ_BYTES_MAX = 128 << 10;
/** Where no wake comes. */
const LOOK_MS = 1;
/** No read has it. */
const WAKES = READS_MAX;

interface Read {
  file: Descriptor;
  into: Uint8Array;
  resolve: (isDone: boolean) => void;
}

export interface ReadRingParts {
  clock: Pick<Clock, 'sleep'>;
  ring: RequestRing;
  /** The pipe's end that is written to, and what is told when something came out of it. */
  wakeFd: number;
  onWake: (wake: () => void) => { ref(): void; unref(): void };
  addressOf: (bytes: Uint8Array) => number | null;
}

export class ReadRing {
  readonly #clock: Pick<Clock, 'sleep'>;
  readonly #ring: RequestRing;
  readonly #wakeFd: number;
  readonly #loop: { ref(): void; unref(): void };
  readonly #addressOf: ReadRingParts['addressOf'];
  readonly #wakeByte: Uint8Array;
  readonly #wakeAddress: number;
  readonly #reads: (Read | null)[] = new Array<Read | null>(READS_MAX).fill(null);
  readonly #free: number[] = Array.from({ length: READS_MAX }, (_, slot) => slot);
  /** In the order in which they were pushed and not yet submitted. */
  #pushed: number[] = [];
  #isBroken = false;

  /** Null where the host has no such thing. */
  static open(clock: Pick<Clock, 'sleep'>): ReadRing | null {
    const ring = IoUring.open(2 * READS_MAX);
    const pipe = ring === null ? null : makePipe();
    if (ring === null || pipe === null) return null;
    return new ReadRing({ clock, ring, wakeFd: pipe.writeEnd, addressOf: libc().addressOf, onWake: (wake) => {
      const onread = { buffer: Buffer.alloc(256), callback: () => (wake(), true) };
      const socket = new Socket({ fd: pipe.readEnd, readable: true, writable: false, onread } as object);
      return socket.resume();
    } });
  }

  constructor({ clock, ring, wakeFd, onWake, addressOf }: ReadRingParts) {
    this.#clock = clock;
    this.#ring = ring;
    this.#wakeFd = wakeFd;
    this.#addressOf = addressOf;
    this.#wakeByte = new Uint8Array(READ_BYTES_MIN);
    this.#wakeAddress = addressOf(this.#wakeByte) ?? 0;
    this.#loop = onWake(() => this.#collect());
    this.#loop.unref();
  }

  /**
   * Fills `into`. Resolves to false when it is not filled, whatever the reason, and null when it cannot be asked now: the pool can then, and
   * says why not.
   */
  read(file: Descriptor, into: Uint8Array, position: number): Promise<boolean> | null {
    if (this.#isBroken || this.#free.length === 0 || into.length < READ_BYTES_MIN || into.length > READ_BYTES_MAX) return null;
    const address = this.#addressOf(into)!;
    // A descriptor that is closed throws here, before anything is taken.
    const fd = file.borrow();
    const slot = this.#free.pop()!;
    if (this.#free.length === READS_MAX - 1) this.#loop.ref();
    this.#ring.push({ opcode: OPCODE.read, flags: SQE_FLAG.hardLink, fd, address, length: into.length, offset: position, tag: slot });
    this.#ring.push({ opcode: OPCODE.write, flags: SQE_FLAG.silentSuccess, fd: this.#wakeFd, address: this.#wakeAddress, length: 1, offset: -1, tag: WAKES });
    this.#pushed.push(slot);
    // What one network packet brought is one call.
    if (this.#pushed.length === 1) queueMicrotask(() => this.#submit());
    return new Promise((resolve) => (this.#reads[slot] = { file, into, resolve }));
  }

  #submit(): void {
    const pushed = this.#pushed;
    this.#pushed = [];
    const taken = this.#ring.submit();
    if (taken === 2 * pushed.length) return;
    // The kernel has no memory for them, or will not: none is asked of it again. A read that was taken without its write wakes nobody.
    this.#isBroken = true;
    for (const slot of pushed.slice(Math.ceil(taken / 2))) this.#end(slot, false);
    if (taken % 2 === 1) void this.#collectUntilEmpty();
  }

  async #collectUntilEmpty(): Promise<void> {
    for (this.#collect(); this.#free.length < READS_MAX; this.#collect()) await this.#clock.sleep(LOOK_MS);
  }

  #collect(): void {
    this.#ring.answers((tag, result) => {
      // The pipe is full of wakes: one more says nothing new.
      if (tag !== WAKES) this.#end(tag, result === this.#reads[tag]!.into.length);
    });
  }

  #end(slot: number, isDone: boolean): void {
    const { file, resolve } = this.#reads[slot]!;
    this.#reads[slot] = null;
    this.#free.push(slot);
    if (this.#free.length === READS_MAX) this.#loop.unref();
    file.giveBack();
    resolve(isDone);
  }
}
