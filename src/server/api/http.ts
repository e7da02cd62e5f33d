/**
 * The API over HTTP on the host's Unix socket: `POST /api/v1/NAME`, JSON in, JSON out. Whoever can open the socket
 * is the owner of the host (mode 0600), so that there is no further log-in here.
 *
 * A long operation answers with lines when asked to (`Accept: application/x-ndjson`): `{progress}` and `{item}` as
 * they come, the last line is `{result}` or `{error}`. When the caller goes away its operation's signal is aborted.
 */

import { connect } from 'node:net';
import { unlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { UnderstudyError, errnoOf, messageOf } from '../../model/errors.ts';
import type { Logger } from '../../model/ports.ts';
import { OPERATIONS, isOperation } from './contract.ts';
import type { CallContext, HostOperations, Operation, OperationName } from './contract.ts';
import { failureOf, httpStatusOf } from './failure.ts';
import type { Failure } from './failure.ts';
import { LineStream, wantsLines } from './line-stream.ts';
import { openApiDocument } from './openapi.ts';
import { openSocketAddress } from './socket-path.ts';

const BODY_BYTES_MAX = 1 << 20;
const HEADERS_TIMEOUT_MS = 10_000;

export interface ApiOptions {
  operations: HostOperations;
  log: Logger;
  version: string;
}

export interface Listener {
  /** Socket path, or HOST:PORT. */
  readonly address: string;
  /** Aborts what is running, answers it, and stops listening. */
  close(): Promise<void>;
}

/**
 * The API on a Unix socket that only this user can open. Refuses with SERVER_RUNNING when another server answers
 * there.
 */
export async function listenOnSocket(path: string, options: ApiOptions): Promise<Listener> {
  await removeStaleSocket(path);
  const closing = new AbortController();
  let server: Server | undefined;
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: true,
    serverFactory: (handler) => (server = createServer({ headersTimeout: HEADERS_TIMEOUT_MS }, handler)),
  });
  addApi(app, options, closing.signal);
  await app.ready();
  const { address, release } = openSocketAddress(path);
  try {
    await listenPrivately(server!, address);
  } catch (error) {
    release();
    throw new UnderstudyError(
      'io',
      'SOCKET_FAILED',
      `cannot listen on ${path}: ${messageOf(error)}`,
      'Check the data folder and its permissions.',
      { cause: error },
    );
  }
  return {
    address: path,
    async close() {
      closing.abort();
      // Fastify closes only what it made listen itself.
      const closed = new Promise((resolve) => server!.close(resolve));
      await app.close();
      server!.closeAllConnections();
      await closed;
      release();
    },
  };
}

/** The socket must not exist for an instant with wider permissions, hence the mask; binding is synchronous. */
async function listenPrivately(server: Server, address: string): Promise<void> {
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
  });
  const mask = process.umask(0o177);
  try {
    server.listen(address);
  } finally {
    process.umask(mask);
  }
  await listening;
}

/**
 * The data folder is leased to this server (R25), so that a socket nobody answers on is left from a server that
 * died.
 */
async function removeStaleSocket(path: string): Promise<void> {
  const { address, release } = openSocketAddress(path);
  try {
    await new Promise<void>((resolve, reject) => {
      const probe = connect(address);
      probe.once('connect', () => {
        probe.destroy();
        reject(
          new UnderstudyError(
            'state',
            'SERVER_RUNNING',
            `a server already answers on ${path}`,
            'Use the running server, or stop it first.',
          ),
        );
      });
      probe.once('error', (error) => {
        if (errnoOf(error) === 'ECONNREFUSED') unlinkSync(address);
        resolve();
      });
    });
  } finally {
    release();
  }
}

