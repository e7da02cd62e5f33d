import type { Duplex } from 'node:stream';
import type { z } from 'zod';
import { UnderstudyError } from '../model/errors.ts';
import type { Logger } from '../model/ports.ts';
import type { PeerEntry } from './authorisation.ts';
import { decodeFrame, encodeFrame, parseJson } from './framing.ts';
import { isMessageName, JSON_BYTES_MAX, PAYLOAD_BYTES_MAX, STREAM_PARAMS_BYTES_MAX } from './message.ts';
import type { PeerCaller, PeerMessage, PeerReply, PeerStreamMessage } from './message.ts';
import { internalFailure, messageInvalid, messageUnknown, notAuthorised, toWire } from './peer-errors.ts';

/** The payload is the handler's until its promise settles; a reply must not share its memory. */
export type MessageHandler<P, R> =
  (caller: PeerCaller, params: P, payload: Buffer, signal: AbortSignal) => Promise<PeerReply<R>>;
/** The stream is ended when the promise resolves, and cut when it rejects. */
export type StreamHandler<P> = (caller: PeerCaller, params: P, stream: Duplex) => Promise<void>;
/** Runs before a stream is opened; what it throws is the refusal the other host sees. */
export type StreamAdmission<P> = (caller: PeerCaller, params: P) => Promise<void>;
export type OpenedStream = { run(stream: Duplex): Promise<void> } | { refusal: UnderstudyError };

type MessageEntry = { message: PeerMessage<unknown, unknown>; handler: MessageHandler<unknown, unknown> };
type StreamEntry = { params: z.ZodType; handler: StreamHandler<unknown>; admit: StreamAdmission<unknown> };

const NEVER = new AbortController().signal;

/**
 * Name → validated handler; knows no sockets. A handler is called only for an authorised caller, with parameters its
 * schema accepted and a payload within its bound.
 */
export class PeerDispatcher {
  readonly #messages = new Map<string, MessageEntry>();
  readonly #streams = new Map<string, StreamEntry>();
  readonly #log: Logger;
  readonly #authenticate: (caller: PeerCaller) => PeerEntry | null;

  constructor(parts: { log: Logger; authenticate: (caller: PeerCaller) => PeerEntry | null }) {
    this.#log = parts.log;
    this.#authenticate = parts.authenticate;
  }

  handle<P, R>(message: PeerMessage<P, R>, handler: MessageHandler<P, R>): void {
    this.#checkName(message.name);
    for (const bytes of [message.payloadBytesMax, message.replyBytesMax]) {
      if (!(bytes >= 0 && bytes <= PAYLOAD_BYTES_MAX)) throw new RangeError(`${message.name}: ${bytes} bytes of payload`);
    }
    this.#messages.set(message.name, { message, handler } as unknown as MessageEntry);
  }

  handleStream<P>(message: PeerStreamMessage<P>, handler: StreamHandler<P>, admit?: StreamAdmission<P>): void {
    this.#checkName(message.name);
    this.#streams.set(message.name, { params: message.params, handler, admit: admit ?? (async () => {}) } as StreamEntry);
  }

  /** The caller with the name of its entry, or null when nobody authorised it. Entries are read anew each time. */
  authorise(caller: PeerCaller): PeerCaller | null {
    const entry = this.#authenticate(caller);
    if (entry === null) return null;
    return entry.name === null ? caller : { ...caller, name: entry.name };
  }

  /** What the message declares, or null when there is none of that name. */
  limitsOf(name: string): { payloadBytesMax: number; replyBytesMax: number } | null {
    return this.#messages.get(name)?.message ?? null;
  }

