/**
 * One open file or device with positional I/O: the ground under raw disks, block devices and the `Files` port.
 *
 * Invariant: the number of the descriptor is given back to the system only when no operation uses it any more. A late
 * write on a number that was closed and handed out again would land in somebody else's file.
 */
import fs from 'node:fs';
import type { OpenFile } from '../model/ports.ts';
import { ioError } from './disk-errors.ts';
import { libc, type Libc } from './libc.ts';
import type { Extent } from './virtual-disk.ts';
import type { ReadRing } from './read-ring.ts';
import type { WriteThread } from './write-thread.ts';

/** Linux moves less than 2 GiB in one call; Node refuses more. */
const CALL_BYTES_MAX = 1 << 30;
/** From here on a write is worth the thread that writes in pieces (write-ring.ts says what those save). */
const THREAD_BYTES_MIN = 256 * 1024;
const ZEROES = Buffer.alloc(1 << 20);
/** Smaller holes than this free nothing on the usual file systems: writing zeroes is cheaper than punching. */
const HOLE_BYTES_MIN = 4096;
/** Between this many extents other work gets its turn: a badly fragmented file has millions. */
const EXTENTS_PER_TURN = 64;

export interface OpenOptions {
  mode?: number;
  libc?: Libc | undefined;
  /** For large writes of one buffer. */
  writeThread?: WriteThread | undefined;
  /** For reads that wait for the device. */
  readRing?: ReadRing | undefined;
}

export class Descriptor implements OpenFile {
  readonly path: string;
  readonly #libc: Libc;
  #fd: number;
  #busy = 0;
  #whenIdle: (() => void) | undefined;
  #canPunch = true;
  /** A file behind a network or a program may hang for ever while the rest of the machine is well. */
  #isLocal: boolean | undefined;
  readonly #writeThread: WriteThread | null;
  readonly #readRing: ReadRing | null;

  constructor(path: string, fd: number, options: Omit<OpenOptions, 'mode'> = {}) {
    this.path = path;
    this.#fd = fd;
    this.#libc = options.libc ?? libc();
    this.#writeThread = options.writeThread ?? null;
    this.#readRing = options.readRing ?? null;
  }

  /** `flags` and `mode` as for open(2) (libuv adds O_CLOEXEC); rejects with the system's error. */
  static open(path: string, flags: number, options: OpenOptions = {}): Promise<Descriptor> {
    return new Promise((resolve, reject) => {
      fs.open(path, flags, options.mode ?? 0o600, (error, fd) => {
        if (error) reject(error);
        else resolve(new Descriptor(path, fd, options));
      });
    });
  }

