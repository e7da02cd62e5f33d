/** Time, memory and connections: every bound is reached once, and what follows still works. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { z } from 'zod';
import { decodeFrame } from '../../src/peer/framing.ts';
import type { PeerMessage } from '../../src/peer/message.ts';
import { fromWire } from '../../src/peer/peer-errors.ts';
import { PeerServer } from '../../src/peer/server.ts';
import { clockWithSleep, readAll, realClock, startRig } from './rig.ts';
import type { Rig } from './rig.ts';

const MIB = 1024 * 1024;
const send: PeerMessage<{ n: number }, { n: number }> = {
  name: 'send', params: z.object({ n: z.int() }), result: z.object({ n: z.int() }), payloadBytesMax: MIB, replyBytesMax: 16 * MIB,
};
const FRAME = '\0\0\0\x07\0\0\0\0{"n":1}';
const head = (lines: string) => `POST /peer/v1/send HTTP/1.1\r\nHost: x\r\n${lines}\r\n\r\n`;

function handleSend(rig: Rig): { calls: number } {
  const seen = { calls: 0 };
  rig.dispatcher.handle(send, async (_caller, params) => { seen.calls++; return { result: params }; });
  return seen;
}

/** Sends raw bytes over an authorised connection and reads until the server hangs up. */
async function rawAnswer(rig: Rig, bytes: string | Buffer, end: 'end' | 'stay' = 'end'): Promise<string> {
  const socket = await rig.raw();
  if (end === 'end') socket.end(bytes);
  else socket.write(bytes);
  return (await readAll(socket)).toString('latin1');
}

/** Status and code of an HTTP answer that carries a refusal. */
function refusalOf(answer: string): [number, string | undefined] {
  const [first = '', body = ''] = answer.split('\r\n\r\n');
  const frame = decodeFrame(Buffer.from(body, 'latin1'), 0);
  return [Number(first.split(' ')[1]), 'malformed' in frame ? undefined : fromWire(frame.json)?.code];
}

test('bodies that are too large, of unknown size or no frame are refused without a call', async () => {
  await using rig = await startRig();
  const seen = handleSend(rig);
  const tooLarge = 8 + 256 * 1024 + MIB + 1;
  const cases: [string, number, string][] = [
    [head(`Content-Length: ${tooLarge}`), 413, 'PEER_MESSAGE_INVALID'],
    [head('Content-Length: 99999999999999999999'), 400, 'PEER_PROTOCOL'],
    [head('Transfer-Encoding: chunked') + '0\r\n\r\n', 411, 'PEER_MESSAGE_INVALID'],
    [head('Content-Length: 15\r\nTransfer-Encoding: chunked') + '0\r\n\r\n', 400, 'PEER_PROTOCOL'],
    [head('Content-Length: 15\r\nContent-Length: 14') + FRAME, 400, 'PEER_PROTOCOL'],
    [head('Content-Length: -1'), 400, 'PEER_PROTOCOL'],
    [head('Content-Length: 0'), 200, 'PEER_MESSAGE_INVALID'],
    [head('Content-Length: 14') + FRAME.slice(0, -1), 200, 'PEER_MESSAGE_INVALID'],
    [head(`X-Large: ${'x'.repeat(9000)}\r\nContent-Length: 15`) + FRAME, 431, 'PEER_PROTOCOL'],
  ];
  for (const [bytes, status, code] of cases) {
    assert.deepEqual(refusalOf(await rawAnswer(rig, bytes)), [status, code], bytes.slice(0, 100));
  }
  assert.equal(seen.calls, 0);
});

test('a refusal is read even by a caller that still sends a large body', async () => {
  await using rig = await startRig();
  handleSend(rig);
  const greedy = { ...send, payloadBytesMax: 16 * MIB };
  await assert.rejects(rig.link().call(greedy, { n: 1 }, Buffer.alloc(16 * MIB)),
    { code: 'PEER_MESSAGE_INVALID', message: /at most 1310728 are allowed/ });
  await assert.rejects(rig.link().call({ ...greedy, name: 'unknown' }, { n: 1 }, Buffer.alloc(16 * MIB)),
    { code: 'PEER_MESSAGE_UNKNOWN' });
});

test('what follows a body is not taken for part of it', async () => {
  await using rig = await startRig();
  const seen = handleSend(rig);
  const answer = await rawAnswer(rig, `${head('Content-Length: 15')}${FRAME}more`);
  assert.match(answer, /^HTTP\/1\.1 (200|400) /);
  assert.ok(seen.calls <= 1);
});

