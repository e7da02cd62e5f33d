/** What a host answers over TCP without a log-in, on loopback unless told otherwise: is it alive, and its metrics. */

import fastify from 'fastify';
import type { Registry } from 'prom-client';
import { UnderstudyError, messageOf } from '../../model/errors.ts';
import type { Listener } from './http.ts';

const BODY_BYTES_MAX = 1024;
const REQUEST_TIMEOUT_MS = 30_000;

export interface PublicHttpOptions {
  host: string;
  /** 0 = any free port. */
  port: number;
  registry: Registry;
}

export async function listenPublic({ host, port, registry }: PublicHttpOptions): Promise<Listener> {
  const app = fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true, requestTimeout: REQUEST_TIMEOUT_MS });
  app.get('/healthz', () => ({ ok: true }));
  app.get('/metrics', async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()));
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new UnderstudyError(
      'io',
      'HTTP_LISTEN_FAILED',
      `cannot listen on ${host}:${port}: ${messageOf(error)}`,
      'Choose another address with --http HOST:PORT.',
      { cause: error },
    );
  }
  const bound = app.server.address();
  if (bound === null || typeof bound === 'string') throw new Error('a TCP listener has an address with a port');
  const shown = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return { address: `${shown}:${bound.port}`, close: () => app.close() };
}
