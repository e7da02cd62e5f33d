import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { test } from 'node:test';
import { z } from 'zod';
import { UnderstudyError } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import { PeerDispatcher } from './dispatcher.ts';
import { checkClockSkew, greet, handleHello } from './hello.ts';
import { decodeReply, memoryPeerLink } from './link.ts';
import type { PeerLink } from './link.ts';
import { linkError } from './link-errors.ts';
import type { PeerMessage } from './message.ts';

const CALLER = { fingerprint: 'A', address: '192.0.2.1:5000' };
const echo: PeerMessage<{ n: number }, { n: number }> = {
  name: 'echo', params: z.object({ n: z.int() }), result: z.object({ n: z.int() }), payloadBytesMax: 4, replyBytesMax: 4,
};
const compare = { name: 'compare', params: z.object({ disk: z.string() }) };
const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

function make(): { dispatcher: PeerDispatcher; link: PeerLink } {
  const entry = { fingerprint: 'A', name: null, storageLocation: '/replicas', trustGroup: 'DEFAULT' };
  const dispatcher = new PeerDispatcher({ log: silent, authenticate: () => entry });
  return { dispatcher, link: memoryPeerLink(dispatcher, CALLER) };
}

function clockAt(nowMs: number): Clock {
  return { now: () => nowMs, monotonic: () => 0, sleep: async () => {} };
}

test('a call within one process carries result and payload', async () => {
  const { dispatcher, link } = make();
  dispatcher.handle(echo, async (_caller, { n }, payload) => ({ result: { n: n + 1 }, payload }));
  const { result, payload } = await link.call(echo, { n: 1 }, Buffer.from('abc'));
  assert.deepEqual([result, payload.toString()], [{ n: 2 }, 'abc']);
});

test('a call that its own message does not allow is a bug and is not sent', async () => {
  const { link } = make();
  await assert.rejects(link.call(echo, { n: 1.5 }), TypeError);
  await assert.rejects(link.call(echo, { n: 1 }, Buffer.alloc(5)), RangeError);
});

test('an aborted call rejects with the reason, and the handler is told', async () => {
  const { dispatcher, link } = make();
  let aborted: unknown;
  dispatcher.handle(echo, (_caller, params, _payload, signal) => new Promise((resolve) => {
    signal.addEventListener('abort', () => { aborted = signal.reason; resolve({ result: params }); });
  }));
  const abort = new AbortController();
  const reason = new Error('not needed any more');
  const call = link.call(echo, { n: 1 }, undefined, { signal: abort.signal });
  abort.abort(reason);
  await assert.rejects(call, reason);
  assert.equal(aborted, reason);
});

test('a closed link fails what is in flight and what comes after', async () => {
  const { dispatcher, link } = make();
  dispatcher.handle(echo, () => new Promise(() => {}));
  const call = link.call(echo, { n: 1 });
  await link.close();
  await assert.rejects(call, { kind: 'peer', code: 'PEER_LINK_CLOSED' });
  await assert.rejects(link.call(echo, { n: 1 }), { code: 'PEER_LINK_CLOSED' });
});

test('a stream within one process can end one way and go on the other', async () => {
  const { dispatcher, link } = make();
  dispatcher.handleStream(compare, async (_caller, { disk }, stream) => {
    const asked = await text(stream);
    stream.end(`${disk}: ${asked}`);
  });
  const stream = await link.stream(compare, { disk: 'root' });
  stream.end('digests');
  assert.equal(await text(stream), 'root: digests');
});

test('a stream that one end cuts is cut at the other', async () => {
  const { dispatcher, link } = make();
  const far = Promise.withResolvers<void>();
  dispatcher.handleStream(compare, async (_caller, _params, stream) => {
    await finished(stream.resume()).then(far.resolve, far.reject);
  });
  const abort = new AbortController();
  const near = finished(await link.stream(compare, { disk: 'root' }, { signal: abort.signal }));
  abort.abort(new Error('cancelled'));
  await assert.rejects(near, /cancelled/);
  await assert.rejects(far.promise, { code: 'ECONNRESET' });
});

test('a handler of a stream that is done ends it', async () => {
  const { dispatcher, link } = make();
  dispatcher.handleStream(compare, async () => {});
  const stream = await link.stream(compare, { disk: 'root' });
  stream.write('nobody reads this');
  assert.equal(await text(stream), '');
  stream.end();
  await finished(stream);
});

