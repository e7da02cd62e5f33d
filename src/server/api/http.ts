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
import type { Server, ServerOptions } from 'node:http';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { UnderstudyError, errnoOf, messageOf, serverStops } from '../../model/errors.ts';
import type { Logger } from '../../model/ports.ts';
import { OPERATIONS, isOperation } from './contract.ts';
import type { CallContext, HostOperations, Operation, OperationName } from './contract.ts';
import { failureOf, httpStatusOf } from './failure.ts';
import { NODE_OPTIONS, badRequest, refusalOfNoHost, refuseInShape } from './http-refusals.ts';
import type { Refusal, TimeLimits } from './http-refusals.ts';
import { LineStream, wantsLines } from './line-stream.ts';
import { openApiDocument } from './openapi.ts';
import { openSocketAddress } from './socket-path.ts';

const BODY_BYTES_MAX = 1 << 20;
const LIMITS_MS: SocketLimits = { headersTimeout: 10_000, requestTimeout: 300_000 };

/** Milliseconds until a request must be here, and between two looks at that (Node's own is 30 s). */
export type SocketLimits = TimeLimits & Pick<ServerOptions, 'connectionsCheckingInterval'>;

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
export async function listenOnSocket(
  path: string,
  options: ApiOptions,
  limits: SocketLimits = LIMITS_MS,
): Promise<Listener> {
  await removeStaleSocket(path);
  const closing = new AbortController();
  let server: Server | undefined;
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: true,
    ...FASTIFY_OPTIONS,
    serverFactory: (handler) => (server = createServer({ ...NODE_OPTIONS, ...limits }, handler)),
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

/** Refusals of fastify itself in our shape; the rest of them is in `addApi`. */
export const FASTIFY_OPTIONS = {
  // Who asks while it closes is told so by `addApi`.
  return503OnClosing: false,
  frameworkErrors: (error: Error, _request: unknown, reply: FastifyReply) => void refuse(reply, refusalOf(error)),
};

/** All routes below `/api/v1`. The console adds them to its own listener behind its session check. */
export function addApi(
  app: FastifyInstance,
  options: ApiOptions,
  closing: AbortSignal,
  origin: CallContext['origin'] = 'local',
): void {
  refuseInShape(app.server);
  app.addHook('onRequest', async (request, reply) => {
    const refusal = refusalOfNoHost(request.raw);
    if (refusal !== null) return refuse(reply, refusal);
    if (closing.aborted) throw serverStops();
  });
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
    const refusal = refusalOf(error);
    if (refusal.failure.code === 'INTERNAL') options.log.error({ error }, 'an operation failed unexpectedly');
    return refuse(reply, refusal);
  });
}

const refuse = (reply: FastifyReply, { status, failure }: Refusal): FastifyReply =>
  reply.code(status).send({ error: failure });

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
function refusalOf(error: unknown): Refusal {
  const status =
    error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  if (!(error instanceof UnderstudyError) && status >= 400 && status < 500)
    return badRequest(status, messageOf(error), `Send JSON of at most ${BODY_BYTES_MAX} bytes.`);
  const failure = failureOf(error);
  return { status: httpStatusOf(failure), failure };
}