  /**
   * Answers one request body. Never rejects: refusals and failures are replies too. `bytesDone` is called when the handler has ended
   * well: it knows them no more. After a failure something of it may still be under way.
   * @returns the reply body as buffers to be written one after another
   */
  async dispatch(caller: PeerCaller, name: string, bytes: Uint8Array, signal: AbortSignal = NEVER, bytesDone = () => {}): Promise<Uint8Array[]> {
    try {
      const known = this.authorise(caller);
      if (known === null) throw notAuthorised(caller.fingerprint);
      const entry = this.#messages.get(name);
      if (entry === undefined) throw messageUnknown(isMessageName(name) ? name : '(not a name)');
      const reply = await this.#answer(known, entry, bytes, signal);
      bytesDone();
      return reply;
    } catch (error) {
      return encodeFrame(toWire(this.#refusal(caller, name, error)), new Uint8Array(0));
    }
  }

  /** Validates and admits a stream. `paramsJson` is the JSON text of its parameters. Never rejects; nor does `run`. */
  async openStream(caller: PeerCaller, name: string, paramsJson: Uint8Array): Promise<OpenedStream> {
    try {
      const known = this.authorise(caller);
      if (known === null) throw notAuthorised(caller.fingerprint);
      const entry = this.#streams.get(name);
      if (entry === undefined) throw messageUnknown(isMessageName(name) ? name : '(not a name)');
      const json = paramsJson.byteLength <= STREAM_PARAMS_BYTES_MAX ? parseJson(paramsJson) : undefined;
      if (json === undefined) throw messageInvalid(name, `its ${paramsJson.byteLength} bytes of JSON cannot be parsed`);
      const params = this.#validated(name, entry.params, json);
      await entry.admit(known, params);
      return { run: (stream) => this.#runStream(known, name, entry.handler, params, stream) };
    } catch (error) {
      return { refusal: this.#refusal(caller, name, error) };
    }
  }

  async #answer(caller: PeerCaller, entry: MessageEntry, bytes: Uint8Array, signal: AbortSignal): Promise<Uint8Array[]> {
    const { message, handler } = entry;
    const frame = decodeFrame(bytes, message.payloadBytesMax);
    if ('malformed' in frame) throw messageInvalid(message.name, frame.malformed);
    const params = this.#validated(message.name, message.params, frame.json);
    const reply = await handler(caller, params, frame.payload, signal);
    const payload = reply.payload ?? new Uint8Array(0);
    const [head] = encodeFrame({ result: encodeValue(message.result, reply.result) }, payload);
    // Our own bug, not the peer's: it would refuse the reply, so say here what is wrong.
    if (payload.byteLength > message.replyBytesMax) {
      throw new RangeError(`reply to ${message.name}: ${payload.byteLength} bytes of payload, declared ${message.replyBytesMax}`);
    }
    if (head.length > JSON_BYTES_MAX) throw new RangeError(`reply to ${message.name}: ${head.length} bytes of JSON`);
    return [head, payload];
  }

  async #runStream(
    caller: PeerCaller, name: string, handler: StreamHandler<unknown>, params: unknown, stream: Duplex,
  ): Promise<void> {
    try {
      await handler(caller, params, stream);
      // What the other end still sends was not worth waiting for; unread it would keep the connection open.
      stream.end();
      stream.resume();
    } catch (error) {
      // The bytes of a stream belong to its two ends: an error shows there as an abort, its reason stays in this log.
      this.#refusal(caller, name, error);
      stream.destroy();
    }
  }

  #validated(name: string, schema: z.ZodType, json: unknown): unknown {
    const parsed = schema.safeParse(json);
    if (parsed.success) return parsed.data;
    throw messageInvalid(name, firstIssue(parsed.error));
  }

  #refusal(caller: PeerCaller, name: string, error: unknown): UnderstudyError {
    const fields = { message: name, fingerprint: caller.fingerprint, address: caller.address };
    if (error instanceof UnderstudyError) {
      this.#log.info({ ...fields, code: error.code, reason: error.message }, 'peer message refused');
      return error;
    }
    this.#log.error({ ...fields, error }, 'peer message failed');
    return internalFailure(name);
  }

  #checkName(name: string): void {
    if (!isMessageName(name)) throw new TypeError(`not a message name: ${name}`);
    if (this.#messages.has(name) || this.#streams.has(name)) throw new TypeError(`${name} has a handler already`);
  }
}

/** The JSON form of an own value. Throws a TypeError when it does not fit its schema: a bug of the sender. */
export function encodeValue<T>(schema: z.ZodType<T>, value: T): unknown {
  const encoded = schema.safeEncode(value);
  if (!encoded.success) throw new TypeError(`a value does not fit its own schema: ${firstIssue(encoded.error)}`);
  return encoded.data ?? null;
}

/** One line, bounded: paths and messages can repeat what a hostile peer sent. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return issue === undefined ? 'invalid' : `${issue.path.join('.') || 'value'}: ${issue.message}`.slice(0, 300);
}
