import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { MemoryDisk } from '../disk/memory-disk.ts';
import {
  NBD_CHUNK, NBD_CLIENT_FLAG, NBD_CMD, NBD_OPT, NBD_REP, encodeInfoRequest, encodeOption, encodeRequest,
} from '../disk/nbd/protocol.ts';
import { UnderstudyError } from '../model/errors.ts';
import { diskExport, type ClientInfo, type NbdExport } from './export.ts';
import { readByEvents } from './read-into.ts';
import { HandClock, ScriptedClient, rig, type Rig } from './scripted-client.suite.ts';
import { nbdUri } from './server.ts';
import { SLAB_BYTES } from './slab-pool.ts';

const MIB = 2 ** 20;
const turn = () => new Promise((resolve) => setImmediate(resolve));

function disk(over: Partial<NbdExport> = {}): NbdExport {
  return { ...diskExport('disk', new MemoryDisk(8 * MIB)), ...over };
}

/**
 * Turns of the event loop until something is so. Both ends live in this process, so that turns bound it and not time.
 */
async function until(condition: () => boolean): Promise<void> {
  for (let left = 300_000; !condition(); left -= 1) {
    assert.ok(left > 0, 'it never became so');
    await turn();
  }
}

/** The last line of each connection that has ended. */
const endings = (from: Rig) => from.lines.filter((line) => /^an NBD connection/.test(line.message));

test('two clients of one export see each other\'s writes', async () => {
  await using nbd = await rig([disk()]);
  const [one, two] = await Promise.all([nbd.client(), nbd.client()]);
  await Promise.all([one.attach(), two.attach()]);
  one.request(NBD_CMD.WRITE, 4096, 5, { payload: Buffer.from('hello') });
  await one.reply();
  two.request(NBD_CMD.READ, 4096, 5);
  assert.equal((await two.reply()).payload.subarray(8).toString(), 'hello');
});

test('exports are kept apart', async () => {
  await using nbd = await rig([disk(), { ...disk(), name: 'other' }]);
  const [one, two] = await Promise.all([nbd.client(), nbd.client()]);
  await Promise.all([one.attach('disk'), two.attach('other', { structured: false })]);
  one.request(NBD_CMD.WRITE, 0, 5, { payload: Buffer.from('hello') });
  await one.reply();
  two.request(NBD_CMD.READ, 0, 5);
  assert.deepEqual((await two.reply(5)).payload, Buffer.alloc(5));
});

test('a client with requests in the same packet as GO is served', async () => {
  await using nbd = await rig([disk()]);
  const client = await (await nbd.client()).greet();
  const read = encodeRequest({ command: NBD_CMD.READ, flags: 0, cookie: 1n, offset: 0, length: 4 });
  client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('disk')), read);
  await client.take(10);
  assert.deepEqual((await client.reply(4)).payload, Buffer.alloc(4));
});

test('DISC waits for what is under way, and then the export hears that the client has gone', async () => {
  const gate = Promise.withResolvers<void>();
  const heard: string[] = [];
  await using nbd = await rig([disk({
    write: () => gate.promise,
    clientConnected: ({ id, address }: ClientInfo) => void heard.push(`connected ${id} ${address}`),
    clientGone: ({ id }: ClientInfo) => void heard.push(`gone ${id}`),
  })]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.WRITE, 0, 512, { cookie: 5n, payload: Buffer.alloc(512) });
  client.request(NBD_CMD.READ, 0, 512, { cookie: 6n });
  client.request(NBD_CMD.DISC, 0, 0);
  assert.equal((await client.reply()).cookie, 6n);
  assert.deepEqual(heard, ['connected 1 unix']);
  gate.resolve();
  assert.equal((await client.reply()).cookie, 5n);
  await client.closed;
  await until(() => heard.length === 2);
  assert.deepEqual(heard, ['connected 1 unix', 'gone 1']);
  assert.deepEqual(endings(nbd).map(({ level, fields }) => [level, fields['reason']]), [['info', 'the client disconnected']]);
});

