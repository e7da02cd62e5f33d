import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { clientHandshake, HandshakeError, type NegotiatedExport } from './client-handshake.ts';
import {
  encodeExportNameReply, encodeGreeting, encodeInfo, encodeMetaContext, encodeOptionError, encodeOptionReply,
  NBD_DEFAULT_MAX_PAYLOAD, NBD_FLAG, NBD_OPT, NBD_REP,
} from './protocol.ts';

/** Plays a server that says all of this, whatever it hears. Returns what was agreed and what the client said. */
function play(...said: Buffer[]): { found: NegotiatedExport; heard: Buffer } {
  let bytes = Buffer.concat(said);
  const heard: Buffer[] = [];
  const steps = clientHandshake('vm-disk');
  for (let step = steps.next(); ; ) {
    if (step.done === true) return { found: step.value, heard: Buffer.concat(heard) };
    heard.push(step.value.send);
    assert.ok(bytes.length >= step.value.need, 'the client waits for more than the server says');
    const taken = bytes.subarray(0, step.value.need);
    bytes = bytes.subarray(step.value.need);
    step = steps.next(taken);
  }
}

const GREETING = encodeGreeting(3);
const FLAGS = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH;
const ack = (option: number): Buffer => encodeOptionReply(option, NBD_REP.ACK);
const unsupported = (option: number): Buffer => encodeOptionError(option, NBD_REP.ERR_UNSUP, 'never heard of it');
const contextOf = (id: number, name: string): Buffer =>
  encodeOptionReply(NBD_OPT.SET_META_CONTEXT, NBD_REP.META_CONTEXT, encodeMetaContext({ id, name }));
const size = (bytes: number): Buffer =>
  encodeOptionReply(NBD_OPT.GO, NBD_REP.INFO, encodeInfo({ info: 'export', size: bytes, flags: FLAGS }));
const blocks = (minimum: number, maximum: number): Buffer =>
  encodeOptionReply(NBD_OPT.GO, NBD_REP.INFO, encodeInfo({ info: 'block-size', minimum, preferred: 4096, maximum }));
const STRUCTURED = [GREETING, ack(NBD_OPT.STRUCTURED_REPLY), contextOf(7, 'base:allocation'), ack(NBD_OPT.SET_META_CONTEXT)];
const PLAIN = [GREETING, unsupported(NBD_OPT.STRUCTURED_REPLY)];

