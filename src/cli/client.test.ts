/** What a command makes of a refusal that its server, or something else in its place, answers. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { socketPath } from '../server/api/socket-path.ts';
import { callHost } from './client.ts';

const root = mkdtempSync(join(tmpdir(), 'understudy-client-'));
after(() => rmSync(root, { recursive: true }));
const NEVER = new AbortController().signal;

/** A server that answers every connection with these bytes. */
async function answering(bytes: string, work: (dataFolder: string) => Promise<void>): Promise<void> {
  const dataFolder = mkdtempSync(join(root, 'data-'));
  const server = createServer((socket) => socket.on('error', () => undefined).once('data', () => socket.end(bytes)));
  await new Promise<void>((resolve) => server.listen(socketPath(dataFolder), resolve));
  try {
    await work(dataFolder);
  } finally {
    server.close();
  }
}

test('the command line says what the server said, and of an answer without a cause of ours which status it had', async () => {
  const failure = JSON.stringify({ error: { kind: 'io', code: 'REQUEST_TIMED_OUT', message: 'late', remedy: 'again' } });
  const call = (dataFolder: string) => callHost(dataFolder, 'fingerprint', {}, { signal: NEVER });
  await answering(`HTTP/1.1 408 Request Timeout\r\nContent-Length: ${failure.length}\r\n\r\n${failure}`, (dataFolder) =>
    assert.rejects(call(dataFolder), { code: 'REQUEST_TIMED_OUT', message: 'late', remedy: 'again' }));
  await answering('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater', (dataFolder) =>
    assert.rejects(call(dataFolder), { code: 'SERVER_ANSWER_INVALID', message: /HTTP 503.*later/, remedy: /Give the command again.*same version/ }));
});