test('a client that is killed leaves its operations to end, and its memory comes back', async () => {
  const gate = Promise.withResolvers<void>();
  let gone = 0;
  await using nbd = await rig([disk({ read: () => gate.promise, write: () => gate.promise, clientGone: () => (gone += 1) })]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.READ, 0, MIB);
  client.request(NBD_CMD.READ, 0, 4096);
  client.request(NBD_CMD.WRITE, 0, MIB, { payload: Buffer.alloc(MIB) });
  client.request(NBD_CMD.WRITE, 0, 4096, { payload: Buffer.alloc(4096) });
  client.request(NBD_CMD.WRITE, 0, MIB, { payload: Buffer.alloc(1000) });
  await until(() => nbd.server.memoryBytes === 3 * MIB + 2 * SLAB_BYTES);
  await client.hangUp();
  await turn();
  assert.equal(gone, 0, 'operations are under way');
  gate.resolve();
  await until(() => gone === 1);
  assert.equal(nbd.server.memoryBytes, 0);
  assert.equal(nbd.server.connectionCount, 0);
});

test('a client that half-closes still gets its replies', async () => {
  await using nbd = await rig([disk()]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.READ, 0, 4096);
  client.socket.end();
  assert.equal((await client.reply()).payload.length, 8 + 4096);
  await client.closed;
  assert.deepEqual(endings(nbd).map(({ level, fields }) => [level, fields['reason']]), [['info', 'the client hung up']]);
});

test('hanging up in the middle of a message is logged as a fault', async () => {
  await using nbd = await rig([disk()]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.WRITE, 0, MIB, { payload: Buffer.alloc(1000) });
  client.socket.end();
  await client.closed;
  await until(() => endings(nbd).length === 1);
  const [ending] = endings(nbd);
  assert.equal(ending!.level, 'warn');
  assert.equal(ending!.fields['reason'], 'the client hung up in the middle of a message');
});

test('an export may refuse a client, who reads why and may ask for another', async () => {
  const refuse = () => {
    throw new UnderstudyError('state', 'VM_LOCKED', 'the VM is prepared for failover', 'Cancel the failover first.');
  };
  await using nbd = await rig([disk({ clientConnected: refuse }), { ...disk(), name: 'other' }]);
  const client = await (await nbd.client()).greet();
  const [refused] = await client.option(NBD_OPT.GO, encodeInfoRequest({ name: 'disk', infos: [] }));
  assert.equal(refused!.type, NBD_REP.ERR_POLICY);
  assert.equal(refused!.data.toString(), 'the VM is prepared for failover. Cancel the failover first.');
  const replies = await client.option(NBD_OPT.GO, encodeInfoRequest({ name: 'other', infos: [] }));
  assert.equal(replies.at(-1)!.type, NBD_REP.ACK);

  const old = await (await nbd.client()).greet();
  old.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('disk')));
  await old.closed;
  assert.equal(old.received.length, 0);
});

const wrongHandshakes: [name: string, bytes: Buffer, reason: RegExp][] = [
  ['unknown client flags', Buffer.from('ffffffff', 'hex'), /^unknown client flags 0xfffffffc$/],
  ['a wrong option magic', Buffer.concat([Buffer.from('00000003', 'hex'), Buffer.alloc(16)]), /^option magic 0x0, expected/],
  ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n\r\n'), /^unknown client flags/],
  ['an option of 1 GiB',
    Buffer.concat([Buffer.from('00000003', 'hex'), encodeOption(3).subarray(0, 12), Buffer.from('40000000', 'hex')]),
    /^option 3 with 1073741824 bytes of data, at most 65536$/],
];
for (const [name, bytes, reason] of wrongHandshakes) {
  test(`${name} closes the connection with a reason in the log`, async () => {
    await using nbd = await rig([disk()]);
    const client = await nbd.client();
    client.send(bytes);
    await client.closed;
    await until(() => endings(nbd).length === 1);
    assert.equal(endings(nbd)[0]!.level, 'warn');
    assert.match(String(endings(nbd)[0]!.fields['reason']), reason);
  });
}

test('a handshake that takes too long is cut, however busy it looks', async () => {
  const clock = new HandClock();
  await using nbd = await rig([disk()], { clock, limits: { options: 1000 } });
  const [idle, busy, quick] = await Promise.all([nbd.client(), nbd.client(), nbd.client()]);
  await busy.greet();
  await quick.attach();
  for (let second = 0; second < 9; second += 1) {
    await clock.pass(1000);
    await busy.option(NBD_OPT.LIST);
  }
  assert.equal(nbd.server.connectionCount, 3);
  await clock.pass(3000);
  await Promise.all([idle.closed, busy.closed]);
  quick.request(NBD_CMD.FLUSH, 0, 0);
  await quick.reply();
  const reasons = endings(nbd).map(({ fields }) => fields['reason']);
  assert.deepEqual(reasons, Array(2).fill('the handshake took longer than 10000 ms'));
});

