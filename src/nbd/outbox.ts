/**
 * The send side of one connection: replies are gathered while a batch of requests is worked on, and leave in one system
 * call.
 *
 * Memory: small reads reserve header and data in one slab before they start, so replies that end in order are adjacent
 * and merge into one piece; large reads bring their own slab; everything else is a few bytes in `#control`. What has
 * been added belongs to the outbox until the kernel has taken it.
 */
import { SLAB_BYTES, type Slab, type SlabPool } from './slab-pool.ts';

const CONTROL_BYTES = 16 * 1024;

/** What is used of a socket. */
export interface Sink {
  write(bytes: Uint8Array, written?: () => void): boolean;
  cork(): void;
  uncork(): void;
}

interface Piece {
  buffer: Buffer;
  start: number;
  end: number;
}

/** What one flush handed to the socket. */
interface Batch {
  slabs: Slab[];
  replies: number;
  payloadBytes: number;
}

export class Outbox {
  readonly #socket: Sink;
  readonly #pool: SlabPool;
  readonly #onWritten: (replies: number, payloadBytes: number) => void;
  #slab: Slab | null = null;
  #slabFill = 0;
  #control = Buffer.allocUnsafeSlow(CONTROL_BYTES);
  #controlFill = 0;
  #pieces: Piece[] = [];
  #batch: Batch = { slabs: [], replies: 0, payloadBytes: 0 };
  /** In the order of the socket's write callbacks. */
  readonly #underWay: Batch[] = [];

  constructor(socket: Sink, pool: SlabPool, onWritten: (replies: number, payloadBytes: number) => void) {
    this.#socket = socket;
    this.#pool = pool;
    this.#onWritten = onWritten;
  }

  /** Bytes wait for the client to take them. */
  get isWaiting(): boolean {
    return this.#underWay.length > 0;
  }

  /**
   * The slab for a small read, with its caller as a user; its bytes begin at `reservedAt`. Null when there is no memory
   * now.
   */
  reserve(bytes: number): Slab | null {
    if (this.#slab === null || this.#slabFill + bytes > this.#slab.bytes.length) {
      const next = this.#pool.take(SLAB_BYTES);
      if (next === null) return null;
      this.#letSlabGo();
      this.#slab = next;
    }
    this.#slab.users += 1;
    this.reservedAt = this.#slabFill;
    this.#slabFill += bytes;
    return this.#slab;
  }
  reservedAt = 0;

  /** Adds a piece. `slab` is released when it has been sent. */
  add(buffer: Buffer, start: number, end: number, slab: Slab | null): void {
    const last = this.#pieces.at(-1);
    if (last !== undefined && last.buffer === buffer && last.end === start) last.end = end;
    else this.#pieces.push({ buffer, start, end });
    if (slab !== null) this.#batch.slabs.push(slab);
  }

  /** Adds a few bytes, which the caller fills in at once: at `controlAt` of the result. */
  addControl(bytes: number): Buffer {
    if (this.#controlFill + bytes > this.#control.length) {
      this.#control = Buffer.allocUnsafeSlow(Math.max(CONTROL_BYTES, bytes));
      this.#controlFill = 0;
    }
    this.controlAt = this.#controlFill;
    this.#controlFill += bytes;
    this.add(this.#control, this.controlAt, this.#controlFill, null);
    return this.#control;
  }
  controlAt = 0;

  /** Counts a finished reply; `onWritten` hears of it when the kernel has taken it. */
  endReply(payloadBytes: number): void {
    this.#batch.replies += 1;
    this.#batch.payloadBytes += payloadBytes;
  }

  flush(): void {
    const pieces = this.#pieces;
    const last = pieces.at(-1);
    if (last === undefined) return;
    this.#underWay.push(this.#batch);
    this.#pieces = [];
    this.#batch = { slabs: [], replies: 0, payloadBytes: 0 };
    const socket = this.#socket;
    if (pieces.length === 1) {
      socket.write(last.buffer.subarray(last.start, last.end), this.#written);
      return;
    }
    socket.cork();
    for (let i = 0; i < pieces.length - 1; i += 1) {
      const { buffer, start, end } = pieces[i]!;
      socket.write(buffer.subarray(start, end));
    }
    socket.write(last.buffer.subarray(last.start, last.end), this.#written);
    socket.uncork();
  }

  /** The connection is over: nothing more will be sent. Batches under way are released by their callbacks. */
  dispose(): void {
    for (const slab of this.#batch.slabs) this.#pool.release(slab);
    this.#batch = { slabs: [], replies: 0, payloadBytes: 0 };
    this.#pieces = [];
    this.#letSlabGo();
  }

  /** Called for sent and for failed writes alike: either way the memory is free again. */
  readonly #written = (): void => {
    const batch = this.#underWay.shift();
    if (batch === undefined) return;
    for (const slab of batch.slabs) this.#pool.release(slab);
    if (this.#underWay.length === 0 && this.#pieces.length === 0) this.#controlFill = 0;
    if (this.#slab?.users === 1) this.#letSlabGo();
    this.#onWritten(batch.replies, batch.payloadBytes);
  };

  #letSlabGo(): void {
    if (this.#slab !== null) this.#pool.release(this.#slab);
    this.#slab = null;
    this.#slabFill = 0;
  }
}
