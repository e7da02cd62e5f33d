/**
 * For tests: a client that sends exactly the bytes it is told to, a server on a socket of its own, and a clock that is
 * turned by hand.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  NBD_CLIENT_FLAG, NBD_GREETING_BYTES, NBD_OPT, NBD_OPTION_REPLY_BYTES, NBD_REP, decodeOptionReplyHeader, decodeReplyHeader,
  encodeClientFlags, encodeInfoRequest, encodeMetaRequest, encodeOption, encodeRequest, isMalformed, replyHeaderBytes,
  type NbdReplyHeader,
} from '../disk/nbd/protocol.ts';
import type { Clock } from '../model/ports.ts';
import type { NbdExport } from './export.ts';
import type { NbdLimits } from './limits.ts';
import { NbdServer } from './server.ts';

export interface OptionReply {
  type: number;
  data: Buffer;
}

export class ScriptedClient {
  readonly socket: Socket;
  /** Resolves when the connection is closed, however that comes. */
  readonly closed: Promise<void>;
  received = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #isClosed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.received = Buffer.concat([this.received, chunk]);
      this.#wake?.();
    });
    socket.on('end', () => socket.end());
    socket.on('error', () => undefined);
    // Not `once` of node:events, which rejects for a reset.
    this.closed = new Promise((resolve) => socket.once('close', () => {
      this.#isClosed = true;
      this.#wake?.();
      resolve();
    }));
  }

  static async open(path: string): Promise<ScriptedClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new ScriptedClient(socket);
  }

  send(...bytes: Buffer[]): void {
    this.socket.write(Buffer.concat(bytes));
  }

  /** The next `count` bytes; rejects when the connection closes before. */
  async take(count: number): Promise<Buffer> {
    while (this.received.length < count) {
      if (this.#isClosed) throw new Error(`closed with ${this.received.length} of ${count} bytes received`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const taken = this.received.subarray(0, count);
    this.received = this.received.subarray(count);
    return taken;
  }

  /** Takes the greeting and answers it. */
  async greet(flags: number = NBD_CLIENT_FLAG.FIXED_NEWSTYLE | NBD_CLIENT_FLAG.NO_ZEROES): Promise<this> {
    await this.take(NBD_GREETING_BYTES);
    this.send(encodeClientFlags(flags));
    return this;
  }

  /** Sends one option and takes its replies up to the last, which is an ACK or an error. */
  async option(option: number, data?: Buffer): Promise<OptionReply[]> {
    this.send(encodeOption(option, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(await this.take(NBD_OPTION_REPLY_BYTES));
      if (isMalformed(header)) throw new Error(header.malformed);
      replies.push({ type: header.type, data: await this.take(header.length) });
      if (header.type === NBD_REP.ACK || header.type >= NBD_REP.ERR_UNSUP) return replies;
    }
  }

  /** The whole handshake, as QEMU does it. */
  async attach(name = 'disk', options: { structured?: boolean } = {}): Promise<this> {
    await this.greet();
    if (options.structured !== false) {
      await this.option(NBD_OPT.STRUCTURED_REPLY);
      await this.option(NBD_OPT.SET_META_CONTEXT, encodeMetaRequest({ name, queries: ['base:allocation'] }));
    }
    const replies = await this.option(NBD_OPT.GO, encodeInfoRequest({ name, infos: [3] }));
    if (replies.at(-1)?.type !== NBD_REP.ACK) throw new Error(`refused: ${replies.at(-1)?.data.toString()}`);
    return this;
  }

  request(
    command: number, offset: number, length: number, rest: { flags?: number; cookie?: bigint; payload?: Buffer } = {},
  ): void {
    const header = encodeRequest({ command, offset, length, flags: rest.flags ?? 0, cookie: rest.cookie ?? 7n });
    this.send(header, rest.payload ?? Buffer.alloc(0));
  }

  /** The next reply. `length` is that of the data of a READ, needed for simple replies only. */
  async reply(length = 0): Promise<NbdReplyHeader & { payload: Buffer }> {
    const bytes = replyHeaderBytes((await this.peek(4)).readUInt32BE(0));
    if (bytes === null) throw new Error('unknown reply magic');
    const header = decodeReplyHeader(await this.take(bytes));
    if (isMalformed(header)) throw new Error(header.malformed);
    return { ...header, payload: await this.take(header.kind === 'chunk' ? header.length : length) };
  }

  async peek(count: number): Promise<Buffer> {
    const taken = await this.take(count);
    this.received = Buffer.concat([taken, this.received]);
    return taken;
  }

  async hangUp(): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }
}

export interface LogLine {
  level: 'debug' | 'info' | 'warn' | 'error';
  message: string;
  fields: Record<string, unknown>;
}

export interface Rig {
  server: NbdServer;
  path: string;
  lines: LogLine[];
  client(): Promise<ScriptedClient>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A server on a Unix socket in a folder of its own. */
export async function rig(
  exports: NbdExport[],
  options: { limits?: Partial<NbdLimits>; clock?: Clock; exportOf?: (name: string) => NbdExport | undefined } = {},
): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-test-'));
  const path = join(folder, 'nbd.sock');
  const lines: LogLine[] = [];
  const at = (level: LogLine['level']) => (fields: object, message: string) => {
    lines.push({ level, message, fields: fields as Record<string, unknown> });
  };
  const server = new NbdServer({
    exports: options.exportOf ?? ((name) => exports.find((each) => each.name === name)),
    list: () => exports.map((each) => each.name),
    clock: options.clock ?? new HandClock(),
    log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
    limits: options.limits ?? {},
  });
  await server.listenUnix(path);
  return {
    server, path, lines,
    client: () => ScriptedClient.open(path),
    async [Symbol.asyncDispose]() {
      await server.close({ drainMs: 0 }); // What a failed test holds open must not hold up the ones after it.
      rmSync(folder, { recursive: true });
    },
  };
}

/** Time passes only when a test says so. */
export class HandClock implements Clock {
  #now = 0;
  #sleepers: { until: number; wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (ms === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#sleepers.push({ until: this.#now + ms, wake: resolve });
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
    });
  }

  /** Lets everybody who sleeps see each second that passes. */
  async pass(ms: number): Promise<void> {
    for (const end = this.#now + ms; this.#now < end;) {
      this.#now = Math.min(this.#now + 1000, end);
      const due = this.#sleepers.filter((sleeper) => sleeper.until <= this.#now);
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.until > this.#now);
      for (const sleeper of due) sleeper.wake();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
