/** What arrives at the socket besides well-made calls. The command line's tests (test/cli) show those. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { UnderstudyError } from '../../model/errors.ts';
import type { Logger } from '../../model/ports.ts';
import { OPERATIONS } from './contract.ts';
import type { HostOperations, OperationName } from './contract.ts';
import { HTTP_STATUS } from './failure.ts';
import { listenOnSocket } from './http.ts';

const folder = mkdtempSync(join(tmpdir(), 'understudy-api-'));
after(() => rmSync(folder, { recursive: true }));
const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Every operation throws, but for those that a test gives. */
function operations(given: Partial<HostOperations> = {}): HostOperations {
  const refuse = (name: string) => () =>
    Promise.reject(new UnderstudyError('state', 'NOT_IN_THIS_TEST', name, 'none'));
  return {
    ...Object.fromEntries(Object.keys(OPERATIONS).map((name) => [name, refuse(name)])),
    ...given,
  } as HostOperations;
}

let sockets = 0;
async function serving(given: Partial<HostOperations>, work: (path: string) => Promise<void>): Promise<void> {
  const path = join(folder, `${(sockets += 1)}.sock`);
  const server = await listenOnSocket(path, { operations: operations(given), log: silent, version: '1.0.0' });
  try {
    await work(path);
  } finally {
    await server.close();
  }
}

interface Sent {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Buffer;
}

function send(
  socketPath: string,
  path: string,
  { method = 'POST', headers = {}, body = '{}' }: Sent = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath, path, method, agent: false, headers: { 'content-type': 'application/json', ...headers } },
      (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }));
      },
    );
    call.on('error', reject);
    call.end(method === 'GET' ? undefined : body);
  });
}

const errorOf = (text: string) =>
  (JSON.parse(text) as { error: { kind: string; code: string; message: string; remedy: string } }).error;

test('the socket can only be opened by its owner, whatever the mask, and is gone after the stop', async () => {
  const path = join(folder, 'private.sock');
  const mask = process.umask(0);
  const server = await listenOnSocket(path, { operations: operations(), log: silent, version: '1' });
  const seen = { mode: statSync(path).mode & 0o777, mask: process.umask(mask) };
  await server.close();
  assert.deepEqual(seen, { mode: 0o600, mask: 0 });
  assert.ok(!existsSync(path));
});

test('a second server on the same socket is refused, and the first one goes on', async () => {
  await serving({ fingerprint: () => Promise.resolve({ fingerprint: 'AA', name: 'a' }) }, async (path) => {
    await assert.rejects(listenOnSocket(path, { operations: operations(), log: silent, version: '1' }), {
      code: 'SERVER_RUNNING',
      kind: 'state',
    });
    assert.equal((await send(path, '/api/v1/fingerprint')).status, 200);
  });
});

test('a socket that a killed server left behind is replaced', async () => {
  const path = join(folder, 'stale.sock');
  const listens = `require('node:net').createServer().listen(${JSON.stringify(path)}`;
  spawnSync(process.execPath, ['-e', `${listens}, () => process.kill(process.pid, 'SIGKILL'))`]);
  assert.ok(existsSync(path));
  const server = await listenOnSocket(path, { operations: operations(), log: silent, version: '1' });
  assert.equal((await send(path, '/api/v1/fingerprint')).status, HTTP_STATUS.state);
  await server.close();
});

test('a folder that does not exist is a failure with the path in it', async () => {
  const path = join(folder, 'missing', 'server.sock');
  await assert.rejects(listenOnSocket(path, { operations: operations(), log: silent, version: '1' }), {
    code: 'SOCKET_FAILED',
    kind: 'io',
    message: /missing\/server\.sock/,
  });
});

const REFUSED: [name: string, path: string, sent: Sent, status: number, code: string][] = [
  ['an unknown operation', '/api/v1/explode', {}, 404, 'UNKNOWN_OPERATION'],
  ['a name of an object method', '/api/v1/toString', {}, 404, 'UNKNOWN_OPERATION'],
  ['an unknown path', '/etc/passwd', {}, 404, 'UNKNOWN_PATH'],
  ['a GET of an operation', '/api/v1/status', { method: 'GET' }, 404, 'UNKNOWN_PATH'],
  ['broken JSON', '/api/v1/status', { body: '{"name":' }, 400, 'BAD_REQUEST'],
  ['an empty body', '/api/v1/status', { body: '' }, 400, 'BAD_REQUEST'],
  ['a prototype in JSON', '/api/v1/status', { body: '{"__proto__":{}}' }, 400, 'BAD_REQUEST'],
  ['something that is not JSON', '/api/v1/status', { headers: { 'content-type': 'text/plain' } }, 415, 'BAD_REQUEST'],
  ['a body of more than 1 MiB', '/api/v1/status', { body: Buffer.alloc((1 << 20) + 1, 32) }, 413, 'BAD_REQUEST'],
  ['a parameter that does not exist', '/api/v1/status', { body: '{"nmae":"web1"}' }, 400, 'BAD_PARAMETERS'],
  ['a parameter of the wrong type', '/api/v1/status', { body: '{"name":7}' }, 400, 'BAD_PARAMETERS'],
  ['an array for an object', '/api/v1/status', { body: '[]' }, 400, 'BAD_PARAMETERS'],
  ['a relative path', '/api/v1/vm.add', { body: '{"name":"a","disks":["x.raw"]}' }, 400, 'BAD_PARAMETERS'],
  [
    'a path with a zero byte',
    '/api/v1/vm.add',
    { body: JSON.stringify({ name: 'a', disks: ['/x\0y'] }) },
    400,
    'BAD_PARAMETERS',
  ],
  [
    'a time without a zone',
    '/api/v1/start',
    { body: '{"name":"a","at":"2031-05-04T10:00:00"}' },
    400,
    'BAD_PARAMETERS',
  ],
  [
    'a fingerprint that is too short',
    '/api/v1/authorize',
    { body: '{"fingerprint":"AA:BB"}' },
    400,
    'BAD_PARAMETERS',
  ],
  ['settings without any', '/api/v1/set', { body: '{"name":"a"}' }, 400, 'BAD_PARAMETERS'],
];

