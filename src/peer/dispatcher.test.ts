import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { UnderstudyError } from '../model/errors.ts';
import { PeerDispatcher } from './dispatcher.ts';
import { decodeFrame, encodeFrame } from './framing.ts';
import type { PeerMessage } from './message.ts';
import { fromWire } from './peer-errors.ts';

const CALLER = { fingerprint: 'A', address: '192.0.2.1:5000' };
const position = z.codec(z.string().regex(/^\d{1,20}$/), z.bigint(), { decode: BigInt, encode: String });
const double: PeerMessage<{ at: bigint }, { at: bigint }> = {
  name: 'double', params: z.object({ at: position }), result: z.object({ at: position }), payloadBytesMax: 4, replyBytesMax: 4,
};

function make(authorised = true): { dispatcher: PeerDispatcher; log: { level: string; fields: object }[] } {
  const log: { level: string; fields: object }[] = [];
  const write = (level: string) => (fields: object) => { log.push({ level, fields }); };
  const entry = { fingerprint: 'A', name: 'primary', storageLocation: '/replicas', trustGroup: 'DEFAULT' };
  const dispatcher = new PeerDispatcher({
    log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
    authenticate: () => (authorised ? entry : null),
  });
  return { dispatcher, log };
}

async function ask(dispatcher: PeerDispatcher, name: string, json: unknown, payload = ''): Promise<unknown> {
  const reply = await dispatcher.dispatch(CALLER, name, Buffer.concat(encodeFrame(json, Buffer.from(payload))));
  const frame = decodeFrame(Buffer.concat(reply), 4);
  assert.ok(!('malformed' in frame));
  return fromWire(frame.json) ?? { json: frame.json, payload: frame.payload.toString() };
}

test('a handler gets decoded parameters, the payload and the name of its caller', async () => {
  const { dispatcher } = make();
  dispatcher.handle(double, async (caller, { at }, payload) => {
    assert.equal(caller.name, 'primary');
    return { result: { at: at * 2n }, payload: payload.reverse() };
  });
  assert.deepEqual(await ask(dispatcher, 'double', { at: '9007199254740993' }, 'abc'),
    { json: { result: { at: '18014398509481986' } }, payload: 'cba' });
});

test('parameters that do not fit their schema, and payloads beyond the bound, never reach the handler', async () => {
  const { dispatcher } = make();
  let called = 0;
  dispatcher.handle(double, async (_caller, params) => { called++; return { result: params }; });
  for (const json of [{}, { at: 5 }, { at: '-1' }, [], null, 'x', { at: { toString: '5' } }]) {
    const refusal = await ask(dispatcher, 'double', json);
    assert.ok(refusal instanceof UnderstudyError && refusal.code === 'PEER_MESSAGE_INVALID', JSON.stringify(json));
  }
  const tooLong = await ask(dispatcher, 'double', { at: '1' }, '12345');
  assert.match(String(tooLong), /payload of 5 bytes, at most 4/);
  assert.equal(called, 0);
});

test('a caller without an entry is refused before its bytes are looked at', async () => {
  const { dispatcher } = make(false);
  dispatcher.handle(double, async (_caller, params) => ({ result: params }));
  const known = await dispatcher.dispatch(CALLER, 'double', Buffer.from('junk'));
  const unknown = await dispatcher.dispatch(CALLER, 'no-such-message', Buffer.alloc(0));
  assert.deepEqual(Buffer.concat(known), Buffer.concat(unknown));
  assert.match(Buffer.concat(known).toString(), /PEER_NOT_AUTHORISED/);
});

test('an unknown message is refused, and a name that is none is not repeated', async () => {
  const { dispatcher } = make();
  assert.match(String(await ask(dispatcher, 'no-such-message', {})), /does not know the message no-such-message/);
  assert.doesNotMatch(String(await ask(dispatcher, '\u001b[31mred', {})), /red/);
});

test('a refusal by the handler arrives with kind, code, message and remedy', async () => {
  const { dispatcher } = make();
  const refusal = new UnderstudyError('state', 'LOG_OUT_OF_ORDER', 'log 7 came, 5 was expected', 'Resynchronize.');
  dispatcher.handle(double, async () => { throw refusal; });
  assert.deepEqual((await ask(dispatcher, 'double', { at: '1' }) as UnderstudyError).toJSON(), refusal.toJSON());
});

test('an unexpected failure tells the peer nothing of its cause, and the log everything', async () => {
  const { dispatcher, log } = make();
  const secret = new Error('cannot open /srv/secret-customer.vhdx');
  dispatcher.handle(double, async () => { throw secret; });
  const answer = await ask(dispatcher, 'double', { at: '1' });
  assert.ok(answer instanceof UnderstudyError);
  assert.equal(answer.code, 'PEER_INTERNAL');
  assert.doesNotMatch(JSON.stringify(answer), /secret/);
  const line = log.find(({ level }) => level === 'error');
  assert.equal((line?.fields as { error?: unknown }).error, secret);
});

test('a reply beyond its own declared bounds is a failure of this host, not sent', async () => {
  const { dispatcher } = make();
  dispatcher.handle(double, async (_caller, params) => ({ result: params, payload: Buffer.alloc(5) }));
  assert.equal((await ask(dispatcher, 'double', { at: '1' }) as UnderstudyError).code, 'PEER_INTERNAL');
});

test('a name has one handler, and only names of messages may have one', () => {
  const { dispatcher } = make();
  dispatcher.handle(double, async (_caller, params) => ({ result: params }));
  assert.throws(() => dispatcher.handle(double, async (_caller, params) => ({ result: params })), /handler already/);
  assert.throws(() => dispatcher.handleStream({ name: 'double', params: z.object({}) }, async () => {}), /handler already/);
  for (const name of ['', 'Log', 'log/send', '-a', 'a-', 'a..b', 'a'.repeat(65)]) {
    assert.throws(() => dispatcher.handleStream({ name, params: z.object({}) }, async () => {}), /not a message name/, name);
  }
  const huge = { ...double, name: 'huge', payloadBytesMax: 16 * 1024 * 1024 + 1 };
  assert.throws(() => dispatcher.handle(huge, async (_caller, params) => ({ result: params })), RangeError);
});

test('control characters in a refusal do not reach a terminal', () => {
  const wire = { error: { kind: 'io', code: 'X', message: 'a\u001b[2Jb\r\nc\u202e', remedy: 'd\u0000' } };
  const { message, remedy } = fromWire(wire)!;
  assert.deepEqual([message, remedy], ['a [2Jb c ', 'd ']);
});

test('what is no refusal is not taken for one', () => {
  for (const json of [null, {}, { error: 'x' }, { error: { kind: 'fatal', code: 'X', message: '', remedy: '' } },
    { error: { kind: 'io', code: 'lower case', message: '', remedy: '' } },
    { error: { kind: 'io', code: 'X', message: 'm'.repeat(2001), remedy: '' } }]) {
    assert.equal(fromWire(json), null, JSON.stringify(json));
  }
});
