/** Who is heard, and who is not: every case over real TLS. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectPlain, createServer } from 'node:net';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createServer as createTlsServer } from 'node:tls';
import { z } from 'zod';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { PeerMessage } from '../../src/peer/message.ts';
import { clockWithSleep, identityOf, readAll, startRig } from './rig.ts';
import type { Rig } from './rig.ts';

const echo: PeerMessage<{ n: number }, { n: number }> = {
  name: 'echo', params: z.object({ n: z.int() }), result: z.object({ n: z.int() }),
  payloadBytesMax: 16 * 1024 * 1024, replyBytesMax: 16 * 1024 * 1024,
};

function handleEcho(rig: Rig): { calls: number } {
  const seen = { calls: 0 };
  rig.dispatcher.handle(echo, async (caller, { n }, payload) => {
    assert.equal(caller.name, 'primary');
    seen.calls++;
    return { result: { n: n + 1 }, payload: Buffer.from(payload) };
  });
  return seen;
}

const REQUEST = 'POST /peer/v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n\0\0\0\x07\0\0\0\0{"n":1}';

test('paired hosts talk over TLS 1.3 with AES-128-GCM, on one connection for call after call', async () => {
  await using rig = await startRig();
  const connections = new Set<string>();
  rig.dispatcher.handle(echo, async (caller, { n }, payload) => {
    connections.add(caller.address);
    return { result: { n: n + 1 }, payload: Buffer.from(payload) };
  });
  const link = rig.link();
  const payload = Buffer.alloc(16 * 1024 * 1024, 7);
  const reply = await link.call(echo, { n: 1 }, payload);
  assert.deepEqual(reply.result, { n: 2 });
  assert.ok(reply.payload.equals(payload));
  for (let n = 0; n < 20; n++) await link.call(echo, { n });
  assert.equal(connections.size, 1);
  const socket = await rig.raw();
  assert.equal(socket.getProtocol(), 'TLSv1.3');
  assert.equal(socket.getCipher().standardName, 'TLS_AES_128_GCM_SHA256');
  socket.destroy();
});

test('an unknown fingerprint is refused before HTTP is parsed, told in the log, and learns nothing', async () => {
  await using rig = await startRig();
  const seen = handleEcho(rig);
  const stranger = await identityOf('stranger');
  const link = rig.link({ identity: stranger });
  await assert.rejects(link.call(echo, { n: 1 }, Buffer.alloc(16 * 1024 * 1024)),
    { kind: 'peer', code: 'PEER_NOT_AUTHORISED', message: new RegExp(stranger.fingerprint) });
  const unparsed: Buffer[] = [];
  for (const bytes of [REQUEST, 'GET /peer/v1/no-such HTTP/1.1\r\n\r\n', 'not HTTP at all\r\n\r\n']) {
    const socket = await rig.raw(stranger.tlsOptions());
    socket.end(bytes);
    unparsed.push(await readAll(socket));
  }
  assert.match(unparsed[0]!.toString(), /^HTTP\/1\.1 403 Forbidden\r\n[^]*PEER_NOT_AUTHORISED/);
  assert.deepEqual(unparsed[1], unparsed[0], 'the answer does not depend on what was asked');
  assert.deepEqual(unparsed[2], unparsed[0]);
  assert.equal(seen.calls, 0);
  assert.equal(rig.refusals[0]?.fingerprint, stranger.fingerprint);
  assert.match(rig.refusals[0]?.address ?? '', /^127\.0\.0\.1:\d+$/);
  assert.deepEqual(rig.refusals.map(({ count }) => count), [1, 2, 4]);
  assert.equal(rig.log.at('warn').length, 3);
});

test('a client without a certificate is refused', async () => {
  await using rig = await startRig();
  const seen = handleEcho(rig);
  const socket = await rig.raw({ cert: undefined, key: undefined });
  socket.end(REQUEST);
  assert.match((await readAll(socket)).toString(), /403 Forbidden[^]*PEER_NOT_AUTHORISED[^]*no certificate/);
  assert.equal(seen.calls, 0);
  assert.deepEqual(rig.refusals.map(({ fingerprint, reason }) => [fingerprint, reason]), [[null, 'it shows no certificate']]);
});

test('the client refuses a server with another fingerprint before it sends a byte', async () => {
  const [impostor, primary, replica] = [await identityOf('impostor'), await identityOf('primary'), await identityOf('replica')];
  let received = 0;
  const options = { ...impostor.tlsOptions(), requestCert: true, rejectUnauthorized: false };
  const server = createTlsServer(options, (socket: TLSSocket) => {
    socket.on('error', () => {}).on('data', (bytes) => { received += bytes.length; });
  });
  server.on('connection', (socket) => socket.on('close', () => server.close()));
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  await using rig = await startRig();
  const { port } = server.address() as { port: number };
  const link = rig.link({ port });
  await assert.rejects(link.call(echo, { n: 1 }), (error: UnderstudyError) => {
    assert.equal(error.code, 'PEER_FINGERPRINT_MISMATCH');
    assert.ok(error.message.includes(impostor.fingerprint) && error.message.includes(replica.fingerprint));
    return error.kind === 'peer';
  });
  await once(server, 'close');
  assert.equal(received, 0);
  assert.notEqual(primary.fingerprint, impostor.fingerprint);
});

test('an entry that is removed ends what its host may do, on connections that are open too', async () => {
  await using rig = await startRig();
  handleEcho(rig);
  const link = rig.link();
  await link.call(echo, { n: 1 });
  const [entry] = rig.entries.splice(0);
  await assert.rejects(link.call(echo, { n: 1 }), { code: 'PEER_NOT_AUTHORISED' });
  rig.entries.push(entry!);
  assert.deepEqual((await link.call(echo, { n: 5 })).result, { n: 6 });
});

test('TLS 1.2 is refused', async () => {
  await using rig = await startRig();
  await assert.rejects(rig.raw({ maxVersion: 'TLSv1.2' }), { code: /ALERT_PROTOCOL_VERSION/ });
  assert.match(rig.refusals[0]?.reason ?? '', /no TLS 1\.3 handshake/);
});

test('plain HTTP on the port is refused and told', async () => {
  await using rig = await startRig();
  const socket = connectPlain(rig.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(REQUEST);
  const answer = await readAll(socket);
  assert.doesNotMatch(answer.toString('latin1'), /HTTP/);
  assert.match(rig.refusals[0]?.reason ?? '', /no TLS 1\.3 handshake/);
});

test('no session is resumed, so that every connection shows its certificate', async () => {
  await using rig = await startRig();
  handleEcho(rig);
  const first = await rig.raw();
  const tickets: Buffer[] = [];
  first.on('session', (ticket: Buffer) => tickets.push(ticket));
  first.end(REQUEST.replace('Host: x', 'Host: x\r\nConnection: close'));
  await readAll(first);
  const session = tickets.at(-1) ?? first.getSession();
  assert.ok(session !== undefined, 'the test offers a session');
  const second = await rig.raw({ session });
  assert.equal(second.isSessionReused(), false);
  second.end(REQUEST.replace('Host: x', 'Host: x\r\nConnection: close'));
  assert.match((await readAll(second)).toString(), /^HTTP\/1\.1 200 /);
});

test('a closed port, a port without TLS and a silent port are told apart', async () => {
  await using rig = await startRig();
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port: closedPort } = closed.address() as { port: number };
  closed.close();
  await once(closed, 'close');
  await assert.rejects(rig.link({ port: closedPort }).call(echo, { n: 1 }), { kind: 'peer', code: 'PEER_REFUSED' });

  for (const [greeting, reason] of [['SSH-2.0-x\r\n', /TLS 1\.3/], [null, /no answer within 1\.234 s/]] as const) {
    const clock = clockWithSleep(1234);
    const other = createServer((socket) => {
      socket.on('error', () => {});
      if (greeting !== null) socket.write(greeting);
      else socket.once('data', () => clock.end());
    }).listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    const link = rig.link({ port, clock, limits: { connectMs: 1234 } });
    await assert.rejects(link.call(echo, { n: 1 }), { kind: 'peer', code: 'PEER_TLS_FAILED', message: reason });
    other.close();
  }
});

test('no line of the log holds a private key', async () => {
  await using rig = await startRig();
  handleEcho(rig);
  await rig.link().call(echo, { n: 1 });
  await assert.rejects(rig.link({ identity: await identityOf('stranger') }).call(echo, { n: 1 }));
  assert.ok(rig.log.lines.length > 0);
  assert.doesNotMatch(JSON.stringify(rig.log.lines), /PRIVATE KEY/);
});