for (const [name, path, sent, status, code] of REFUSED) {
  test(`${name} is refused with ${status} ${code}, and the host is not asked`, async () => {
    let asked = 0;
    const count = () => {
      asked += 1;
      return Promise.reject(new Error('asked'));
    };
    const all = Object.fromEntries(
      Object.keys(OPERATIONS).map((operation) => [operation, count]),
    ) as unknown as HostOperations;
    await serving(all, async (socket) => {
      const answer = await send(socket, path, sent);
      assert.deepEqual({ status: answer.status, code: errorOf(answer.text).code }, { status, code });
      assert.ok(errorOf(answer.text).remedy.length > 0);
    });
    assert.equal(asked, 0);
  });
}

test('bytes that are no HTTP close the connection, and the server goes on', async () => {
  await serving({}, async (path) => {
    const answer = await new Promise<string>((resolve, reject) => {
      let text = '';
      const socket = connect(path, () => socket.write('\x16\x03\x01 hello\r\n\r\n'));
      socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      socket.on('close', () => resolve(text)).on('error', reject);
    });
    assert.match(answer, /^HTTP\/1\.1 400 /);
    assert.equal((await send(path, '/api/v1/status')).status, HTTP_STATUS.state);
  });
});

for (const kind of ['usage', 'state', 'peer', 'io'] as const) {
  test(`a failure of kind ${kind} has HTTP status ${HTTP_STATUS[kind]} and all its parts`, async () => {
    const failure = new UnderstudyError(kind, 'A_CODE', 'what', 'do');
    await serving({ status: () => Promise.reject(failure) }, async (path) => {
      const { status, text } = await send(path, '/api/v1/status');
      assert.equal(status, HTTP_STATUS[kind]);
      assert.deepEqual(errorOf(text), { kind, code: 'A_CODE', message: 'what', remedy: 'do' });
    });
  });
}

test('a system error of the host keeps its errno as code', async () => {
  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  await serving({ status: () => Promise.reject(full) }, async (path) => {
    const { status, text } = await send(path, '/api/v1/status');
    assert.deepEqual([status, errorOf(text).code], [500, 'ENOSPC']);
  });
});

test('a long operation answers plainly unless lines are asked for', async () => {
  const done = { vmName: 'a', logSequence: 1, bytes: 0, seconds: 0 };
  const syncNow: HostOperations['sync-now'] = (_params, { progress }) => {
    progress({ phase: 'ship', done: 1, total: 2, unit: 'bytes' });
    return Promise.resolve(done);
  };
  await serving({ 'sync-now': syncNow }, async (path) => {
    const body = '{"name":"a"}';
    assert.deepEqual(JSON.parse((await send(path, '/api/v1/sync-now', { body })).text), done);
    const { text } = await send(path, '/api/v1/sync-now', { body, headers: { accept: 'application/x-ndjson' } });
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
    assert.deepEqual(lines, [{ progress: { phase: 'ship', done: 1, total: 2, unit: 'bytes' } }, { result: done }]);
  });
});

test('a caller that hangs up aborts its operation only', { timeout: 30_000 }, async () => {
  const aborted = Promise.withResolvers<void>();
  const hangs: HostOperations['verify'] = (_params, { signal }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        aborted.resolve();
        reject(signal.reason as Error);
      });
    });
  const other = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const waits: HostOperations['fingerprint'] = async (_params, { signal }) => {
    started.resolve();
    await other.promise;
    assert.ok(!signal.aborted);
    return { fingerprint: 'AA', name: 'a' };
  };
  await serving({ verify: hangs, fingerprint: waits }, async (path) => {
    const alongside = send(path, '/api/v1/fingerprint');
    await started.promise;
    const call = request({
      socketPath: path,
      path: '/api/v1/verify',
      method: 'POST',
      headers: { 'content-type': 'application/json', 'accept': 'application/x-ndjson' },
    });
    call.on('response', () => call.destroy()).on('error', () => undefined);
    call.end('{"name":"a"}');
    await aborted.promise;
    other.resolve();
    assert.equal((await alongside).status, 200);
  });
});

test('the OpenAPI document describes every operation', async () => {
  await serving({}, async (path) => {
    const { text } = await send(path, '/api/v1/openapi.json', { method: 'GET' });
    const document = JSON.parse(text) as {
      openapi: string;
      info: { version: string };
      paths: Record<string, { post: { operationId: string; summary: string; requestBody: object } }>;
    };
    assert.deepEqual([document.openapi, document.info.version], ['3.1.0', '1.0.0']);
    const names = Object.keys(OPERATIONS) as OperationName[];
    assert.deepEqual(
      Object.keys(document.paths),
      names.map((name) => `/api/v1/${name}`),
    );
    for (const name of names) assert.equal(document.paths[`/api/v1/${name}`]!.post.summary, OPERATIONS[name].summary);
    assert.match(JSON.stringify(document.paths['/api/v1/enable']!.post.requestBody), /"frequencySec":.*900/);
  });
});