test('a body that ends early is never dispatched', async () => {
  await using rig = await startRig();
  const seen = handleSend(rig);
  assert.doesNotMatch(await rawAnswer(rig, head('Content-Length: 16') + FRAME), / 200 /);
  assert.equal(seen.calls, 0);
});

test('a second request before the first is answered is refused', async () => {
  await using rig = await startRig();
  const answer = Promise.withResolvers<void>();
  let calls = 0;
  rig.dispatcher.handle(send, async (_caller, params) => { calls++; await answer.promise; return { result: params }; });
  const one = head('Content-Length: 15') + FRAME;
  assert.deepEqual(refusalOf(await rawAnswer(rig, one + one + one)), [400, 'PEER_PROTOCOL']);
  assert.equal(calls, 1);
  answer.resolve();
});

test('a request whose head or body dribbles is cut, and the server goes on', async () => {
  await using rig = await startRig({ headersMs: 1000, idleMs: 1000 });
  const seen = handleSend(rig);
  const slowHead = await rawAnswer(rig, 'POST /peer/v1/send HTTP/1.1\r\nHo', 'stay');
  assert.deepEqual(refusalOf(slowHead), [408, 'PEER_PROTOCOL']);
  assert.equal(await rawAnswer(rig, head('Content-Length: 15') + FRAME.slice(0, 5), 'stay'), '');
  assert.equal(seen.calls, 0);
  assert.deepEqual((await rig.link().call(send, { n: 3 })).result, { n: 3 });
});

test('who does not take a reply is cut, and its memory is free again', async () => {
  await using rig = await startRig({ idleMs: 1000, bytesPerPeer: 17 * MIB });
  rig.dispatcher.handle(send, async (_caller, params) => ({ result: params, payload: Buffer.alloc(16 * MIB) }));
  const socket = await rig.raw();
  socket.pause();
  socket.write(head('Content-Length: 15') + FRAME);
  // Waits for the memory that the reply above holds.
  const { payload } = await rig.link().call(send, { n: 1 });
  assert.equal(payload.length, 16 * MIB);
  socket.destroy();
});