test('a handler of a stream that fails cuts it for the caller', async () => {
  const { dispatcher, link } = make();
  dispatcher.handleStream(compare, async () => { throw new UnderstudyError('io', 'X', 'x', 'y'); });
  await assert.rejects(text(await link.stream(compare, { disk: 'root' })), { code: 'ECONNRESET' });
});

test('a stream that is not admitted is refused with the reason', async () => {
  const { dispatcher, link } = make();
  const admit = async () => { throw new UnderstudyError('state', 'RESYNC_RUNNING', 'one runs', 'Wait.'); };
  dispatcher.handleStream(compare, async () => { assert.fail('it was not admitted'); }, admit);
  await assert.rejects(link.stream(compare, { disk: 'root' }), { kind: 'state', code: 'RESYNC_RUNNING', remedy: 'Wait.' });
});

test('a reply that is no reply to the message is refused', () => {
  const reply = (json: string, payload = '') => () => {
    const header = Buffer.alloc(8);
    header.writeUInt32BE(json.length, 0);
    header.writeUInt32BE(payload.length, 4);
    return decodeReply(echo, Buffer.concat([header, Buffer.from(json + payload)]));
  };
  const bad = ['{}', 'null', '{"result":{"n":"1"}}', '{"error":1}'].map((json) => reply(json));
  for (const wrong of [...bad, reply('{"result":{"n":1}}', '12345')]) {
    assert.throws(wrong, { kind: 'peer', code: 'PEER_REPLY_INVALID' });
  }
  assert.deepEqual(reply('{"result":{"n":1}}')().result, { n: 1 });
});

test('hosts that greet each other learn name, boot and the difference of their clocks', async () => {
  const { dispatcher, link } = make();
  handleHello(dispatcher, { hostName: 'replica', bootId: 'boot-2' }, clockAt(1_000_000 + 299_999));
  assert.deepEqual(await greet(link, { hostName: 'primary', bootId: 'boot-1' }, clockAt(1_000_000)),
    { hostName: 'replica', bootId: 'boot-2', skewMs: 299_999 });
});

test('clocks more than five minutes apart are refused with both times', async () => {
  const { dispatcher, link } = make();
  handleHello(dispatcher, { hostName: 'replica', bootId: 'boot-2' }, clockAt(Date.UTC(2030, 0, 1, 0, 6)));
  await assert.rejects(greet(link, { hostName: 'primary', bootId: 'boot-1' }, clockAt(Date.UTC(2030, 0, 1))),
    { kind: 'peer', code: 'CLOCK_SKEW', message: /2030-01-01T00:00:00\.000Z.*2030-01-01T00:06:00\.000Z.*360 s apart/ });
  checkClockSkew(0, 300_000, 'x');
  assert.throws(() => checkClockSkew(0, -300_001, 'x'), { code: 'CLOCK_SKEW' });
});

test('a host of another protocol is refused by either side', async () => {
  const { dispatcher, link } = make();
  handleHello(dispatcher, { hostName: 'replica', bootId: 'boot-2' }, clockAt(0));
  const params = { protocol: 2, hostName: 'primary', bootId: 'boot-1', clockMs: 0 };
  const { helloMessage } = await import('./hello.ts');
  await assert.rejects(link.call(helloMessage, params), { code: 'PEER_PROTOCOL_MISMATCH', message: /protocol 2, this host 1/ });
});

test('what Node says of a broken connection becomes a code that tells what to do', () => {
  const said = (code: string, stage: 'connect' | 'handshake' | 'open') =>
    linkError(Object.assign(new Error(code), { code }), 'replica:8443', stage);
  const expected = [
    ['ECONNREFUSED', 'connect', 'PEER_REFUSED'], ['EHOSTUNREACH', 'connect', 'PEER_UNREACHABLE'],
    ['ENOTFOUND', 'connect', 'PEER_UNREACHABLE'], ['ETIMEDOUT', 'connect', 'PEER_UNREACHABLE'],
    ['ECONNRESET', 'handshake', 'PEER_TLS_FAILED'],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'handshake', 'PEER_TLS_FAILED'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'open', 'PEER_TLS_FAILED'],
    ['HPE_INVALID_CONSTANT', 'open', 'PEER_REPLY_INVALID'],
    ['ECONNRESET', 'open', 'PEER_LINK_LOST'], ['EPIPE', 'open', 'PEER_LINK_LOST'],
  ] as const;
  for (const [code, stage, wanted] of expected) {
    const error = said(code, stage);
    assert.deepEqual([error.kind, error.code], ['peer', wanted], code);
    assert.match(error.message, /replica:8443/);
    assert.notEqual(error.remedy, '');
    assert.equal((error.cause as { code?: string }).code, code);
  }
});