/** All routes below `/api/v1`. The console adds them to its own listener behind its session check. */
export function addApi(
  app: FastifyInstance,
  options: ApiOptions,
  closing: AbortSignal,
  origin: CallContext['origin'] = 'local',
): void {
  // JSON or nothing: a form of another site can send text/plain, but not this.
  app.removeContentTypeParser('text/plain');
  app.post<{ Params: { operation: string } }>('/api/v1/:operation', async (request, reply) => {
    const name = request.params.operation;
    if (!isOperation(name))
      throw new UnderstudyError(
        'usage',
        'UNKNOWN_OPERATION',
        `there is no operation "${name}"`,
        'See /api/v1/openapi.json.',
      );
    return serveCall({ name, request, reply, options, closing, origin });
  });
  app.get('/api/v1/openapi.json', () => openApiDocument(options.version));
  app.setNotFoundHandler((request) => {
    throw new UnderstudyError(
      'usage',
      'UNKNOWN_PATH',
      `${request.method} ${request.url} is not served here`,
      'See /api/v1/openapi.json.',
    );
  });
  app.setErrorHandler((error, _request, reply) => {
    const { status, failure } = refusalOf(error);
    if (failure.code === 'INTERNAL') options.log.error({ error }, 'an operation failed unexpectedly');
    return reply.code(status).send({ error: failure });
  });
}

interface Call {
  name: OperationName;
  request: FastifyRequest;
  reply: FastifyReply;
  options: ApiOptions;
  closing: AbortSignal;
  origin: CallContext['origin'];
}

async function serveCall({ name, request, reply, options, closing, origin }: Call): Promise<unknown> {
  const operation: Operation = OPERATIONS[name];
  const params = validate(name, operation.params, request.body ?? {});
  const gone = new AbortController();
  // `close` without a finished answer: the caller hung up.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort();
  });
  const signal = AbortSignal.any([gone.signal, closing]);
  const lines =
    operation.long === true && wantsLines(request.headers.accept) ? new LineStream(reply, () => gone.abort()) : null;
  const context: CallContext = {
    progress: (progress) => lines?.offer({ progress }),
    emit: (item) => lines?.send({ item }),
    signal,
    origin,
  };
  // The table and the host have one type per name; a union of all of them cannot be called without forgetting that.
  const handler = options.operations[name] as (params: unknown, context: CallContext) => Promise<unknown>;
  if (lines === null) return check(name, operation, await handler(params, context));
  try {
    lines.end({ result: check(name, operation, await handler(params, context)) });
  } catch (error) {
    const failure = failureOf(error);
    if (failure.code === 'INTERNAL')
      options.log.error({ error, operation: name }, 'an operation failed unexpectedly');
    lines.end({ error: failure });
  }
  return reply;
}

function validate(name: string, schema: z.ZodType, body: unknown): unknown {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new UnderstudyError(
    'usage',
    'BAD_PARAMETERS',
    `${name}: ${describeIssues(parsed.error)}`,
    'Mend the parameters; /api/v1/openapi.json describes them.',
  );
}

/** What the host answers is promised to scripts: a result that breaks the contract is a defect, never sent on. */
function check(name: string, operation: Operation, result: unknown): unknown {
  const parsed = operation.result.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new Error(`the result of ${name} breaks the contract: ${describeIssues(parsed.error)}`);
}

export function describeIssues(error: z.ZodError): string {
  return error.issues
    .map((issue) => (issue.path.length === 0 ? issue.message : `${issue.path.join('.')}: ${issue.message}`))
    .join('; ');
}

/**
 * Our own failures, and those that fastify found before a handler ran (broken JSON, body too large, wrong content
 * type).
 */
function refusalOf(error: unknown): { status: number; failure: Failure } {
  const status =
    error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  if (!(error instanceof UnderstudyError) && status >= 400 && status < 500) {
    const message = `the request was refused: ${messageOf(error)}`;
    return {
      status,
      failure: {
        kind: 'usage',
        code: 'BAD_REQUEST',
        message,
        remedy: `Send JSON of at most ${BODY_BYTES_MAX} bytes.`,
      },
    };
  }
  const failure = failureOf(error);
  return { status: httpStatusOf(failure), failure };
}
