/** What arrives over TCP: pages of others, strangers, readers, guesses. */
import assert from 'node:assert/strict';
import { request as httpsRequest } from 'node:https';
import { connect, createServer } from 'node:net';
import { request } from 'node:http';
import { test, type TestContext } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { atEnd } from '../../../test/rig/at-end.ts';
import { SqliteCatalog } from '../../catalog/sqlite-catalog.ts';
import { hostClock, hostRandom } from '../../disk/host-clock.ts';
import { OPERATIONS, type HostOperations, type Operation } from '../api/contract.ts';
import { Access } from './access.ts';
import { selfMadeCertificate } from './certificate.suite.ts';
import { listenHttp, type HttpAddress } from './listener.ts';
import type { LiveFeed } from './live-feed.ts';
import type { PageFile } from './page-files.ts';

const LOOPBACK: HttpAddress = { host: '127.0.0.1', port: 0, tls: null };
const index: PageFile = {
  type: 'text/html', etag: '"1"', immutable: false, plain: Buffer.from('<p>page'), brotli: Buffer.from('br'),
  gzip: Buffer.from('gz'),
};

async function serving(t: TestContext, address = LOOPBACK) {
  const access = new Access({ catalog: SqliteCatalog.open(':memory:'), clock: hostClock, random: hostRandom });
  const registry = new Registry();
  new Counter({ name: 'understudy_tests_total', help: 'tests', registers: [registry] }).inc(3);
  const asked: string[] = [];
  const logged: unknown[] = [];
  const log = (...words: unknown[]) => void logged.push(words);
  const operations = Object.fromEntries(Object.keys(OPERATIONS).map((name) => [name, async () => {
    asked.push(name);
    return name === 'status' ? [] : { fingerprint: 'AA', name: 'berlin' };
  }])) as unknown as HostOperations;
  const server = await listenHttp(address, {
    operations, access, metrics: registry, log: { debug: log, info: log, warn: log, error: log }, version: '1.0.0',
    clock: hostClock, fingerprint: 'AA:BB:CC:DD:EE:FF',
    hostName: 'berlin', page: new Map([['/', index]]), feed: { close: () => Promise.resolve() } as LiveFeed,
  });
  atEnd(t, () => server.close());
  const ask = (path: string, headers: Record<string, string> = {}, method = 'POST', body = '{}') =>
    fetch(`http://${server.address}${path}`, { method, headers: { 'content-type': 'application/json', ...headers }, ...(method === 'POST' ? { body } : {}) });
  const cookie = async (role: 'administrator' | 'reader' = 'administrator') => {
    const answer = await ask('/session/sign-in', {}, 'POST', JSON.stringify({ token: access.addSignIn(role, 1).token }));
    return answer.headers.get('set-cookie')!;
  };
  return { server, access, asked, logged, ask, cookie };
}

const codeOf = async (answer: Response) => [answer.status, ((await answer.json()) as { error: { code: string } }).error.code];

test('health and metrics are open on loopback; every path below /api asks for a session or token', async (t) => {
  const { ask, asked } = await serving(t);
  assert.deepEqual(await (await ask('/healthz', {}, 'GET')).json(), { ok: true });
  assert.match(await (await ask('/metrics', {}, 'GET')).text(), /understudy_tests_total 3/);
  for (const [path, method] of [['/api/v1/status', 'POST'], ['/api/v1/openapi.json', 'GET'], ['/api/v1/live', 'GET'], ['/api/v1/none', 'POST'], ['/api', 'GET']]) {
    assert.deepEqual(await codeOf(await ask(path!, {}, method!)), [401, 'SIGN_IN_REQUIRED'], path);
    assert.deepEqual(await codeOf(await ask(path!, { cookie: 'understudy-aabbccddeeff=guess', authorization: 'Bearer guess' }, method!)), [401, 'SIGN_IN_REQUIRED']);
  }
  assert.deepEqual(asked, []);
});

