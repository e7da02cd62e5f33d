/**
 * One connection to an NBD server. Requests are pipelined and answered in any order; how many and how many bytes are
 * under way is bounded, the rest waits in line.
 *
 * A connection that is lost, that stalls, or whose server breaks the protocol, has failed for good: what is under way
 * and whatever comes later rejects with EIO. Whoever wants to go on opens a new one, knowing that unflushed writes may
 * be gone.
 */
import net from 'node:net';
import { ioError } from '../disk-errors.ts';
import type { Clock } from '../../model/ports.ts';
import { clientHandshake, type NegotiatedExport } from './client-handshake.ts';
import { encodeRequest, NBD_CMD, type NbdStatusExtent } from './protocol.ts';
import { ReplyReader, type PendingRequest } from './reply-reader.ts';
import type { NbdAddress } from './uri.ts';

/** QEMU's server works on 16 requests of a connection at a time; more keep the line busy, not the disk. */
const REQUESTS_MAX = 32;
const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024;

export interface NbdClientOptions {
  clock: Clock;
  connectTimeoutMs: number;
  /** How long a single request may stay unanswered before the connection counts as lost. */
  requestTimeoutMs: number;
}

interface Request {
  command: number;
  offset: number;
  length: number;
  into?: Uint8Array;
  payload?: Uint8Array;
}

export class NbdClient {
  readonly export: NegotiatedExport;
  readonly #socket: net.Socket;
  readonly #options: NbdClientOptions;
  readonly #pending = new Map<bigint, PendingRequest>();
  /** First come, first served. */
  readonly #waiting: { bytes: number; resume: () => void }[] = [];
  readonly #ended = new AbortController();
  #inFlight = 0;
  #bytesInFlight = 0;
  #closing = false;
  #nextCookie = 1n;
  #failure: Error | null = null;
  #watching = false;
  #corked = false;
  #whenIdle: (() => void) | undefined;

  /** Takes over a socket on which the handshake is done. Use `NbdClient.connect`. */
  constructor(socket: net.Socket, found: NegotiatedExport, options: NbdClientOptions) {
    this.export = found;
    this.#socket = socket;
    this.#options = options;
    const reader = new ReplyReader(this.#pending, found.allocationContext);
    socket.on('data', (bytes: Buffer) => {
      if (this.#failure !== null) return;
      const malformed = reader.feed(bytes);
      if (malformed !== null) this.#fail(`the server does not speak NBD correctly: ${malformed.malformed}`);
    });
    socket.on('error', (error) => this.#fail(error.message, error));
    socket.on('close', () => this.#fail('the server closed the connection'));
    if (socket.destroyed) this.#fail('the server closed the connection');
    socket.resume();
  }

  /** Rejects with HandshakeError when the server says no, and with the system's error when there is no server. */
  static async connect(address: NbdAddress, options: NbdClientOptions): Promise<NbdClient> {
    const socket = net.connect({ ...address.connect, noDelay: true });
    const settled = new AbortController();
    try {
      const found = await Promise.race([
        negotiate(socket, address.exportName),
        options.clock.sleep(options.connectTimeoutMs, settled.signal).then(() => {
          throw ioError('ETIMEDOUT', `no NBD server answered within ${options.connectTimeoutMs} ms`);
        }),
      ]);
      return new NbdClient(socket, found, options);
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      settled.abort();
    }
  }

  /**
   * `into.length` is at most `export.maximumBlockSize`; offsets and lengths are multiples of `export.minimumBlockSize`.
   */
  async read(into: Uint8Array, offset: number): Promise<void> {
    await this.#request({ command: NBD_CMD.READ, offset, length: into.length, into });
  }

  /** Bounds as for `read`. `from` must stay as it is until the promise settles. */
  async write(from: Uint8Array, offset: number): Promise<void> {
    await this.#request({ command: NBD_CMD.WRITE, offset, length: from.length, payload: from });
  }

  /** The server may make it a hole. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#request({ command: NBD_CMD.WRITE_ZEROES, offset, length });
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#request({ command: NBD_CMD.TRIM, offset, length });
  }

  async flush(): Promise<void> {
    await this.#request({ command: NBD_CMD.FLUSH, offset: 0, length: 0 });
  }

  /**
   * `base:allocation` from `offset` on: at least one extent, together possibly shorter or longer than what was asked.
   */
  async blockStatus(offset: number, length: number): Promise<NbdStatusExtent[]> {
    return (await this.#request({ command: NBD_CMD.BLOCK_STATUS, offset, length })).extents;
  }

  /** Waits for what is under way, then says goodbye. Later requests reject with EBADF. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
    if (this.#failure !== null) return;
    this.#failure = ioError('EBADF', 'the NBD connection is closed');
    this.#ended.abort();
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.write(encodeRequest({ command: NBD_CMD.DISC, flags: 0, cookie: 0n, offset: 0, length: 0 }));
    this.#socket.destroySoon();
    await closed;
  }

  async #request(request: Request): Promise<PendingRequest> {
    if (this.#closing) throw ioError('EBADF', 'the NBD connection is closed');
    const bytes = (request.into ?? request.payload)?.length ?? 0;
    if (this.#waiting.length === 0 && this.#fits(bytes)) this.#admit(bytes);
    else await new Promise<void>((resume) => this.#waiting.push({ bytes, resume }));
    try {
      if (this.#failure !== null) throw this.#failure;
      return await this.#exchange(request);
    } finally {
      this.#leave(bytes);
    }
  }

  /** One request of any size may always go, so that none waits for ever. */
  #fits(bytes: number): boolean {
    return this.#inFlight === 0 || (this.#inFlight < REQUESTS_MAX && this.#bytesInFlight + bytes <= BYTES_IN_FLIGHT_MAX);
  }

  #admit(bytes: number): void {
    this.#inFlight += 1;
    this.#bytesInFlight += bytes;
  }

  #leave(bytes: number): void {
    this.#inFlight -= 1;
    this.#bytesInFlight -= bytes;
    for (let [next] = this.#waiting; next !== undefined && this.#fits(next.bytes); [next] = this.#waiting) {
      this.#waiting.shift();
      this.#admit(next.bytes);
      next.resume();
    }
    if (this.#inFlight === 0) this.#whenIdle?.();
  }

  #exchange(request: Request): Promise<PendingRequest> {
    return new Promise((resolve, reject) => {
      const { command, offset, length } = request;
      const cookie = this.#nextCookie++;
      const pending: PendingRequest = {
        command, offset, length, into: request.into ?? null, startedAt: this.#options.clock.monotonic(),
        filled: [], extents: [], error: null,
        done: (error) => (error === null ? resolve(pending) : reject(error)),
      };
      this.#pending.set(cookie, pending);
      this.#cork();
      this.#socket.write(encodeRequest({ command, flags: 0, cookie, offset, length }));
      if (request.payload !== undefined && length > 0) this.#socket.write(request.payload);
      if (!this.#watching) void this.#watch();
    });
  }

  /** Requests of one turn of the event loop leave in one system call. */
  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#corked = false;
      this.#socket.uncork();
    });
  }

