/**
 * What the HTTP server refuses by itself, before any route is asked: a request that does not arrive, or is none. It gets a body in the shape
 * of all failures, so that a command can say what was wrong and what to do.
 *
 * Invariant: nothing is written into an answer that has begun (there, only hanging up tells).
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { maxHeaderSize, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { errnoOf, messageOf } from '../../model/errors.ts';
import type { Failure } from './failure.ts';

export interface Refusal {
  status: number;
  failure: Failure;
}

/** Milliseconds until the headers, and the whole request, must be here. */
export type TimeLimits = Pick<Server, 'headersTimeout' | 'requestTimeout'>;

/** The name of a host is asked for below: Node's own refusal has no body. */
export const NODE_OPTIONS = { requireHostHeader: false };

export function badRequest(status: number, why: string, remedy: string): Refusal {
  return { status, failure: { kind: 'usage', code: 'BAD_REQUEST', message: `the request was refused: ${why}`, remedy } };
}

/** Why a request could not be read: Node's code for it, or its parser's. */
export function refusalOfBytes(error: Error, { headersTimeout, requestTimeout }: TimeLimits): Refusal {
  const code = 'code' in error ? error.code : undefined;
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    const limits = `within ${headersTimeout / 1000} s (headers) and ${requestTimeout / 1000} s (all of it)`;
    return { status: 408, failure: { kind: 'io', code: 'REQUEST_TIMED_OUT',
      message: `the request was not here whole ${limits}: this command or the server was halted meanwhile; nothing was done`,
      remedy: 'Give the command again.' } };
  }
  if (code === 'HPE_HEADER_OVERFLOW') {
    return badRequest(431, `its headers have more than ${maxHeaderSize} bytes`, `Send headers of at most ${maxHeaderSize} bytes.`);
  }
  return badRequest(400, `it is no HTTP (${messageOf(error)})`, 'Send HTTP/1.1; /api/v1/openapi.json describes the requests.');
}

/** Takes over what Node and fastify would answer in a shape of their own. */
export function refuseInShape(server: Server): void {
  const answers = new WeakMap<Duplex, ServerResponse>();
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => void answers.set(request.socket, response));
  server.removeAllListeners('clientError');
  server.on('clientError', (error: Error, socket: Duplex) => {
    const answer = answers.get(socket);
    const hasBegun = answer !== undefined && answer.headersSent && !answer.writableFinished;
    if (errnoOf(error) === 'ECONNRESET' || !socket.writable || hasBegun) return void socket.destroy();
    socket.end(rawAnswer(refusalOfBytes(error, server)), () => socket.destroy());
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const refusal = badRequest(417, `nothing here meets the expectation '${request.headers.expect}'`, 'Leave the header Expect away.');
    const { headers, body } = answerOf(refusal);
    response.writeHead(refusal.status, headers).end(body);
  });
}

/** HTTP/1.1 asks for it. */
export function refusalOfNoHost({ headers }: Pick<IncomingMessage, 'headers'>): Refusal | null {
  return headers.host === undefined ? badRequest(400, 'it has no header Host', 'Send the header Host.') : null;
}

function answerOf({ failure }: Refusal) {
  const body = JSON.stringify({ error: failure });
  const headers = { 'connection': 'close', 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(body) };
  return { headers, body };
}

function rawAnswer(refusal: Refusal): string {
  const { headers, body } = answerOf(refusal);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\n${lines.join('')}\r\n${body}`;
}
