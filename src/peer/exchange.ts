/** One request of a known peer: its head, its body, its reply; or the stream it asks for. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { UnderstudyError } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import { bodyDone, lengthOf, readBody, writeBody } from './body.ts';
import type { Budget } from './budget.ts';
import type { PeerDispatcher } from './dispatcher.ts';
import { FRAME_HEADER_BYTES } from './framing.ts';
import { isMessageName, JSON_BYTES_MAX, PROTOCOL_VERSION, STREAM_PARAMS_BYTES_MAX } from './message.ts';
import type { PeerCaller } from './message.ts';
import { messageInvalid, messageUnknown, notAuthorised, protocolViolated } from './peer-errors.ts';
import { refuse } from './refuse.ts';
import { STREAM_PARAMS_HEADER, STREAM_PROTOCOL } from './tls-parameters.ts';

export interface ExchangeParts {
  dispatcher: PeerDispatcher;
  log: Logger;
  clock: Clock;
  limits: { idleMs: number; streamIdleMs: number; lingerMs: number };
  /** For all peers together. */
  memory: Budget;
}

export interface Connection {
  caller: PeerCaller;
  /** For all connections of this peer. */
  memory: Budget;
  /** A request is being answered. There is one at a time, so that what is in flight is bounded by the connections. */
  busy: boolean;
}

type Head = { name: string; bytes: number; replyBytesMax: number };
type HeadRefusal = { status: number; error: UnderstudyError };

/** Answers one request. Rejects only when the connection broke meanwhile or for a bug here. */
export async function answer(
  parts: ExchangeParts, connection: Connection | undefined, request: IncomingMessage, response: ServerResponse,
): Promise<void> {
  const head = connection === undefined || connection.busy
    ? { status: 400, error: protocolViolated('one request at a time') }
    : checkHead(parts.dispatcher, connection.caller, request);
  if (connection === undefined || 'error' in head) {
    const { status, error } = head as HeadRefusal;
    request.resume();
    refuse(request.socket, status, error, parts);
    return;
  }
  connection.busy = true;
  const gone = new AbortController();
  response.once('close', () => gone.abort(new Error('the caller is gone')));
  const releases: (() => void)[] = [];
  try {
    // Memory first, so that a body is read only when there is room; until then TCP holds the sender back.
    const bytes = head.bytes + head.replyBytesMax + JSON_BYTES_MAX;
    releases.push(await connection.memory.acquire(bytes, gone.signal));
    releases.push(await parts.memory.acquire(bytes, gone.signal));
    request.socket.setTimeout(parts.limits.idleMs);
    const body = await readBody(request, head.bytes);
    // The handler may take its time; whether the caller still waits is the caller's to say.
    request.socket.setTimeout(0);
    const reply = await parts.dispatcher.dispatch(connection.caller, head.name, body, gone.signal, () => bodyDone(body));
    request.socket.setTimeout(parts.limits.idleMs);
    // The caller may have the whole reply, and ask again, before this side hears that it was written.
    response.once('prefinish', () => { connection.busy = false; });
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': lengthOf(reply) });
    await writeBody(response, reply);
  } finally {
    for (const release of releases) release();
  }
}

/** Answers a request for a stream, and lets its handler run on the bare connection. */
export async function openStream(
  parts: ExchangeParts, connection: Connection | undefined, request: IncomingMessage, socket: TLSSocket, early: Buffer,
): Promise<void> {
  const asked = connection === undefined || connection.busy
    ? { status: 400, error: protocolViolated('one request at a time') }
    : checkStreamHead(parts.dispatcher, connection.caller, request);
  if (connection === undefined || 'error' in asked) {
    const { status, error } = asked as HeadRefusal;
    refuse(socket, status, error, parts);
    return;
  }
  connection.busy = true;
  const opened = await parts.dispatcher.openStream(connection.caller, asked.name, asked.params);
  if ('refusal' in opened) return refuse(socket, 400, opened.refusal, parts);
  if (socket.destroyed) return;
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${STREAM_PROTOCOL}\r\n\r\n`);
  socket.setTimeout(parts.limits.streamIdleMs, () => socket.destroy());
  if (early.length > 0) socket.unshift(early);
  await opened.run(socket);
}

function checkHead(dispatcher: PeerDispatcher, caller: PeerCaller, request: IncomingMessage): Head | HeadRefusal {
  const named = checkName(dispatcher, caller, request, 'POST');
  if ('error' in named) return named;
  const limits = dispatcher.limitsOf(named.name);
  if (limits === null) return { status: 404, error: messageUnknown(named.name) };
  const declared = request.headers['content-length'];
  if (declared === undefined || !/^\d{1,9}$/.test(declared)) {
    return { status: 411, error: messageInvalid(named.name, 'it does not declare its length') };
  }
  const most = FRAME_HEADER_BYTES + JSON_BYTES_MAX + limits.payloadBytesMax;
  const bytes = Number(declared);
  if (bytes > most) return { status: 413, error: messageInvalid(named.name, `${bytes} bytes, at most ${most} are allowed`) };
  return { name: named.name, bytes, replyBytesMax: limits.replyBytesMax };
}

function checkStreamHead(
  dispatcher: PeerDispatcher, caller: PeerCaller, request: IncomingMessage,
): { name: string; params: Buffer } | HeadRefusal {
  const named = checkName(dispatcher, caller, request, 'GET');
  if ('error' in named) return named;
  if (request.headers.upgrade !== STREAM_PROTOCOL) {
    return { status: 400, error: protocolViolated(`only ${STREAM_PROTOCOL} is spoken here`) };
  }
  const header = request.headers[STREAM_PARAMS_HEADER];
  const longest = Math.ceil(STREAM_PARAMS_BYTES_MAX / 3) * 4;
  if (typeof header !== 'string' || header.length > longest || !/^[\w-]+$/.test(header)) {
    return { status: 400, error: messageInvalid(named.name, `it has no header ${STREAM_PARAMS_HEADER} in base64url`) };
  }
  return { name: named.name, params: Buffer.from(header, 'base64url') };
}

function checkName(
  dispatcher: PeerDispatcher, caller: PeerCaller, request: IncomingMessage, method: 'GET' | 'POST',
): { name: string } | HeadRefusal {
  // Entries may have changed since the connection was admitted.
  if (dispatcher.authorise(caller) === null) return { status: 403, error: notAuthorised(caller.fingerprint) };
  const [, version, name] = /^\/peer\/v(\d{1,5})\/([^/?#]{1,64})$/.exec(request.url ?? '') ?? [];
  if (version === undefined || name === undefined || !isMessageName(name)) {
    return { status: 404, error: protocolViolated(`messages go to /peer/v${PROTOCOL_VERSION}/<name>`) };
  }
  if (Number(version) !== PROTOCOL_VERSION) {
    return { status: 404, error: protocolViolated(`peer protocol ${version} was asked for, ${PROTOCOL_VERSION} is spoken here`) };
  }
  if (request.method !== method) return { status: 405, error: protocolViolated(`${name} is asked with ${method}`) };
  return { name };
}
