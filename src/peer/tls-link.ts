import { Agent, request } from 'node:http';
import type { ClientRequest, ClientRequestArgs, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import type { Clock } from '../model/ports.ts';
import { lengthOf, readBody, writeBody } from './body.ts';
import { Budget } from './budget.ts';
import { FRAME_HEADER_BYTES } from './framing.ts';
import type { HostIdentity } from './identity.ts';
import { decodeReply, encodeRequest, encodeStreamParams } from './link.ts';
import type { CallOptions, PeerLink } from './link.ts';
import { linkError, timedOut } from './link-errors.ts';
import { JSON_BYTES_MAX, PROTOCOL_VERSION } from './message.ts';
import type { PeerMessage, PeerStreamMessage } from './message.ts';
import { linkClosed, replyInvalid } from './peer-errors.ts';
import { connectPinned } from './tls-connect.ts';
import type { PinnedAddress } from './tls-connect.ts';
import { HEADER_BYTES_MAX, STREAM_PARAMS_HEADER, STREAM_PROTOCOL } from './tls-parameters.ts';

export interface TlsLinkLimits {
  /** TCP and TLS together. */
  connectMs: number;
  /** A call that names no time-out of its own; also the opening of a stream. */
  callMs: number;
  /** A stream over which no byte moves for so long is cut. */
  streamIdleMs: number;
  /** Calls at one time, each on its own connection; more wait their turn, and their time-out runs. */
  calls: number;
}

export const TLS_LINK_LIMITS: TlsLinkLimits = { connectMs: 10_000, callMs: 60_000, streamIdleMs: 300_000, calls: 8 };

const EMPTY = new Uint8Array(0);
/** Of a time-out that is not needed any more. Made once: an abort without a reason makes an error with a stack. */
const OVER = new Error('the call is over');
/** A stream is answered by a refusal or by the bytes themselves. */
const NO_RESULT = z.never();

/**
 * A link to one pinned host. Connects when first used and again after every failure; connections are kept between
 * calls. A call is never repeated by the link itself.
 */
export class TlsPeerLink implements PeerLink {
  readonly #to: PinnedAddress;
  readonly #where: string;
  readonly #identity: HostIdentity;
  readonly #clock: Clock;
  readonly #limits: TlsLinkLimits;
  readonly #calls: Budget;
  readonly #closing = new AbortController();
  readonly #agent: PinnedAgent;

  constructor(parts: PinnedAddress & { identity: HostIdentity; clock: Clock; limits?: Partial<TlsLinkLimits> }) {
    this.#to = { host: parts.host, port: parts.port, fingerprint: parts.fingerprint };
    this.#where = `${parts.host}:${parts.port}`;
    this.#identity = parts.identity;
    this.#clock = parts.clock;
    this.#limits = { ...TLS_LINK_LIMITS, ...parts.limits };
    this.#calls = new Budget(this.#limits.calls);
    this.#agent = new PinnedAgent(() => this.#connect(this.#closing.signal));
  }

  async call<P, R>(
    message: PeerMessage<P, R>, params: P, payload: Uint8Array = EMPTY, options: CallOptions = {},
  ): Promise<{ result: R; payload: Buffer }> {
    const body = encodeRequest(message, params, payload);
    return this.#bounded(message.name, options, async (signal) => {
      const release = await this.#calls.acquire(1, signal);
      try {
        return decodeReply(message, await this.#exchange(message, body, signal));
      } finally {
        release();
      }
    });
  }

  async stream<P>(message: PeerStreamMessage<P>, params: P, options: CallOptions = {}): Promise<Duplex> {
    const json = encodeStreamParams(message, params);
    const socket = await this.#bounded(message.name, options, (signal) => this.#upgrade(message.name, json, signal));
    const ended = options.signal === undefined
      ? this.#closing.signal : AbortSignal.any([options.signal, this.#closing.signal]);
    const abort = () => socket.destroy(ended.reason as Error);
    ended.addEventListener('abort', abort, { once: true });
    socket.once('close', () => ended.removeEventListener('abort', abort));
    socket.setTimeout(this.#limits.streamIdleMs, () => {
      socket.destroy(timedOut(this.#where, `a byte of stream ${message.name}`, this.#limits.streamIdleMs));
    });
    // Aborted between the answer and here: the listener above came too late.
    if (ended.aborted) abort();
    return socket;
  }

  async close(): Promise<void> {
    this.#closing.abort(linkClosed());
    this.#agent.destroy();
  }

  #connect(signal: AbortSignal): Promise<TLSSocket> {
    return connectPinned(this.#to, this.#identity, { clock: this.#clock, connectMs: this.#limits.connectMs, signal });
  }

  /**
   * Runs `work` under the call's time-out, its caller's signal and the closing of the link; errors come out as link
   * errors.
   */
  async #bounded<T>(name: string, options: CallOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const timeoutMs = options.timeoutMs ?? this.#limits.callMs;
    const late = new AbortController();
    const over = new AbortController();
    const signals = [late.signal, this.#closing.signal];
    const signal = AbortSignal.any(options.signal === undefined ? signals : [...signals, options.signal]);
    this.#clock.sleep(timeoutMs, over.signal).then(() => late.abort(timedOut(this.#where, name, timeoutMs)), () => {});
    try {
      signal.throwIfAborted();
      return await work(signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw linkError(error, this.#where, 'open');
    } finally {
      over.abort(OVER);
    }
  }

  #exchange(message: { name: string; replyBytesMax: number }, body: readonly Uint8Array[], signal: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const asked = request({
        ...this.#requestOptions(message.name, signal), method: 'POST', agent: this.#agent,
        headers: { 'content-type': 'application/octet-stream', 'content-length': lengthOf(body) },
      });
      let answered = false;
      asked.on('error', reject);
      // The only sign of a switch of protocols that nobody asked for.
      asked.on('close', () => { if (!answered) reject(new Error('closed without an answer')); });
      asked.on('response', (reply) => {
        answered = true;
        readReply(message.name, reply, message.replyBytesMax).then(resolve, reject).finally(() => abandon(asked));
      });
      // What breaks the connection shows as 'error' or 'close'; an answer before the end of the body is as good as one after.
      writeBody(asked, body).catch(() => {});
    });
  }

  async #upgrade(name: string, paramsJson: Buffer, signal: AbortSignal): Promise<TLSSocket> {
    const socket = await this.#connect(signal);
    return new Promise((resolve, reject) => {
      const asked = request({
        ...this.#requestOptions(name, signal), method: 'GET', createConnection: () => socket,
        headers: { connection: 'Upgrade', upgrade: STREAM_PROTOCOL, [STREAM_PARAMS_HEADER]: paramsJson.toString('base64url') },
      });
      asked.on('error', (error) => {
        socket.destroy();
        reject(error);
      });
      asked.on('upgrade', (reply, _socket, early: Buffer) => {
        if (reply.headers.upgrade !== STREAM_PROTOCOL) {
          socket.destroy();
          return reject(replyInvalid(name, 'it opens another protocol'));
        }
        if (early.length > 0) socket.unshift(early);
        resolve(socket);
      });
      asked.on('response', (reply) => {
        readReply(name, reply, 0)
          .then((bytes) => decodeReply({ name, result: NO_RESULT, replyBytesMax: 0 }, bytes))
          .catch(reject)
          .finally(() => socket.destroy());
      });
      asked.end();
    });
  }

  #requestOptions(name: string, signal: AbortSignal): ClientRequestArgs {
    return {
      host: this.#to.host, port: this.#to.port, path: `/peer/v${PROTOCOL_VERSION}/${name}`,
      signal, maxHeaderSize: HEADER_BYTES_MAX,
    };
  }
}

/** Keeps idle connections; makes new ones only as `connect` does. */
class PinnedAgent extends Agent {
  readonly #connect: () => Promise<TLSSocket>;

  constructor(connect: () => Promise<TLSSocket>) {
    super({ keepAlive: true });
    this.#connect = connect;
  }

  override createConnection(_options: ClientRequestArgs, done?: (error: Error | null, socket: Duplex) => void): undefined {
    this.#connect().then((socket) => done?.(null, socket), (error: Error) => done?.(error, undefined as unknown as Duplex));
  }
}

/** Reads a whole reply of a declared length. */
async function readReply(name: string, reply: IncomingMessage, payloadMax: number): Promise<Buffer> {
  const declared = Number(reply.headers['content-length'] ?? Number.NaN);
  const most = FRAME_HEADER_BYTES + JSON_BYTES_MAX + payloadMax;
  if (declared >= 0 && declared <= most) return readBody(reply, declared);
  reply.destroy();
  throw replyInvalid(name, `HTTP status ${reply.statusCode} with a body of ${declared} bytes, at most ${most} are allowed`);
}

/** An answer that came before the question was out is a refusal: nobody will read the rest. */
function abandon(asked: ClientRequest): void {
  if (!asked.writableFinished) asked.destroy();
}
