import type { Duplex } from 'node:stream';
import { encodeValue, firstIssue } from './dispatcher.ts';
import type { PeerDispatcher } from './dispatcher.ts';
import { decodeFrame, encodeFrame } from './framing.ts';
import { memoryStream } from './memory-stream.ts';
import { JSON_BYTES_MAX, STREAM_PARAMS_BYTES_MAX } from './message.ts';
import type { PeerCaller, PeerMessage, PeerStreamMessage } from './message.ts';
import { fromWire, linkClosed, replyInvalid } from './peer-errors.ts';

export interface CallOptions {
  signal?: AbortSignal;
  /** Milliseconds for the whole call, connecting included. */
  timeoutMs?: number;
}

/** One host's way to ask one other host. Calls may run at the same time. */
export interface PeerLink {
  /**
   * Asks and awaits the reply. A refusal by the other host rejects with its UnderstudyError; a link that fails rejects
   * with one of kind 'peer' (docs/protocol/peer-transport.md lists the codes). An abort rejects with the signal's
   * reason.
   */
  call<P, R>(
    message: PeerMessage<P, R>, params: P, payload?: Uint8Array, options?: CallOptions,
  ): Promise<{ result: R; payload: Buffer }>;
  /**
   * Opens raw bytes both ways. Ending one direction leaves the other open; destroying or aborting it cuts both. An end
   * that arrives proves nothing, as a cut connection can look the same: what travels must itself say when it is
   * complete.
   */
  stream<P>(message: PeerStreamMessage<P>, params: P, options?: CallOptions): Promise<Duplex>;
  /** Calls and streams in flight fail. */
  close(): Promise<void>;
}

/**
 * The body of a request. Throws a TypeError or RangeError for what the message itself does not allow: a bug of the
 * caller.
 */
export function encodeRequest<P>(
  message: Pick<PeerMessage<P, unknown>, 'name' | 'params' | 'payloadBytesMax'>, params: P, payload: Uint8Array,
): [Buffer, Uint8Array] {
  if (payload.byteLength > message.payloadBytesMax) {
    throw new RangeError(`${message.name}: ${payload.byteLength} bytes of payload, declared ${message.payloadBytesMax}`);
  }
  const frame = encodeFrame(encodeValue(message.params, params), payload);
  if (frame[0].length > JSON_BYTES_MAX) throw new RangeError(`${message.name}: ${frame[0].length} bytes of JSON`);
  return frame;
}

/** The JSON text of a stream's parameters. */
export function encodeStreamParams<P>(message: PeerStreamMessage<P>, params: P): Buffer {
  const json = Buffer.from(JSON.stringify(encodeValue(message.params, params)));
  if (json.length > STREAM_PARAMS_BYTES_MAX) throw new RangeError(`${message.name}: ${json.length} bytes of JSON`);
  return json;
}

/** Throws the other host's refusal, or PEER_REPLY_INVALID for bytes that are no reply to this message. */
export function decodeReply<R>(
  message: Pick<PeerMessage<unknown, R>, 'name' | 'result' | 'replyBytesMax'>, bytes: Uint8Array,
): { result: R; payload: Buffer } {
  const frame = decodeFrame(bytes, message.replyBytesMax);
  if ('malformed' in frame) throw replyInvalid(message.name, frame.malformed);
  const refusal = fromWire(frame.json);
  if (refusal !== null) throw refusal;
  const json = frame.json;
  if (typeof json !== 'object' || json === null || !('result' in json)) {
    throw replyInvalid(message.name, 'it holds neither result nor error');
  }
  const parsed = message.result.safeParse(json.result);
  if (!parsed.success) throw replyInvalid(message.name, firstIssue(parsed.error));
  return { result: parsed.data, payload: frame.payload };
}

/**
 * A link within one process: the same bytes, checks and refusals as over TLS, without sockets or time-outs. For the
 * simulation and for tests of whoever talks through a PeerLink.
 */
export function memoryPeerLink(dispatcher: PeerDispatcher, caller: PeerCaller): PeerLink {
  const closing = new AbortController();
  return {
    async call(message, params, payload = new Uint8Array(0), { signal } = {}) {
      const ended = signal === undefined ? closing.signal : AbortSignal.any([signal, closing.signal]);
      ended.throwIfAborted();
      const request = Buffer.concat(encodeRequest(message, params, payload));
      const reply = await orAborted(dispatcher.dispatch(caller, message.name, request, ended), ended);
      return decodeReply(message, Buffer.concat(reply));
    },
    async stream(message, params, { signal } = {}) {
      const ended = signal === undefined ? closing.signal : AbortSignal.any([signal, closing.signal]);
      ended.throwIfAborted();
      const opened = await orAborted(dispatcher.openStream(caller, message.name, encodeStreamParams(message, params)), ended);
      if ('refusal' in opened) throw fromWire({ error: opened.refusal.toJSON() }) ?? opened.refusal;
      const [near, far] = memoryStream();
      ended.addEventListener('abort', () => near.destroy(ended.reason), { once: true });
      void opened.run(far);
      return near;
    },
    async close() {
      closing.abort(linkClosed());
    },
  };
}

function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