describe('NBD handshake', () => {
  test('structured replies, block status and block sizes are agreed on', () => {
    const { found, heard } = play(...STRUCTURED, blocks(512, 1 << 20), size(1 << 30), ack(NBD_OPT.GO));
    assert.deepEqual(found, {
      size: 1 << 30, flags: FLAGS, structuredReplies: true, allocationContext: 7,
      minimumBlockSize: 512, preferredBlockSize: 4096, maximumBlockSize: 1 << 20,
    });
    assert.equal(heard.readUInt32BE(0), 3, 'client flags first');
    assert.ok(heard.includes('base:allocation'));
    assert.ok(heard.includes('vm-disk'));
  });

  test('a server without structured replies and block sizes gets by with the defaults', () => {
    const { found } = play(...PLAIN, size(1 << 30), ack(NBD_OPT.GO));
    assert.deepEqual(found, {
      size: 1 << 30, flags: FLAGS, structuredReplies: false, allocationContext: null,
      minimumBlockSize: 1, preferredBlockSize: 4096, maximumBlockSize: NBD_DEFAULT_MAX_PAYLOAD,
    });
  });

  test('a server without GO is asked by EXPORT_NAME, with and without the 124 zeroes', () => {
    for (const [flags, zeroes] of [[3, false], [1, true]] as const) {
      const reply = encodeExportNameReply({ size: 4096, flags: FLAGS, zeroes });
      const { found } = play(encodeGreeting(flags), unsupported(NBD_OPT.STRUCTURED_REPLY), unsupported(NBD_OPT.GO), reply);
      assert.equal(found.size, 4096);
      assert.equal(found.flags, FLAGS);
    }
  });

  test('a server that has other contexts or none leaves block status out', () => {
    const other = contextOf(1, 'x:y');
    const go = [size(4096), ack(NBD_OPT.GO)];
    const structured = [GREETING, ack(NBD_OPT.STRUCTURED_REPLY)];
    assert.equal(play(...structured, ack(NBD_OPT.SET_META_CONTEXT), ...go).found.allocationContext, null);
    assert.equal(play(...structured, other, ack(NBD_OPT.SET_META_CONTEXT), ...go).found.allocationContext, null);
    assert.equal(play(...structured, unsupported(NBD_OPT.SET_META_CONTEXT), ...go).found.allocationContext, null);
  });

  test('a maximum block size beyond our bound is cut to whole blocks within it', () => {
    const maximum = (minimum: number, stated: number): number =>
      play(...PLAIN, blocks(minimum, stated), size(4096), ack(NBD_OPT.GO)).found.maximumBlockSize;
    assert.equal(maximum(1, 0xffff_ffff), NBD_DEFAULT_MAX_PAYLOAD);
    assert.equal(maximum(4096, 10_000), 8192);
  });

  const GO = NBD_OPT.GO;
  const huge = Buffer.alloc(20, ack(GO));
  huge.writeUInt32BE(0xffff_ffff, 16);
  const error = (type: number, text: string): Buffer => encodeOptionError(GO, type, text);
  const refusals: [name: string, said: Buffer[], code: HandshakeError['code'], message: RegExp][] = [
    ['another protocol', [Buffer.from('SSH-2.0-OpenSSH_9.6\r\n')], 'malformed', /magic/],
    ['a server older than fixed newstyle', [encodeGreeting(0)], 'too-old', /newstyle/],
    ['an export that does not exist', [...PLAIN, error(NBD_REP.ERR_UNKNOWN, 'nothing')], 'unknown-export', /vm-disk.*nothing/],
    ['a server that wants TLS', [...PLAIN, error(NBD_REP.ERR_TLS_REQD, '')], 'tls-required', /TLS/],
    ['a policy', [...PLAIN, error(NBD_REP.ERR_POLICY, 'not you')], 'refused', /not you/],
    ['an answer to another question', [...PLAIN, ack(NBD_OPT.LIST)], 'malformed', /not asked/],
    ['an answer without a size', [...PLAIN, ack(GO)], 'malformed', /no size/],
    ['an endless answer', [...PLAIN, ...Array.from({ length: 65 }, () => size(4096))], 'malformed', /more than 64/],
    ['four gigabytes of answer', [...PLAIN, huge], 'malformed', /4294967295 bytes/],
    ['a minimum block size of 0', [...PLAIN, blocks(0, 4096), size(4096), ack(GO)], 'malformed', /minimum block size of 0/],
    ['a minimum block size of 3', [...PLAIN, blocks(3, 4096), size(4096), ack(GO)], 'malformed', /minimum block size of 3/],
    ['a maximum below the minimum', [...PLAIN, blocks(4096, 512), size(4096), ack(GO)], 'malformed', /maximum/],
    ['a size of half a block', [...PLAIN, blocks(4096, 8192), size(6144), ack(GO)], 'malformed', /6144/],
    ['a size beyond 2^53', [...PLAIN, size(2 ** 60), ack(GO)], 'malformed', /export of/],
    ['an info reply that is cut off', [...PLAIN, encodeOptionReply(GO, NBD_REP.INFO, Buffer.alloc(5))], 'malformed', /.*/],
  ];
  for (const [name, said, code, message] of refusals) {
    test(`${name} is refused with a reason`, () => {
      const info = name.includes('cut off') ? [ack(GO)] : [];
      assert.throws(() => play(...said, ...info), (error) => {
        assert.ok(error instanceof HandshakeError, String(error));
        assert.equal(error.code, code);
        assert.match(error.message, message);
        return true;
      });
    });
  }
});
