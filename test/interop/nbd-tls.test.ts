/** NBD over TCP with TLS: what nobody may learn before it or without a certificate that is named, and other people's clients. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { atEnd } from '../rig/at-end.ts';
import { MemoryDisk } from '../../src/disk/memory-disk.ts';
import { NBD_OPT, NBD_REP, encodeClientFlags, encodeInfoRequest, encodeOption } from '../../src/disk/nbd/protocol.ts';
import { diskExport } from '../../src/nbd/export.ts';
import { NBD_LIMITS } from '../../src/nbd/limits.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { ScriptedClient } from '../../src/nbd/scripted-client.suite.ts';
import type { HostIdentity } from '../../src/peer/identity.ts';
import { nbdTls } from '../../src/server/nbd-over-tcp.ts';
import { identityOf, LogCapture, realClock } from '../peer/rig.ts';
import { temporaryFolder } from '../rig/program.ts';
import { missing, run, start } from './nbd-rig.suite.ts';

const MIB = 2 ** 20;
const host = await identityOf('localhost');
const known = await identityOf('known-client');
const stranger = await identityOf('stranger');

interface Served {
  port: number;
  disk: MemoryDisk;
  server: NbdServer;
  log: LogCapture;
}

async function serve(t: TestContext, limits: Partial<typeof NBD_LIMITS> = {}): Promise<Served> {
  const disk = new MemoryDisk(8 * MIB);
  const served = diskExport('secret', disk);
  const log = new LogCapture();
  const server = new NbdServer({
    exports: (name) => (name === 'secret' ? served : undefined), list: () => ['secret'], clock: realClock, log, limits });
  await server.listenTcp('127.0.0.1', 0, nbdTls({ host: '127.0.0.1', port: 0, clients: [known.fingerprint.toLowerCase()] }, host));
  atEnd(t, () => server.close({ drainMs: 0 }));
  const address = server.address()[0]!;
  assert.ok(address.kind === 'tcp' && address.tls === true);
  return { port: address.port, disk, server, log };
}

async function plain(port: number): Promise<{ client: ScriptedClient; socket: Socket }> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const client = new ScriptedClient(socket);
  await client.greet();
  return { client, socket };
}

/** STARTTLS, then the handshake with this certificate; what comes back speaks inside TLS. */
async function secured(port: number, identity: HostIdentity | null): Promise<ScriptedClient> {
  const { client, socket } = await plain(port);
  assert.deepEqual((await client.option(NBD_OPT.STARTTLS)).map(({ type }) => type), [NBD_REP.ACK]);
  socket.removeAllListeners('data').removeAllListeners('end');
  const own = identity === null ? {} : identity.tlsOptions();
  const tls: TLSSocket = connectTls({ socket, ...own, rejectUnauthorized: false });
  await once(tls, 'secureConnect');
  assert.equal(tls.getPeerX509Certificate()!.fingerprint256, host.fingerprint);
  return new ScriptedClient(tls);
}

const go = encodeInfoRequest({ name: 'secret', infos: [] });

test('before TLS a client is told to start it, and nothing else', async (t) => {
  const { port, log } = await serve(t);
  const { client } = await plain(port);
  for (const [option, data] of [[NBD_OPT.LIST], [NBD_OPT.GO, go], [NBD_OPT.INFO, go], [NBD_OPT.STRUCTURED_REPLY], [99]] as [number, Buffer?][]) {
    const replies = await client.option(option, data);
    assert.deepEqual(replies.map(({ type }) => type), [NBD_REP.ERR_TLS_REQD], `option ${option}`);
    assert.doesNotMatch(replies[0]!.data.toString(), /secret/);
  }
  assert.deepEqual((await client.option(NBD_OPT.STARTTLS, Buffer.from('x'))).map(({ type }) => type), [NBD_REP.ERR_INVALID]);
  client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('secret')));
  await client.closed;
  assert.equal(client.received.length, 0);
  assert.match(JSON.stringify(log.at('warn')), /begin with STARTTLS/);
});

test('what is sent with STARTTLS in one packet does not count: the connection is closed', async (t) => {
  const { port, server, log } = await serve(t);
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const client = new ScriptedClient(socket);
  await client.take(18);
  client.send(encodeClientFlags(3), encodeOption(NBD_OPT.STARTTLS), encodeOption(NBD_OPT.GO, go));
  await client.closed;
  assert.match(JSON.stringify(log.at('warn')), /bytes came between STARTTLS and its answer|TLS handshake/);
  assert.equal(server.connectionCount, 0);
});

test('a certificate that is not named, or none, gets one sentence for every option', async (t) => {
  const { port } = await serve(t);
  for (const [who, says] of [[stranger, new RegExp(stranger.fingerprint)], [null, /none was shown/]] as const) {
    const client = await secured(port, who);
    for (const option of [NBD_OPT.LIST, NBD_OPT.GO]) {
      const [reply] = await client.option(option, option === NBD_OPT.GO ? go : undefined);
      assert.equal(reply!.type, NBD_REP.ERR_POLICY);
      assert.match(reply!.data.toString(), says);
    }
    client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('secret')));
    await client.closed;
  }
});

