/** What the HTTP server refuses before any route is asked: in the shape of all failures, so that the command line can say what was wrong. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Logger } from '../../model/ports.ts';
import type { HostOperations } from './contract.ts';
import { listenOnSocket } from './http.ts';

const root = mkdtempSync(join(tmpdir(), 'understudy-refusals-'));
after(() => rmSync(root, { recursive: true }));
const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
let folders = 0;

async function serving(given: Partial<HostOperations>, work: (path: string, close: () => Promise<void>) => Promise<void>): Promise<void> {
  const path = join(root, `${(folders += 1)}.sock`);
  const limits = { headersTimeout: 40, requestTimeout: 80, connectionsCheckingInterval: 10 };
  const server = await listenOnSocket(path, { operations: given as HostOperations, log: silent, version: '1.0.0' }, limits);
  try {
    await work(path, () => server.close());
  } finally {
    await server.close().catch(() => undefined);
  }
}

/** All that the server sends until it hangs up. */
function exchange(path: string, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path, () => socket.write(bytes));
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    socket.on('close', () => resolve(text)).on('error', reject);
  });
}

const POST = 'POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n';
const LAST = 'Connection: close\r\n';
const REFUSED: [what: string, bytes: string, status: number, code: string, says: RegExp][] = [
  ['headers that do not end', POST, 408, 'REQUEST_TIMED_OUT', /not here whole within 0.04 s .* 0.08 s/],
  ['a body that does not come', `${POST}Content-Length: 9\r\n\r\n{`, 408, 'REQUEST_TIMED_OUT', /nothing was done/],
  ['headers that are too large', `${POST}X: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'BAD_REQUEST', /16384 bytes/],
  ['a request line that is none', 'understudy status\r\n\r\n', 400, 'BAD_REQUEST', /no HTTP/],
  ['no name of a host', `GET /api/v1/openapi.json HTTP/1.1\r\n${LAST}\r\n`, 400, 'BAD_REQUEST', /Host/],
  ['an expectation that nobody meets', `${POST}${LAST}Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}`, 417, 'BAD_REQUEST', /a-miracle/],
  ['a path that cannot be read', `GET /api/v1/%zz HTTP/1.1\r\nHost: localhost\r\n${LAST}\r\n`, 400, 'BAD_REQUEST', /%zz/],
  ['a name that is too long', `${POST.replace('status', 'x'.repeat(200))}${LAST}Content-Length: 2\r\n\r\n{}`, 414, 'BAD_REQUEST', /xxx/],
];

for (const [what, bytes, status, code, says] of REFUSED) {
  test(`${what}: ${status} ${code}`, async () => {
    await serving({ status: () => assert.fail('the host was asked') }, async (path) => {
      const answer = await exchange(path, bytes);
      const [head, body] = [answer.slice(0, answer.indexOf('\r\n\r\n')), answer.slice(answer.indexOf('\r\n\r\n') + 4)];
      assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} .*\r\n[^]*content-type: application/json`, 'i'));
      const { error } = JSON.parse(body) as { error: { kind: string; code: string; message: string; remedy: string } };
      assert.deepEqual([error.code, error.kind], [code, status === 408 ? 'io' : 'usage']);
      assert.match(error.message, says);
      assert.ok(error.remedy.length > 0);
      assert.equal(new RegExp('content-length: (\\d+)', 'i').exec(head)?.[1], String(Buffer.byteLength(body)));
    });
  });
}

test('bytes that follow a request that is being answered do not get into its answer', async () => {
  const going = Promise.withResolvers<void>();
  const verify: HostOperations['verify'] = async (_params, { progress, signal }) => {
    progress({ phase: 'verify', done: 1, total: 2, unit: 'bytes' });
    going.resolve();
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  };
  await serving({ verify }, async (path) => {
    let text = '';
    const closed = Promise.withResolvers<void>();
    const body = '{"name":"a"}';
    const socket = connect(path, () => socket.write(
      `${POST.replace('status', 'verify')}Accept: application/x-ndjson\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
    const begun = Promise.withResolvers<void>();
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (text.includes('"progress"')) begun.resolve();
    });
    socket.on('close', () => closed.resolve()).on('error', () => undefined);
    await going.promise;
    await begun.promise;
    socket.write('no HTTP at all\r\n\r\n');
    await closed.promise;
    assert.doesNotMatch(text, /HTTP\/1\.1 400/);
  });
});

test('a request on a connection that is open while the server stops is told so', async () => {
  const going = Promise.withResolvers<void>();
  const fingerprint: HostOperations['fingerprint'] = (_params, { signal }) => {
    going.resolve();
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  };
  await serving({ fingerprint }, async (path, close) => {
    const call = `${POST.replace('status', 'fingerprint')}Content-Length: 2\r\n\r\n{}`;
    const answer = exchange(path, call + call);
    await going.promise;
    await close();
    for (const body of (await answer).split(/(?=HTTP\/1\.1 )/).map((one) => one.slice(one.indexOf('\r\n\r\n') + 4))) {
      assert.equal((JSON.parse(body) as { error: { code: string } }).error.code, 'INTERRUPTED', body);
    }
  });
});