  /** Runs while requests are under way: the oldest, which is the first of the map, decides when to give up. */
  async #watch(): Promise<void> {
    const { clock, requestTimeoutMs } = this.#options;
    this.#watching = true;
    for (;;) {
      const [oldest] = this.#pending.values();
      if (oldest === undefined || this.#failure !== null) break;
      const left = oldest.startedAt + requestTimeoutMs - clock.monotonic();
      if (left <= 0) this.#fail(`no answer to command ${oldest.command} for ${requestTimeoutMs} ms`);
      else await clock.sleep(left, this.#ended.signal).catch(() => {}); // aborted: the connection has ended
    }
    this.#watching = false;
  }

  #fail(reason: string, cause?: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = ioError('EIO', `the NBD connection failed: ${reason}`, cause);
    this.#ended.abort();
    this.#socket.destroy();
    for (const request of this.#pending.values()) request.done(this.#failure);
    this.#pending.clear(); // and those in line follow as these leave
  }
}

/**
 * Drives the handshake over a fresh socket; afterwards the socket is paused, and only the error listener is left, which
 * does nothing any more.
 */
function negotiate(socket: net.Socket, exportName: string): Promise<NegotiatedExport> {
  return new Promise((resolve, reject) => {
    const steps = clientHandshake(exportName);
    let received: Buffer = Buffer.alloc(0);
    let step = steps.next(received);
    const onData = (bytes: Buffer): void => {
      received = Buffer.concat([received, bytes]);
      try {
        while (step.done !== true && received.length >= step.value.need) {
          const taken = received.subarray(0, step.value.need);
          received = received.subarray(step.value.need);
          step = steps.next(taken);
          if (step.done !== true && step.value.send.length > 0) socket.write(step.value.send);
        }
      } catch (error) {
        reject(error as Error);
        return;
      }
      if (step.done !== true) return;
      socket.pause();
      socket.off('data', onData).off('close', onClose);
      if (received.length > 0) socket.unshift(received);
      resolve(step.value);
    };
    const onClose = (): void => reject(ioError('ECONNRESET', 'the server closed the connection during the handshake'));
    socket.on('data', onData).on('error', reject).on('close', onClose);
  });
}
