/**
 * Frames over a byte stream: bounded, numbered and sealed.
 *
 *   offset  size  field
 *        0     1  type
 *        1     3  length of the body in bytes, big-endian
 *        4     n  body
 *      4+n     8  seal: the first 8 bytes of BLAKE3(u32 number of the frame in this direction || type, length || body)
 *
 * The seal finds damage, loss, repetition and reordering on links without integrity of their own; it is no
 * authentication. That is the transport's (TLS or ssh).
 */
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { UnderstudyError } from '../../model/errors.ts';
import type { Compute } from '../../model/ports.ts';
import { malformed } from './byte-cursor.ts';
import { MEND_BYTES } from './tree-shape.ts';

export const HEADER_BYTES = 4;
export const SEAL_BYTES = 8;
/** A mend message whose pages did not shrink, with its list of leaves. */
export const BODY_BYTES_MAX = MEND_BYTES + 64 * 1024;

/** From here on a body is gathered in memory of its own, which is used again. */
const LARGE_BODY_BYTES = 64 * 1024;
const MEMORY_KEPT_MAX = 6;

export interface Frame {
  type: number;
  body: Buffer;
  /** For whoever has finished with the body of a large frame: its memory is filled again then. Without it, it is collected. */
  release?: () => void;
}

const newMemory = (): Buffer => Buffer.allocUnsafeSlow(HEADER_BYTES + BODY_BYTES_MAX + SEAL_BYTES);

export interface FrameChannel {
  /** Resolves when the stream takes more. Frames leave in the order of the calls. The parts are the caller's again when the call returns. */
  send(type: number, parts: readonly Uint8Array[]): Promise<void>;
  /** Null when the other side has ended the stream between two frames. One call at a time. */
  receive(): Promise<Frame | null>;
  /** Bytes sent and received so far, framing included. */
  readonly wireBytes: number;
  /**
   * Every pending and later call rejects with `reason`. A last frame is still sent when the stream takes it; resolves
   * when it has left or cannot.
   */
  close(reason: Error, last: { type: number; parts: readonly Uint8Array[] } | null): Promise<void>;
}

export function linkLost(detail: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError(
    'peer',
    'COMPARE_LINK_LOST',
    `the connection to the other side of the compare was lost: ${detail}`,
    'Start again: the compare continues from its last checkpoint.',
    { cause },
  );
}

export class StreamChannel implements FrameChannel {
  readonly #readable: Readable;
  readonly #writable: Writable;
  readonly #digester: Compute['digester'];
  readonly #chunks: AsyncIterator<Buffer>;
  /** Memory of large frames, for the next ones. */
  readonly #memory: Buffer[] = [];
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #sentFrames = 0;
  #receivedFrames = 0;
  #sentBytes = 0;
  #receivedBytes = 0;
  #failure: Error | null = null;
  #wakeWriters: (() => void)[] = [];

  /**
   * The streams stay the caller's; the channel keeps what it has read ahead, so several compares may follow one
   * another.
   */
  constructor(readable: Readable, writable: Writable, compute: Pick<Compute, 'digester'>) {
    this.#readable = readable;
    this.#writable = writable;
    this.#digester = () => compute.digester();
    this.#chunks = readable.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    const wake = () => {
      for (const resolve of this.#wakeWriters.splice(0)) resolve();
    };
    const fail = (error?: Error) => {
      this.#failure ??= linkLost(error?.message ?? 'closed', error);
      wake();
    };
    writable.on('drain', wake).on('error', fail).on('close', fail);
    readable.on('error', fail);
  }

  get wireBytes(): number {
    return this.#sentBytes + this.#receivedBytes;
  }