test('who takes a reply slowly is not cut as long as it moves', async () => {
  await using rig = await startRig({ idleMs: 1000 });
  rig.dispatcher.handle(send, async (_caller, params) => ({ result: params, payload: Buffer.alloc(8 * MIB) }));
  const proxy = createServer((near) => {
    const far = connect(rig.port, '127.0.0.1').on('error', () => {});
    near.on('error', () => {}).pipe(far);
    far.on('data', (part) => {
      near.write(part);
      far.pause();
      // 64 KiB each 20 ms: 2.6 s in all.
      setTimeout(() => far.resume(), 20);
    });
    far.on('close', () => near.destroy());
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const { port } = proxy.address() as { port: number };
  const { payload } = await rig.link({ port }).call(send, { n: 1 });
  assert.equal(payload.length, 8 * MIB);
  proxy.close();
});

test('bodies of one peer wait for memory instead of taking more', async () => {
  await using rig = await startRig({ bytesPerPeer: 34 * MIB });
  let [running, most] = [0, 0];
  rig.dispatcher.handle(send, async (_caller, params, payload) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    // A copy: a reply must not share the memory of the request, which the next body may be read into.
    return { result: params, payload: Buffer.from(payload) };
  });
  const link = rig.link();
  const replies = await Promise.all(Array.from({ length: 8 }, (_, n) => link.call(send, { n }, Buffer.alloc(MIB, n))));
  replies.forEach(({ payload }, n) => assert.ok(payload.equals(Buffer.alloc(MIB, n))));
  // A call stands for 1 MiB asked, 16 MiB declared for the reply and its JSON: one fits, two do not.
  assert.equal(most, 1);
});

test('connections of one peer are bounded, and one that ends makes room', async () => {
  await using rig = await startRig({ connectionsPerPeer: 2 });
  handleSend(rig);
  const [first] = [await rig.raw(), await rig.raw()];
  await assert.rejects(rig.link().call(send, { n: 1 }), { kind: 'peer', code: 'PEER_BUSY', message: /2 connections/ });
  first!.end();
  await readAll(first!);
  assert.deepEqual((await rig.link().call(send, { n: 2 })).result, { n: 2 });
});

test('strangers that hold connections of an address are bounded and do not lock out peers for ever', async () => {
  await using rig = await startRig({ strangersPerAddress: 2, handshakeMs: 1000 });
  handleSend(rig);
  const strangers = [1, 2, 3].map(() => connect(rig.port, '127.0.0.1').on('error', () => {}));
  await readAll(strangers[2]!);
  assert.match(rig.refusals[0]?.reason ?? '', /2 connections without a known certificate/);
  await Promise.all(strangers.map(readAll));
  const link = rig.link();
  const replies = await Promise.all([1, 2, 3, 4].map((n) => link.call(send, { n }).then(() => 'answered', () => 'refused')));
  assert.ok(replies.includes('answered'));
  assert.deepEqual((await link.call(send, { n: 5 })).result, { n: 5 });
});

test('calls beyond the link\'s own bound take turns', async () => {
  await using rig = await startRig();
  const go = Promise.withResolvers<void>();
  const both = Promise.withResolvers<void>();
  let running = 0;
  rig.dispatcher.handle(send, async (_caller, params) => {
    if (++running === 2) both.resolve();
    await go.promise;
    return { result: params };
  });
  const barrier = { ...send, name: 'barrier' };
  rig.dispatcher.handle(barrier, async (_caller, params) => ({ result: params }));
  const link = rig.link({ limits: { calls: 2 } });
  const calls = Array.from({ length: 20 }, (_, n) => link.call(send, { n }));
  await both.promise;
  // Other calls come and go meanwhile: a third one of this link would have come too.
  for (let n = 0; n < 3; n++) await rig.link().call(barrier, { n });
  assert.equal(running, 2);
  go.resolve();
  assert.deepEqual((await Promise.all(calls)).map(({ result }) => result.n), Array.from({ length: 20 }, (_, n) => n));
});

test('a link that is cut during a call fails that call, and the next one connects anew', async () => {
  await using rig = await startRig();
  let cut = true;
  let told: unknown;
  rig.dispatcher.handle(send, async (_caller, params, _payload, signal) => {
    if (cut) {
      rig.server.disconnect(rig.primary.fingerprint);
      await once(signal, 'abort');
      told = signal.reason;
    }
    return { result: params };
  });
  const link = rig.link();
  await assert.rejects(link.call(send, { n: 1 }), { kind: 'peer', code: 'PEER_LINK_LOST' });
  assert.match(String(told), /caller is gone/);
  cut = false;
  assert.deepEqual((await link.call(send, { n: 2 })).result, { n: 2 });
});

test('a call that is not answered in time, or aborted, ends on both sides; the link goes on', async () => {
  await using rig = await startRig();
  let stuck = true;
  let aborted = 0;
  let arrived = Promise.withResolvers<void>();
  rig.dispatcher.handle(send, async (_caller, params, _payload, signal) => {
    arrived.resolve();
    if (stuck) {
      await once(signal, 'abort');
      aborted++;
    }
    return { result: params };
  });
  const clock = clockWithSleep(1234);
  const link = rig.link({ clock });
  const late = link.call(send, { n: 1 }, undefined, { timeoutMs: 1234 });
  await arrived.promise;
  clock.end();
  await assert.rejects(late, { kind: 'peer', code: 'PEER_TIMEOUT', message: /send within 1\.234 s/ });
  arrived = Promise.withResolvers();
  const abort = new AbortController();
  const reason = new Error('cancelled by the user');
  const call = link.call(send, { n: 1 }, undefined, { signal: abort.signal });
  await arrived.promise;
  abort.abort(reason);
  await assert.rejects(call, reason);
  stuck = false;
  assert.deepEqual((await link.call(send, { n: 2 })).result, { n: 2 });
  assert.equal(aborted, 2);
});

test('a server or a link that closes fails what is in flight', async () => {
  await using rig = await startRig();
  let arrived = Promise.withResolvers<void>();
  rig.dispatcher.handle(send, () => { arrived.resolve(); return new Promise(() => {}); });
  const [closing, staying] = [rig.link(), rig.link()];
  const first = closing.call(send, { n: 1 });
  await arrived.promise;
  await closing.close();
  await assert.rejects(first, { kind: 'peer', code: 'PEER_LINK_CLOSED' });
  arrived = Promise.withResolvers();
  const second = staying.call(send, { n: 1 });
  await arrived.promise;
  await rig.server.close();
  await assert.rejects(second, { kind: 'peer', code: 'PEER_LINK_LOST' });
  await assert.rejects(staying.call(send, { n: 1 }), { kind: 'peer', code: 'PEER_REFUSED' });
});

test('a port that is taken is refused with its number', async () => {
  await using rig = await startRig();
  const parts = { identity: rig.replica, dispatcher: rig.dispatcher, log: rig.log, clock: realClock };
  await assert.rejects(new PeerServer(parts).listen('127.0.0.1', rig.port),
    { kind: 'io', code: 'PEER_PORT_UNUSABLE', message: new RegExp(`127\\.0\\.0\\.1:${rig.port}.*EADDRINUSE`) });
});