test('a client that is named reads and writes; TLS cannot be started twice', async (t) => {
  const { port, disk, server } = await serve(t);
  const client = await secured(port, known);
  assert.equal((await client.option(NBD_OPT.STARTTLS))[0]!.type, NBD_REP.ERR_INVALID);
  await client.option(NBD_OPT.STRUCTURED_REPLY);
  assert.equal((await client.option(NBD_OPT.GO, go)).at(-1)!.type, NBD_REP.ACK);
  const payload = Buffer.alloc(MIB, 0x5a);
  client.request(1, 4096, MIB, { payload });
  assert.equal((await client.reply()).payload.length, 0);
  const there = Buffer.alloc(MIB);
  await disk.read(there, 4096);
  assert.ok(there.equals(payload));
  client.request(0, 4096, MIB);
  assert.ok((await client.reply()).payload.subarray(8).equals(payload));
  await client.hangUp();
  while (server.connectionCount > 0) await new Promise(setImmediate);
});

test('who only holds a place before TLS is closed in time, and counts as a connection meanwhile', async (t) => {
  const { port, log, server } = await serve(t, { handshakeMs: 300, connections: 2 });
  const [first, second] = [await plain(port), await plain(port)];
  const third = connect(port, '127.0.0.1');
  await once(third.resume(), 'close');
  assert.match(JSON.stringify(log.at('warn')), /too many connections/);
  await Promise.all([first.client.closed, second.client.closed]);
  assert.equal(server.connectionCount, 0);
});

test('closing the server ends who waits at the door', async (t) => {
  const { port, server } = await serve(t);
  const { client } = await plain(port);
  await server.close();
  await client.closed;
});

test('random bytes instead of TLS, and a hang-up at every step, leave the server as it was', async (t) => {
  const { port, server } = await serve(t);
  for (let round = 0; round < 40; round++) {
    const { client, socket } = await plain(port);
    if (round % 4 !== 0) await client.option(NBD_OPT.STARTTLS);
    if (round % 2 === 0) socket.write(Buffer.from(Array.from({ length: 1 + round * 7 }, (_, index) => (index * 37 + round * 11) % 256)));
    if (round % 3 === 0) socket.destroy();
    else socket.end();
    await client.closed;
  }
  const client = await secured(port, known);
  assert.equal((await client.option(NBD_OPT.GO, go)).at(-1)!.type, NBD_REP.ACK);
  await client.hangUp();
  while (server.connectionCount > 0) await new Promise(setImmediate);
  assert.equal(server.memoryBytes, 0);
});

/** The folder that QEMU and libnbd want. */
async function credentials(t: TestContext, identity: HostIdentity): Promise<string> {
  const folder = join(await temporaryFolder(t), 'pki');
  mkdirSync(folder);
  const { cert, key } = identity.tlsOptions();
  writeFileSync(join(folder, 'ca-cert.pem'), host.certificate);
  writeFileSync(join(folder, 'client-cert.pem'), cert);
  writeFileSync(join(folder, 'client-key.pem'), key, { mode: 0o600 });
  return folder;
}

test('nbdinfo and nbdcopy over TLS', { skip: missing('nbdinfo', 'nbdcopy') }, async (t) => {
  const { port, disk } = await serve(t);
  const uri = (folder: string) => `nbds://localhost:${port}/secret?tls-certificates=${folder}`;
  const folder = await credentials(t, known);
  assert.match(await run('nbdinfo', uri(folder)), /export-size: 8388608/);
  const source = join(folder, 'source.raw');
  writeFileSync(source, Buffer.alloc(8 * MIB, 0xc3));
  await run('nbdcopy', '--flush', source, uri(folder));
  const there = Buffer.alloc(8 * MIB);
  await disk.read(there, 0);
  assert.ok(there.equals(Buffer.alloc(8 * MIB, 0xc3)));
  const refused = await start('nbdinfo', [uri(await credentials(t, stranger))]).ended;
  assert.notEqual(refused.status, 0);
  const unsecured = await start('nbdinfo', [`nbd://localhost:${port}/secret`]).ended;
  assert.notEqual(unsecured.status, 0);
});

test('QEMU with tls-creds-x509', { skip: missing('qemu-img', 'qemu-io') }, async (t) => {
  const { port, disk } = await serve(t);
  const words = (folder: string) => ['--object', `tls-creds-x509,id=understudy,endpoint=client,dir=${folder},sanity-check=off`, '--image-opts',
    `driver=nbd,host=localhost,port=${port},export=secret,tls-creds=understudy`];
  const folder = await credentials(t, known);
  await run('qemu-io', '-c', 'write -P 0x77 64k 1M', '-c', 'flush', ...words(folder));
  const there = Buffer.alloc(MIB);
  await disk.read(there, 64 * 1024);
  assert.ok(there.equals(Buffer.alloc(MIB, 0x77)));
  assert.match(await run('qemu-img', 'info', ...words(folder)), /virtual size: 8 MiB/);
  const refused = await start('qemu-img', ['info', ...words(await credentials(t, stranger))]).ended;
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /not named by --nbd-client/);
});