  /** Of those. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  async send(type: number, parts: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length > BODY_BYTES_MAX) throw new RangeError(`a body of ${length} bytes`);
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32BE(type * 2 ** 24 + length);
    const seal = this.#seal(this.#sentFrames++, [header, ...parts]);
    this.#sentBytes += HEADER_BYTES + length + SEAL_BYTES;
    this.#write([header, ...parts, seal], HEADER_BYTES + length + SEAL_BYTES);
    while (this.#writable.writableNeedDrain && this.#failure === null) {
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** As one piece: one record on TLS where it is small; several would be copied into new memory of the TLS layer where it is large. */
  #write(parts: readonly Uint8Array[], length: number): void {
    if (length < LARGE_BODY_BYTES) return void this.#writable.write(Buffer.concat(parts, length));
    const memory = this.#memory.pop() ?? newMemory();
    let used = 0;
    for (const part of parts) {
      memory.set(part, used);
      used += part.length;
    }
    this.#writable.write(memory.subarray(0, length), (error) => {
      // A socket has copied what it calls written; a stream in memory hands it on as it is.
      if (!error && this.#writable instanceof Socket) this.#keep(memory);
    });
  }

  /** Nobody looks at it any more. */
  #keep(memory: Buffer): void {
    if (this.#memory.length < MEMORY_KEPT_MAX) this.#memory.push(memory);
  }

  async receive(): Promise<Frame | null> {
    const header = await this.#take(HEADER_BYTES);
    if (header === null) return null;
    const type = header[0]!;
    const length = header.readUIntBE(1, 3);
    if (length > BODY_BYTES_MAX) throw malformed(`a body of ${length} bytes, the limit is ${BODY_BYTES_MAX}`);
    const memory = length >= LARGE_BODY_BYTES ? this.#memory.pop() ?? newMemory() : undefined;
    const rest = await this.#take(length + SEAL_BYTES, memory);
    if (rest === null) throw linkLost(`cut inside of message ${this.#receivedFrames}`);
    const body = rest.subarray(0, length);
    const seal = this.#seal(this.#receivedFrames, [header, body]);
    if (seal.compare(rest, length) !== 0) throw malformed(`the seal of message ${this.#receivedFrames} is wrong`);
    this.#receivedFrames++;
    if (memory === undefined) return { type, body };
    return { type, body, release: () => this.#keep(memory) };
  }

  async close(reason: Error, last: { type: number; parts: readonly Uint8Array[] } | null): Promise<void> {
    const open = this.#failure === null && !this.#writable.writableNeedDrain && !this.#writable.destroyed;
    if (open && last !== null) {
      await this.send(last.type, last.parts).catch(() => {}); // Best effort: the link may be what failed.
      this.#failure ??= reason;
      // Read to nowhere meanwhile: the other side may be in the middle of sending, and would not come to read the last frame.
      const drain = () => {
        while (this.#readable.read() !== null);
      };
      this.#readable.on('readable', drain);
      drain();
      await new Promise<void>((resolve) => {
        this.#writable.once('close', () => resolve()).once('error', () => resolve());
        this.#writable.end(() => resolve());
      });
    }
    this.#failure ??= reason;
    for (const resolve of this.#wakeWriters.splice(0)) resolve();
    // Destroyed without an error event: the reason travels by the rejections of `send` and `receive`.
    this.#readable.destroy();
    this.#writable.destroy();
  }

  #seal(number: number, parts: readonly Uint8Array[]): Buffer {
    const digester = this.#digester();
    const order = Buffer.alloc(4);
    order.writeUInt32BE(number % 2 ** 32);
    digester.update(order);
    for (const part of parts) digester.update(part);
    return Buffer.from(digester.digest().subarray(0, SEAL_BYTES));
  }

  /** Exactly `count` bytes, in `into` where that is given; null when the stream ends before the first of them. */
  async #take(count: number, into?: Buffer): Promise<Buffer | null> {
    while (this.#pendingBytes < count) {
      const chunk = await this.#nextChunk();
      if (chunk === null) {
        if (this.#failure !== null) throw this.#failure;
        if (this.#pendingBytes > 0) throw linkLost(`cut after ${this.#pendingBytes} of ${count} bytes`);
        return null;
      }
      this.#pending.push(chunk);
      this.#pendingBytes += chunk.length;
      this.#receivedBytes += chunk.length;
    }
    return this.#cut(count, into);
  }

  /** The first bytes of what is pending, which are there. */
  #cut(count: number, into?: Buffer): Buffer {
    this.#pendingBytes -= count;
    if (into === undefined && this.#pending[0]!.length >= count) {
      const [first] = this.#pending;
      if (first!.length === count) this.#pending.shift();
      else this.#pending[0] = first!.subarray(count);
      return first!.subarray(0, count);
    }
    const whole = (into ?? Buffer.allocUnsafe(count)).subarray(0, count);
    let filled = 0;
    let used = 0;
    for (; filled < count; used++) {
      const chunk = this.#pending[used]!;
      const copied = chunk.copy(whole, filled);
      filled += copied;
      if (copied < chunk.length) {
        this.#pending[used] = chunk.subarray(copied);
        break;
      }
    }
    this.#pending.splice(0, used);
    return whole;
  }

  async #nextChunk(): Promise<Buffer | null> {
    if (this.#failure !== null) throw this.#failure;
    try {
      const { value, done } = await this.#chunks.next();
      return done === true ? null : value;
    } catch (error) {
      throw this.#failure ?? linkLost(error instanceof Error ? error.message : String(error), error);
    }
  }
}