test('connections over the limit are turned away, and there is room again when one ends', async () => {
  await using nbd = await rig([disk()], { limits: { connections: 2 } });
  const [one] = await Promise.all([nbd.client(), nbd.client()]);
  await one.attach();
  const third = await nbd.client();
  await third.closed;
  assert.equal(third.received.length, 0);
  await one.hangUp();
  await until(() => nbd.server.connectionCount === 1);
  await (await nbd.client()).attach();
});

test('a client that takes no replies is not read any further', async () => {
  let reads = 0;
  const fill = (into: Uint8Array) => {
    reads += 1;
    into.fill(1);
    return undefined;
  };
  await using nbd = await rig([disk({ read: fill })], { limits: { connectionBytes: 4 * MIB } });
  const client = await (await nbd.client()).attach();
  client.socket.pause();
  for (let i = 0; i < 100; i += 1) client.request(NBD_CMD.READ, 0, MIB, { cookie: BigInt(i) });
  await until(() => reads >= 4);
  for (let i = 0; i < 100; i += 1) await turn();
  assert.ok(reads <= 6, `${reads} MiB were read for a client that takes nothing`);
  assert.ok(nbd.server.memoryBytes <= 8 * MIB);
  client.socket.resume();
  for (let i = 0; i < 100; i += 1) assert.equal((await client.reply()).cookie, BigInt(i));
});

test('a client over its number of requests is read again when some have ended', async () => {
  const gates: PromiseWithResolvers<void>[] = [];
  const hold = () => {
    gates.push(Promise.withResolvers());
    return gates.at(-1)!.promise;
  };
  await using nbd = await rig([disk({ write: hold })], { limits: { requestsInFlight: 4 } });
  const client = await (await nbd.client()).attach();
  const payload = Buffer.alloc(60_000);
  for (let i = 0; i < 40; i += 1) client.request(NBD_CMD.WRITE, 0, payload.length, { cookie: BigInt(i), payload });
  for (let i = 0; i < 40; i += 1) {
    await until(() => gates.length > i);
    assert.ok(gates.length <= i + 4);
    gates[i]!.resolve();
    assert.equal((await client.reply()).cookie, BigInt(i));
  }
});

test('an idle connection holds one slab, whatever it did before', async () => {
  await using nbd = await rig([disk()]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.READ, 0, 4096);
  client.request(NBD_CMD.READ, 0, 4 * MIB, { cookie: 2n });
  client.request(NBD_CMD.WRITE, 0, MIB, { cookie: 3n, payload: Buffer.alloc(MIB) });
  for (let i = 0; i < 3; i += 1) await client.reply();
  await until(() => nbd.server.memoryBytes === SLAB_BYTES);
});

test('who is closed while it waits for memory does not hold up the next', async () => {
  const limits = { memoryBytes: 8 * MIB, payloadBytes: 2 * MIB, connectionBytes: 8 * MIB };
  await using nbd = await rig([disk(), { ...disk(), name: 'other' }], { limits });
  const stuck = await Promise.all([1, 2, 3].map(async () => (await nbd.client()).attach()));
  for (const client of stuck) client.request(NBD_CMD.WRITE, 0, 2 * MIB, { payload: Buffer.alloc(MIB) });
  await until(() => nbd.server.memoryBytes > 6 * MIB);
  const [large, small] = [await (await nbd.client()).attach('other'), await (await nbd.client()).attach()];
  large.request(NBD_CMD.READ, 0, 2 * MIB);
  await turn();
  small.request(NBD_CMD.READ, 0, 512);
  for (let i = 0; i < 5; i += 1) await turn();
  assert.equal(small.received.length, 0, 'it waits behind the large request');
  await nbd.server.disconnect('other');
  assert.equal((await small.reply()).payload.length, 8 + 512);
});