  /** Reads until `into` is full or the file ends. */
  read(into: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fd = this.fd;
      let done = 0;
      const step = (error: Error | null, count: number): void => {
        done += count;
        if (error === null && count > 0 && done < into.length) {
          fs.read(fd, into, done, Math.min(into.length - done, CALL_BYTES_MAX), position + done, step);
          return;
        }
        this.#leave();
        if (error === null) resolve(done);
        else reject(error);
      };
      fs.read(fd, into, 0, Math.min(into.length, CALL_BYTES_MAX), position, step);
      this.#busy += 1;
    });
  }

  /** Fills `into` or rejects: with EIO where the file ends before. */
  async readFully(into: Uint8Array, position: number): Promise<void> {
    const byRing = this.#readRing?.read(this, into, position) ?? null;
    if (byRing !== null && (await byRing)) return;
    const count = await this.read(into, position);
    if (count < into.length) throw ioError('EIO', `${this.path} ends at ${position + count}, ${into.length - count} bytes early`);
  }

  async write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    if (buffers.length === 1) return this.writeOne(buffers[0]!, position);
    let rest = buffers.filter((buffer) => buffer.length > 0);
    let at = position;
    while (rest.length > 0) {
      const written = await this.#writev(rest, at);
      at += written;
      rest = skipBytes(rest, written);
    }
  }

  /** The fast path of `write`: one buffer. */
  writeOne(from: Uint8Array, position: number): Promise<void> {
    if (from.length < THREAD_BYTES_MIN || this.#writeThread === null) return this.#writeByPool(from, position);
    return this.#writeByThread(this.#writeThread, from, position);
  }

  async #writeByThread(thread: WriteThread, from: Uint8Array, position: number): Promise<void> {
    const isDone = await thread.write([{ file: this, buffers: [from], position }]);
    if (isDone !== true) await this.#writeByPool(from, position);
  }

  /** One call, one promise. */
  #writeByPool(from: Uint8Array, position: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fd = this.fd;
      let done = 0;
      const step = (error: Error | null, count: number): void => {
        done += count;
        if (error === null && done < from.length) {
          if (count > 0) {
            fs.write(fd, from, done, Math.min(from.length - done, CALL_BYTES_MAX), position + done, step);
            return;
          }
          error = ioError('EIO', `${this.path} took only ${done} of ${from.length} bytes at ${position}`);
        }
        this.#leave();
        if (error === null) resolve();
        else reject(error);
      };
      fs.write(fd, from, 0, Math.min(from.length, CALL_BYTES_MAX), position, step);
      this.#busy += 1;
    });
  }

  /**
   * `writeOne` on this thread: fast into the page cache, but the event loop stands still for as long as the device
   * takes. False, with nothing done, where that may be for ever.
   */
  writeNow(from: Uint8Array, position: number): boolean {
    this.#isLocal ??= this.#libc.isLocal(this.fd);
    if (!this.#isLocal) return false;
    let done = 0;
    while (done < from.length) {
      const count = fs.writeSync(this.fd, from, done, Math.min(from.length - done, CALL_BYTES_MAX), position + done);
      if (count === 0) throw ioError('EIO', `${this.path} took only ${done} of ${from.length} bytes at ${position}`);
      done += count;
    }
    return true;
  }

  /** Fills `into` from the page cache; false when that would have to wait or is not all of it: then use `read`. */
  readNow(into: Uint8Array, position: number): boolean {
    return this.#fd >= 0 && this.#libc.readNow(this.#fd, into, position) === into.length;
  }

  async writeDurably(from: Uint8Array, position: number): Promise<boolean> {
    return (await this.use((fd) => this.#libc.writeDurably(fd, from, position))) === from.length;
  }

  /** As `Libc.startWriteBack`. */
  startWriteBack(offset: number, length: number): Promise<boolean> {
    return this.use((fd) => this.#libc.startWriteBack(fd, offset, length));
  }

  datasync(): Promise<void> {
    return this.#call((done) => fs.fdatasync(this.fd, done));
  }

  /** Metadata too; for folders. */
  sync(): Promise<void> {
    return this.#call((done) => fs.fsync(this.fd, done));
  }

  truncate(size: number): Promise<void> {
    return this.#call((done) => fs.ftruncate(this.fd, size, done));
  }

  async size(): Promise<number> {
    return Number((await this.stat()).size);
  }

  stat(): Promise<fs.BigIntStats> {
    return new Promise((resolve, reject) => {
      fs.fstat(this.fd, { bigint: true }, (error, stat) => {
        this.#leave();
        if (error) reject(error);
        else resolve(stat);
      });
      this.#busy += 1;
    });
  }

  /** Makes the range, which lies inside the file, a hole; where that cannot be, zeroes are written. */
  async zero(offset: number, length: number): Promise<void> {
    if (length >= HOLE_BYTES_MIN && (await this.tryPunch(offset, length))) return;
    await this.writeZeroes(offset, length);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += ZEROES.length) {
      await this.writeOne(ZEROES.subarray(0, Math.min(ZEROES.length, length - done)), offset + done);
    }
  }

  async punch(offset: number, length: number): Promise<void> {
    if (!(await this.tryPunch(offset, length))) throw ioError('EOPNOTSUPP', `${this.path} cannot have holes`);
  }

  /** False when this file cannot have holes; then nothing was done. */
  async tryPunch(offset: number, length: number): Promise<boolean> {
    this.#canPunch &&= await this.use((fd) => this.#libc.punchHole(fd, offset, length));
    return this.#canPunch;
  }

  /**
   * Extents of `[offset, end)`, which lies inside the file: holes are `zero`. All `data` where holes cannot be seen.
   */
  async *extents(offset: number, end: number): AsyncGenerator<Extent> {
    let at = offset;
    for (let turn = 1; at < end; turn += 1) {
      if (turn % EXTENTS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
      const data = Math.min(end, this.#libc.seekData(this.fd, at) ?? end);
      if (data > at) yield { offset: at, length: data - at, kind: 'zero' };
      if (data === end) return;
      const hole = this.#libc.seekHole(this.fd, data, end);
      if (hole > data) yield { offset: data, length: hole - data, kind: 'data' };
      at = hole;
    }
  }

  /** The number, for a call that is over before anything else can close it. */
  get fd(): number {
    if (this.#fd < 0) throw ioError('EBADF', `${this.path} is closed`);
    return this.#fd;
  }

  /** Lends the number to work that ends with the promise; `close` waits for it. */
  async use<T>(work: (fd: number) => Promise<T>): Promise<T> {
    const fd = this.fd;
    this.#busy += 1;
    try {
      return await work(fd);
    } finally {
      this.#leave();
    }
  }

  /** The same without a promise: until `giveBack`. */
  borrow(): number {
    const fd = this.fd;
    this.#busy += 1;
    return fd;
  }

  giveBack(): void {
    this.#leave();
  }

  /** Waits for operations under way; later ones are refused with EBADF. Closing again does nothing. */
  async close(): Promise<void> {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    if (this.#busy > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
    await new Promise<void>((resolve, reject) => fs.close(fd, (error) => (error ? reject(error) : resolve())));
  }

  #call(start: (done: (error: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      start((error) => {
        this.#leave();
        if (error) reject(error);
        else resolve();
      });
      this.#busy += 1;
    });
  }

  /** Any number of buffers: libuv makes several system calls of them where the system wants it so. */
  #writev(buffers: readonly Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.writev(this.fd, buffers, position, (error, count) => {
        this.#leave();
        if (error) reject(error);
        else if (count === 0) reject(ioError('EIO', `${this.path} took nothing at ${position}`));
        else resolve(count);
      });
      this.#busy += 1;
    });
  }

  #leave(): void {
    this.#busy -= 1;
    if (this.#busy === 0) this.#whenIdle?.();
  }
}

/** What is left of the buffers behind their first `count` bytes. */
export function skipBytes(buffers: readonly Uint8Array[], count: number): Uint8Array[] {
  let first = 0;
  let left = count;
  while (first < buffers.length && left >= buffers[first]!.length) {
    left -= buffers[first]!.length;
    first += 1;
  }
  return left === 0 ? buffers.slice(first) : [buffers[first]!.subarray(left), ...buffers.slice(first + 1)];
}
