/** Sign-in, sign-out and the check before every path below `/api`: who asks, and may they. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { UnderstudyError } from '../../model/errors.ts';
import type { Clock } from '../../model/ports.ts';
import { OPERATIONS, isOperation, type Operation } from '../api/contract.ts';
import type { Access, Grant } from './access.ts';
import { RateLimit } from './rate-limit.ts';

export interface SessionParts {
  access: Access;
  clock: Clock;
  /** Of this host: cookies are not told apart by port, and two hosts may be served on one address. */
  fingerprint: string;
  hostName: string;
  version: string;
  secure: boolean;
}

/** A person mistypes a few times; a program that guesses 256 bits gets nowhere at this rate. */
const SIGN_IN_TRIES = { burst: 10, perSecond: 0.2, keysMax: 1000 };
/** A page asks a few things at once when it opens; everything live comes by itself. */
const CALLS = { burst: 120, perSecond: 40, keysMax: 1000 };

const signInBody = z.strictObject({ token: z.string().min(1).max(200) });
const grants = new WeakMap<FastifyRequest, Grant>();

/** Adds the routes and the check; `authenticate` is the check alone, for paths that are open elsewhere. */
export function addSessions(app: FastifyInstance, parts: SessionParts): { authenticate(request: FastifyRequest): Grant } {
  const { access, clock, fingerprint, hostName, version, secure } = parts;
  const cookie = `understudy-${fingerprint.replaceAll(':', '').slice(0, 12).toLowerCase()}`;
  const signInTries = new RateLimit(SIGN_IN_TRIES);
  const calls = new RateLimit(CALLS);
  const shown = ({ role, expiresAt }: Grant) => ({ role, expiresAt: new Date(expiresAt).toISOString(), hostName, version });
  const setCookie = (value: string, maxAge: number) =>
    `${cookie}=${value}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${maxAge}${secure ? '; Secure' : ''}`;

  const authenticate = (request: FastifyRequest): Grant => {
    const grant = grantOf(request, access, cookie);
    if (grant !== null) return grant;
    throw new UnderstudyError('state', 'SIGN_IN_REQUIRED', 'this needs a session or a token, and neither is valid',
      'Sign in with the link of: understudy console. Programs: understudy token add NAME');
  };

  app.addHook('onRequest', async (request) => {
    if (!request.url.startsWith('/api')) return;
    const grant = authenticate(request);
    limit(calls.take(grant.id, clock.monotonic()));
    const { operation } = (request.params ?? {}) as { operation?: string };
    if (operation !== undefined && isOperation(operation)) checkRole(operation, OPERATIONS[operation], grant);
    grants.set(request, grant);
  });
  app.post('/session/sign-in', async (request, reply) => {
    limit(signInTries.take(request.ip, clock.monotonic()));
    const { data } = signInBody.safeParse(request.body);
    const { secret, grant } = access.signIn(data?.token ?? '');
    reply.header('set-cookie', setCookie(secret, Math.floor((grant.expiresAt - clock.now()) / 1000)));
    return shown(grant);
  });
  app.post('/session/sign-out', async (request, reply) => {
    const grant = grantOf(request, access, cookie);
    if (grant !== null) access.signOut(grant);
    reply.header('set-cookie', setCookie('', 0));
    return {};
  });
  app.get('/session', async (request, reply) => {
    reply.header('cache-control', 'no-store');
    return shown(authenticate(request));
  });
  return { authenticate };
}

/** Of a request that has passed the check. */
export function grantOfRequest(request: FastifyRequest): Grant {
  return grants.get(request)!;
}

function checkRole(name: string, operation: Operation, { role }: Grant): void {
  if (operation.local === true) {
    throw new UnderstudyError('state', 'LOCAL_ONLY', `'${name}' is not possible over HTTP`, 'Use the command line on the host.');
  }
  if (role === 'administrator' || operation.reads === true) return;
  throw new UnderstudyError('state', 'READ_ONLY', `this session may only read, and '${name}' changes something`,
    'Sign in as administrator: understudy console');
}

function grantOf(request: FastifyRequest, access: Access, cookie: string): Grant | null {
  const bearer = /^Bearer ([\w-]{1,200})$/i.exec(request.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return access.program(bearer);
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const [name, value] = pair.trim().split('=');
    if (name === cookie && value !== undefined && value !== '') return access.session(value);
  }
  return null;
}

function limit(waitSeconds: number): void {
  if (waitSeconds === 0) return;
  throw new UnderstudyError('state', 'RATE_LIMITED', 'too many requests', `Wait ${Math.ceil(waitSeconds)} s.`);
}