test('who holds memory and does not move is cut when others wait for it, not before', async () => {
  const clock = new HandClock();
  const limits = { memoryBytes: 8 * MIB, payloadBytes: 2 * MIB, connectionBytes: 8 * MIB };
  await using nbd = await rig([disk()], { clock, limits });
  const [slow, ...stuck] = await Promise.all([1, 2, 3].map(async () => (await nbd.client()).attach()));
  for (const client of [slow!, ...stuck]) client.request(NBD_CMD.WRITE, 0, 2 * MIB, { payload: Buffer.alloc(MIB) });
  await until(() => nbd.server.memoryBytes > 6 * MIB);
  await clock.pass(60_000);
  assert.equal(nbd.server.connectionCount, 3, 'nobody waits');
  slow!.send(Buffer.alloc(1));
  const eager = await (await nbd.client()).attach();
  eager.request(NBD_CMD.READ, 0, 2 * MIB);
  await turn();
  await clock.pass(3_000);
  assert.equal((await eager.reply()).payload.length, 8 + 2 * MIB);
  await Promise.all(stuck.map((client) => client.closed));
  await until(() => endings(nbd).length === 2);
  for (const { fields } of endings(nbd)) {
    assert.match(String(fields['reason']), /no byte moved for 30000 ms while others wait/);
  }
  slow!.send(Buffer.alloc(MIB - 1));
  assert.equal((await slow!.reply()).kind, 'simple');
});

test('a disk that fails is one line in the log, and a number at the end', async () => {
  const fail = () => Promise.reject(Object.assign(new Error('the disk is gone'), { code: 'EIO' }));
  await using nbd = await rig([disk({ read: fail })]);
  const client = await (await nbd.client()).attach();
  for (let i = 0; i < 5; i += 1) {
    client.request(NBD_CMD.READ, 0, 512);
    const reply = await client.reply();
    assert.ok(reply.kind === 'chunk' && reply.type === NBD_CHUNK.ERROR);
  }
  await client.hangUp();
  await until(() => endings(nbd).length === 1);
  assert.equal(nbd.lines.filter((line) => line.level === 'error').length, 1);
  assert.equal(endings(nbd)[0]!.fields['failures'], 5);
});

test('closing answers what is under way and takes nothing new', async () => {
  const gate = Promise.withResolvers<void>();
  let writes = 0;
  await using nbd = await rig([disk({ write: () => {
    writes += 1;
    return gate.promise;
  } })]);
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.WRITE, 0, 512, { cookie: 1n, payload: Buffer.alloc(512) });
  await until(() => writes === 1);
  const closing = nbd.server.close();
  client.request(NBD_CMD.WRITE, 0, 512, { cookie: 2n, payload: Buffer.alloc(512) });
  await assert.rejects(ScriptedClient.open(nbd.path));
  gate.resolve();
  assert.deepEqual(await closing, { unfinished: 0 });
  assert.equal((await client.reply()).cookie, 1n);
  await client.closed;
  assert.equal(writes, 1);
  assert.ok(!existsSync(nbd.path));
});

test('closing gives up after its time, and says what has not ended', async () => {
  const gate = Promise.withResolvers<void>();
  const clock = new HandClock();
  let gone = 0;
  await using nbd = await rig([disk({ write: () => gate.promise, clientGone: () => (gone += 1) })], { clock });
  const client = await (await nbd.client()).attach();
  client.request(NBD_CMD.WRITE, 0, 512, { payload: Buffer.alloc(512) });
  await until(() => nbd.server.memoryBytes > 0);
  client.request(NBD_CMD.READ, 0, 512, { cookie: 9n });
  assert.equal((await client.reply()).cookie, 9n);
  const closing = nbd.server.close({ drainMs: 3000 });
  await clock.pass(3000);
  assert.deepEqual(await closing, { unfinished: 1 });
  await client.closed;
  await turn();
  assert.equal(gone, 0, 'the disk is still being written');
  gate.resolve();
  await until(() => nbd.server.connectionCount === 0);
  assert.equal(gone, 1);
});

test('one export can be closed while others are served', async () => {
  await using nbd = await rig([disk(), { ...disk(), name: 'other' }]);
  const [one, two] = await Promise.all([nbd.client(), nbd.client()]);
  await Promise.all([one.attach('disk'), two.attach('other')]);
  assert.deepEqual(await nbd.server.disconnect('disk'), { unfinished: 0 });
  await one.closed;
  two.request(NBD_CMD.FLUSH, 0, 0);
  await two.reply();
});

test('the socket is for its owner only, from its first moment, and the umask stays', async () => {
  const before = process.umask(0o022);
  await using nbd = await rig([disk()]);
  assert.equal(process.umask(before), 0o022);
  assert.equal(statSync(nbd.path).mode & 0o777, 0o600);
});

