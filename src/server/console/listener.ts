/**
 * What a host answers over TCP: its health, its metrics, the page of the console, and the API behind a session or a token.
 *
 * Invariants
 * - In the clear only on loopback. Any other address needs a certificate, or the server does not start.
 * - Every path but `/healthz` is refused to names that are not ours, and to pages of others (request-checks.ts).
 * - Every path below `/api` needs a session or a token; a reader's reaches only operations that change nothing.
 * - No secret is logged, or stands in an address.
 */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { UnderstudyError, messageOf } from '../../model/errors.ts';
import { addApi, FASTIFY_OPTIONS, type ApiOptions, type Listener } from '../api/http.ts';
import { NODE_OPTIONS } from '../api/http-refusals.ts';
import { checkRequest, isLoopback } from './request-checks.ts';
import { encoded, type PageFile } from './page-files.ts';
import { addSessions, type SessionParts } from './sessions.ts';
import { addLive } from './live-route.ts';
import type { LiveFeed } from './live-feed.ts';
import type { Metrics } from '../metrics.ts';

const BODY_BYTES_MAX = 1 << 20;
const REQUEST_TIMEOUT_MS = 30_000;

export interface HttpAddress {
  host: string;
  /** 0 = any free port. */
  port: number;
  /** Files in PEM. Without them only loopback is served. */
  tls: { certPath: string; keyPath: string } | null;
}

export interface ConsoleParts extends ApiOptions, Omit<SessionParts, 'secure'> {
  metrics: Metrics;
  page: ReadonlyMap<string, PageFile>;
  feed: LiveFeed;
}

/** Scripts, styles and connections only of our own, nothing inline, nowhere to be framed. */
const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), microphone=(), geolocation=()',
};

export async function listenHttp(address: HttpAddress, parts: ConsoleParts): Promise<Listener & { url: string }> {
  const tls = await readTls(address);
  const closing = new AbortController();
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true, requestTimeout: REQUEST_TIMEOUT_MS,
    ...FASTIFY_OPTIONS,
    ...(tls === null ? { http: NODE_OPTIONS } : { https: { ...NODE_OPTIONS, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' } }),
  }) as unknown as FastifyInstance;
  const certificate = tls?.certificate ?? null;
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({ ...SECURITY_HEADERS, ...(tls === null ? {} : { 'strict-transport-security': 'max-age=31536000' }) });
    if (request.url === '/healthz') return;
    const { host, origin } = request.headers;
    checkRequest({ method: request.method, host, origin, fetchSite: header(request, 'sec-fetch-site'), secure: tls !== null }, certificate);
  });
  app.get('/healthz', () => ({ ok: true }));
  const { authenticate } = addSessions(app, { ...parts, secure: tls !== null });
  app.get('/metrics', async (request, reply) => {
    if (tls !== null) authenticate(request);
    return reply.type(parts.metrics.contentType).send(await parts.metrics.metrics());
  });
  addPage(app, parts.page);
  addLive(app, parts);
  addApi(app, parts, closing.signal, 'web');
  await listen(app, address);
  return {
    address: shownAddress(app),
    url: urlOf(app, certificate),
    async close() {
      closing.abort();
      await parts.feed.close();
      await app.close();
    },
  };
}

function addPage(app: FastifyInstance, page: ReadonlyMap<string, PageFile>): void {
  if (page.size === 0) {
    app.get('/', (_request, reply) => reply.type('text/plain; charset=utf-8').code(503).send(
      'The console was not built: run `npm run build` where Understudy is installed, then restart the server.\n'));
  }
  for (const [path, file] of page) app.get(path, (request, reply) => sendFile(request, reply, file));
}

function sendFile(request: FastifyRequest, reply: FastifyReply, file: PageFile): FastifyReply {
  reply.headers({ 'etag': file.etag, 'vary': 'accept-encoding',
    'cache-control': file.immutable ? 'public, max-age=31536000, immutable' : 'no-cache' });
  if (request.headers['if-none-match'] === file.etag) return reply.code(304).send();
  const { body, encoding } = encoded(file, request.headers['accept-encoding'] ?? '');
  if (encoding !== null) reply.header('content-encoding', encoding);
  return reply.type(file.type).send(body);
}

async function listen(app: FastifyInstance, { host, port }: HttpAddress): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw httpListenFailed({ host, port }, error);
  }
}

export const httpListenFailed = ({ host, port }: { host: string; port: number }, cause: unknown): UnderstudyError =>
  new UnderstudyError('io', 'HTTP_LISTEN_FAILED', `cannot listen on ${host}:${port}: ${messageOf(cause)}`,
    'Choose another address with --http HOST:PORT.', { cause });

/**
 * @throws UnderstudyError HTTP_NEEDS_TLS and what is wrong with the files
 */
export async function readTls({ host, port, tls }: HttpAddress) {
  if (tls === null) {
    if (isLoopback(host)) return null;
    throw new UnderstudyError('usage', 'HTTP_NEEDS_TLS', `the console is not served on ${host}:${port} in the clear: only loopback is`,
      'Give --http-cert FILE --http-key FILE, or serve it on 127.0.0.1 and forward the port with ssh -L.');
  }
  try {
    const [cert, key] = await Promise.all([readFile(tls.certPath), readFile(tls.keyPath)]);
    return { cert, key, certificate: new X509Certificate(cert) };
  } catch (error) {
    throw new UnderstudyError('usage', 'HTTP_CERTIFICATE_UNUSABLE', `the certificate ${tls.certPath} with key ${tls.keyPath} cannot be used: ${messageOf(error)}`,
      'Give a certificate and its key as PEM files that the server may read.', { cause: error });
  }
}

function shownAddress(app: FastifyInstance): string {
  const bound = app.server.address();
  if (bound === null || typeof bound === 'string') throw new Error('a TCP listener has an address with a port');
  return `${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
}

/** Where a person opens the console: by a name that the certificate has. */
function urlOf(app: FastifyInstance, certificate: X509Certificate | null): string {
  const address = shownAddress(app);
  if (certificate === null) return `http://${address}`;
  const name = /(?:DNS|IP Address):(?!\*)([^,\s]+)/.exec(certificate.subjectAltName ?? '')?.[1];
  return `https://${name === undefined ? address : `${name}${address.slice(address.lastIndexOf(':'))}`}`;
}

function header(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}