test('what the HTTP server itself refuses has the shape of all failures', async (t) => {
  const { server } = await serving(t);
  const told = (bytes: string) => new Promise<string>((resolve, reject) => {
    let text = '';
    const socket = connect(Number(server.address.split(':').at(-1)), '127.0.0.1', () => socket.write(bytes));
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    socket.on('close', () => resolve(text)).on('error', reject);
  });
  assert.match(await told('no HTTP\r\n\r\n'), /^HTTP\/1\.1 400 [^]*\r\n\r\n{"error":{"kind":"usage","code":"BAD_REQUEST"/);
  assert.match(await told('GET / HTTP/1.1\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 403 [^]*\r\n\r\n{"error":{"kind":"state","code":"FOREIGN_HOST"/);
});

test('a session of the console may do everything, a reader only what changes nothing, neither may give access', async (t) => {
  const { ask, cookie, asked } = await serving(t);
  const [administrator, reader] = [await cookie(), await cookie('reader')];
  assert.match(administrator, /^understudy-aabbccddeeff=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=3(600|599)$/);
  assert.equal((await ask('/api/v1/status', { cookie: administrator })).status, 200);
  assert.equal((await ask('/api/v1/status', { cookie: reader })).status, 200);
  for (const [name, operation] of Object.entries<Operation>(OPERATIONS)) {
    const answer = await ask(`/api/v1/${name}`, { cookie: reader });
    if (operation.local === true) assert.deepEqual(await codeOf(answer), [403, 'LOCAL_ONLY'], name);
    else if (operation.reads !== true) assert.deepEqual(await codeOf(answer), [403, 'READ_ONLY'], name);
  }
  assert.deepEqual(await codeOf(await ask('/api/v1/token.add', { cookie: administrator }, 'POST', '{"name":"mine"}')), [403, 'LOCAL_ONLY']);
  assert.ok(!asked.includes('suspend') && !asked.includes('token.add'));
});

test('signing out ends the session', async (t) => {
  const { ask, cookie } = await serving(t);
  const own = await cookie();
  assert.equal((await ask('/session', { cookie: own }, 'GET')).status, 200);
  await ask('/session/sign-out', { cookie: own });
  assert.deepEqual(await codeOf(await ask('/session', { cookie: own }, 'GET')), [401, 'SIGN_IN_REQUIRED']);
});

test('a program uses its token, until it is taken back', async (t) => {
  const { ask, access } = await serving(t);
  const { token } = access.addToken('script', 'administrator', 1);
  assert.equal((await ask('/api/v1/status', { authorization: `Bearer ${token}` })).status, 200);
  access.removeToken('script');
  assert.equal((await ask('/api/v1/status', { authorization: `Bearer ${token}` })).status, 401);
});

test('a page of another site gets nothing, with a good session too', async (t) => {
  const { ask, cookie, asked } = await serving(t);
  const own = await cookie();
  assert.deepEqual(await codeOf(await ask('/api/v1/suspend', { cookie: own, origin: 'https://evil.example' })), [403, 'FOREIGN_ORIGIN']);
  assert.deepEqual(await codeOf(await ask('/session/sign-in', { origin: 'https://evil.example' })), [403, 'FOREIGN_ORIGIN']);
  const { server } = await serving(t);
  const rebound = await new Promise<number>((resolve) => {
    const [host, port] = server.address.split(':');
    request({ host, port, path: '/metrics', headers: { host: 'evil.example' } }, ({ statusCode }) => resolve(statusCode!)).end();
  });
  assert.equal(rebound, 403);
  assert.deepEqual(asked, []);
});

test('guessing sign-in tokens is slowed down', async (t) => {
  const { ask } = await serving(t);
  const statuses: number[] = [];
  for (let at = 0; at < 12; at++) statuses.push((await ask('/session/sign-in', {}, 'POST', `{"token":"guess${at}"}`)).status);
  assert.deepEqual(statuses, [...Array<number>(10).fill(401), 429, 429]);
});

test('no secret is in the log', async (t) => {
  const { ask, access, logged, cookie } = await serving(t);
  const { token } = access.addSignIn('administrator', 1);
  await ask('/session/sign-in', {}, 'POST', `{"token":"${token}`);
  await ask('/session/sign-in', {}, 'POST', JSON.stringify({ token }));
  const own = await cookie();
  await ask('/api/v1/status', { cookie: own });
  const text = JSON.stringify(logged);
  assert.ok(!text.includes(token) && !text.includes(own.split(/[=;]/)[1]!));
});

test('the page comes compressed, is not fetched twice, and forbids scripts that are not its own', async (t) => {
  const { ask } = await serving(t);
  const answer = await ask('/', { 'accept-encoding': 'identity' }, 'GET');
  const policy = answer.headers.get('content-security-policy')!;
  assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal(answer.headers.get('x-frame-options'), 'DENY');
  assert.equal(await answer.text(), '<p>page');
  assert.equal((await ask('/', { 'if-none-match': '"1"' }, 'GET')).status, 304);
  const path = await ask('/../package.json', {}, 'GET');
  assert.equal(path.status, 404);
});

test('in the clear only on loopback', async () => {
  const parts = {} as Parameters<typeof listenHttp>[1];
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'berlin.example']) {
    await assert.rejects(listenHttp({ host, port: 0, tls: null }, parts), { kind: 'usage', code: 'HTTP_NEEDS_TLS' });
  }
  const tls = { certPath: '/nowhere/cert.pem', keyPath: '/nowhere/key.pem' };
  await assert.rejects(listenHttp({ host: '0.0.0.0', port: 0, tls }, parts), { code: 'HTTP_CERTIFICATE_UNUSABLE' });
});

test('behind a certificate: its name in the link, a secure cookie, metrics for a token', async (t) => {
  const { certPath, keyPath, cert, remove } = selfMadeCertificate();
  atEnd(t, remove);
  const { server, access } = await serving(t, { host: '127.0.0.1', port: 0, tls: { certPath, keyPath } });
  const port = server.address.split(':')[1];
  assert.equal(server.url, `https://berlin.example:${port}`);
  const ask = (path: string, headers: Record<string, string>, method = 'GET', body = '') => new Promise<{ status: number; cookie: string }>((resolve, reject) => {
    const own = { host: `berlin.example:${port}`, 'content-type': 'application/json' };
    const call = httpsRequest({ host: '127.0.0.1', port, path, method, ca: cert, headers: { ...own, ...headers } },
      (answer) => resolve({ status: answer.resume().statusCode!, cookie: String(answer.headers['set-cookie']) }));
    call.once('error', reject);
    call.end(body);
  });
  assert.equal((await ask('/metrics', {})).status, 401);
  assert.equal((await ask('/metrics', { authorization: `Bearer ${access.addToken('prometheus', 'reader', 1).token}` })).status, 200);
  const { status, cookie } = await ask('/session/sign-in', {}, 'POST', JSON.stringify({ token: access.addSignIn('reader', 1).token }));
  assert.equal(status, 200);
  assert.match(cookie, /; Secure$/);
});

test('a TCP port that is taken is a failure with the address in it', async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  atEnd(t, () => taken.close());
  const { port } = taken.address() as { port: number };
  await assert.rejects(serving(t, { ...LOOPBACK, port }), { code: 'HTTP_LISTEN_FAILED', message: new RegExp(`127\\.0\\.0\\.1:${port}`) });
});