test('a socket file that a crash left behind is replaced', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-test-'));
  const path = join(folder, 'left.sock');
  const crash = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', crash]);
  assert.deepEqual(readdirSync(folder), ['left.sock']);
  await using nbd = await rig([disk()]);
  await nbd.server.listenUnix(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await (await ScriptedClient.open(path)).attach();
  rmSync(folder, { recursive: true });
});

test('a socket that somebody answers is left alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-test-'));
  const path = join(folder, 'used.sock');
  const other = createServer().listen(path);
  await once(other, 'listening');
  await using nbd = await rig([disk()]);
  await assert.rejects(nbd.server.listenUnix(path), { code: 'NBD_SOCKET_IN_USE' });
  assert.ok(existsSync(path));
  other.close();
  rmSync(folder, { recursive: true });
});

test('a file that is no socket, a missing folder and an endless path are refused in words', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-test-'));
  writeFileSync(join(folder, 'file'), 'precious');
  symlinkSync('/nowhere', join(folder, 'link'));
  await using nbd = await rig([disk()]);
  await assert.rejects(nbd.server.listenUnix(join(folder, 'file')), { code: 'NBD_SOCKET_PATH_TAKEN' });
  await assert.rejects(nbd.server.listenUnix(join(folder, 'link')), { code: 'NBD_SOCKET_PATH_TAKEN' });
  await assert.rejects(nbd.server.listenUnix(join(folder, 'none', 's.sock')), { code: 'NBD_LISTEN_FAILED' });
  await assert.rejects(nbd.server.listenUnix(join(folder, 'x'.repeat(200))), { code: 'NBD_LISTEN_FAILED' });
  assert.deepEqual(readdirSync(folder), ['file', 'link']);
  chmodSync(folder, 0o700);
  rmSync(folder, { recursive: true });
});

test('a TCP listener serves the same exports and knows its clients by address', async () => {
  const seen: ClientInfo[] = [];
  await using nbd = await rig([disk({ clientConnected: (client: ClientInfo) => void seen.push(client) })]);
  await nbd.server.listenTcp('127.0.0.1', 0);
  const [unix, tcp] = nbd.server.address();
  assert.deepEqual(unix, { kind: 'unix', path: nbd.path });
  assert.ok(tcp?.kind === 'tcp' && tcp.port > 0);
  const socket = connect(tcp.port, '127.0.0.1');
  await once(socket, 'connect');
  const address = `127.0.0.1:${socket.localPort}`;
  const client = await new ScriptedClient(socket).attach();
  client.request(NBD_CMD.READ, 0, 4096);
  assert.equal((await client.reply()).payload.length, 8 + 4096);
  assert.equal(seen[0]!.address, address);
  await client.hangUp();
  await assert.rejects(nbd.server.listenTcp('127.0.0.1', tcp.port), { code: 'NBD_LISTEN_FAILED' });
});

test('URIs escape what has a meaning in them', () => {
  assert.equal(nbdUri({ kind: 'unix', path: '/run/a b&c.sock' }, 'vm 1/disk?'),
    'nbd+unix:///vm%201%2Fdisk%3F?socket=/run/a%20b%26c.sock');
  assert.equal(nbdUri({ kind: 'tcp', host: '::1', port: 10809 }, 'x'), 'nbd://[::1]:10809/x');
});

test('old clients of the old handshake are served', async () => {
  await using nbd = await rig([disk()]);
  const client = await (await nbd.client()).greet(0);
  client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('disk')));
  assert.equal((await client.take(134)).readBigUInt64BE(0), BigInt(8 * MIB));
  assert.equal(NBD_CLIENT_FLAG.NO_ZEROES, 2);
});

test('without user buffers, bytes arrive the same, also when the receiver pauses', async () => {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  const got: Buffer[] = [];
  let accept = true;
  server.on('connection', (accepted) => {
    const memory = Buffer.alloc(7);
    const socket = readByEvents(accepted, {
      target: () => memory,
      received: (count, from) => {
        got.push(Buffer.from(from.subarray(0, count)));
        accept = !accept;
        if (!accept) setImmediate(() => socket.resume());
        return accept;
      },
    });
    socket.on('end', () => socket.end());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  const sent = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i % 251));
  client.end(sent);
  await once(client.resume(), 'close');
  assert.ok(Buffer.concat(got).equals(sent));
  server.close();
});
