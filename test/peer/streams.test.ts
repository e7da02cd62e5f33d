/** Raw bytes both ways over a connection that began as HTTP. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { test } from 'node:test';
import { z } from 'zod';
import { UnderstudyError } from '../../src/model/errors.ts';
import { TLS_PARAMETERS } from '../../src/peer/tls-parameters.ts';
import { readAll, startRig } from './rig.ts';

const compare = { name: 'compare', params: z.object({ disk: z.string() }) };
const DISK = { disk: 'root' };

test('one direction of a stream ends while the other goes on', async () => {
  await using rig = await startRig();
  const sent = Buffer.alloc(3 * 1024 * 1024, 'digest');
  rig.dispatcher.handleStream(compare, async (caller, { disk }, stream) => {
    assert.equal(caller.name, 'primary');
    const asked = await buffer(stream);
    stream.write(`${disk} ${asked.equals(sent)} `);
    stream.end('the end');
  });
  const stream = await rig.link().stream(compare, DISK);
  stream.end(sent);
  assert.equal(await text(stream), 'root true the end');
});

test('the server may end first and still hear the rest', async () => {
  await using rig = await startRig();
  let heard = '';
  const done = Promise.withResolvers<void>();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    stream.end('all I know');
    heard = await text(stream);
    done.resolve();
  });
  const stream = await rig.link().stream(compare, DISK);
  assert.equal(await text(stream), 'all I know');
  stream.end('thanks');
  await done.promise;
  assert.equal(heard, 'thanks');
});

test('bytes that follow the request at once are not lost', async () => {
  await using rig = await startRig();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => { stream.end(await text(stream)); });
  const socket = await rig.raw({ allowHalfOpen: true } as object);
  const params = Buffer.from(JSON.stringify(DISK)).toString('base64url');
  socket.end('GET /peer/v1/compare HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: understudy-stream/1\r\n' +
    `understudy-params: ${params}\r\n\r\nearly`);
  assert.match((await readAll(socket)).toString(), /^HTTP\/1\.1 101 [^]*\r\n\r\nearly$/);
});

test('an abort by the caller reaches the handler', async () => {
  await using rig = await startRig();
  const ended = Promise.withResolvers<void>();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    stream.write('go');
    await readAll(stream);
    ended.resolve();
  });
  const abort = new AbortController();
  const stream = await rig.link().stream(compare, DISK, { signal: abort.signal });
  await once(stream, 'data');
  abort.abort(new Error('cancelled'));
  await assert.rejects(finished(stream), /cancelled/);
  await ended.promise;
});

test('a handler that fails, a peer that is cut off and a link that closes all cut the stream', async () => {
  await using rig = await startRig();
  let fail = Promise.withResolvers<void>();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    stream.write('go');
    await Promise.race([fail.promise, readAll(stream)]);
  });
  const link = rig.link();
  const cuts: ((stream: Duplex) => unknown)[] = [
    () => fail.reject(new UnderstudyError('io', 'DISK_READ_FAILED', 'cannot read', 'Look.')),
    () => rig.server.disconnect(rig.primary.fingerprint),
    () => link.close(),
  ];
  for (const cut of cuts) {
    fail = Promise.withResolvers();
    const stream = await link.stream(compare, DISK);
    await once(stream, 'data');
    const closed = new Promise((resolve) => stream.once('close', resolve));
    await cut(stream);
    await readAll(stream);
    stream.destroy();
    await closed;
  }
  await assert.rejects(link.stream(compare, DISK), { code: 'PEER_LINK_CLOSED' });
});

test('a stream that is not admitted is refused with the handler\'s own words', async () => {
  await using rig = await startRig();
  rig.dispatcher.handleStream(compare, async () => { assert.fail('it was not admitted'); },
    async (_caller, { disk }) => {
      throw new UnderstudyError('state', 'RESYNC_RUNNING', `${disk} is compared already`, 'Wait.');
    });
  await assert.rejects(rig.link().stream(compare, DISK),
    { kind: 'state', code: 'RESYNC_RUNNING', message: 'root is compared already', remedy: 'Wait.' });
  await assert.rejects(rig.link().stream({ name: 'nothing', params: z.object({}) }, {}), { code: 'PEER_MESSAGE_UNKNOWN' });
  await assert.rejects(rig.link().stream({ ...compare, params: z.object({}) } as never, {}), { code: 'PEER_MESSAGE_INVALID' });
});

test('a stream is not read faster than its handler takes it', async () => {
  await using rig = await startRig();
  const start = Promise.withResolvers<void>();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    await start.promise;
    stream.end(String((await buffer(stream)).length));
  });
  const stream = await rig.link().stream(compare, DISK);
  const size = 32 * 1024 * 1024;
  let written = false;
  stream.end(Buffer.alloc(size), () => { written = true; });
  // Two round trips over another connection: time enough for everything that would flow unasked.
  for (let n = 0; n < 2; n++) await rig.link().stream({ name: 'other', params: z.object({}) }, {}).catch(() => {});
  assert.equal(written, false);
  start.resolve();
  assert.equal(await text(stream), String(size));
});

test('a stream over which nothing moves is cut by either side', async () => {
  for (const [server, client] of [[100, 60_000], [60_000, 100]] as const) {
    await using rig = await startRig({ streamIdleMs: server });
    const ended = Promise.withResolvers<void>();
    rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
      await readAll(stream);
      ended.resolve();
    });
    const stream = await rig.link({ limits: { streamIdleMs: client } }).stream(compare, DISK);
    await readAll(stream);
    stream.destroy();
    await ended.promise;
  }
});

test('to open a stream costs the handshake and a few hundred bytes', async () => {
  await using rig = await startRig();
  rig.dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    await finished(stream.resume(), { writable: false });
  });
  const bytes = { handshake: 0, stream: 0 };
  let counting: keyof typeof bytes = 'stream';
  const proxy = createServer((near) => {
    const far = connect(rig.port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]] as const) {
      from.on('data', (part) => { bytes[counting] += part.length; });
      from.on('error', () => {});
      from.pipe(to);
    }
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const { port } = proxy.address() as { port: number };
  const stream = await rig.link({ port }).stream(compare, DISK);
  stream.end();
  await readAll(stream);
  counting = 'handshake';
  const bare = await rig.raw({ ...TLS_PARAMETERS, port });
  bare.end();
  await readAll(bare);
  proxy.close();
  const overhead = bytes.stream - bytes.handshake;
  assert.ok(overhead > 0 && overhead < 600, `${overhead} bytes beyond the handshake of ${bytes.handshake}`);
  assert.ok(bytes.stream < 2500, `${bytes.stream} bytes in all`);
});
