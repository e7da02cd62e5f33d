import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import * as nbd from './protocol.ts';

const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffff_ffff);
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const size = fc.maxSafeNat();
const text = fc.string({ unit: 'grapheme', maxLength: 60 });
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** With the usual prototype, as the decoders make them. */
const record = <T>(shape: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(shape, { noNullPrototype: true }) as fc.Arbitrary<T>;

/** What was encoded is decoded to the same, and everything that is shorter is malformed. */
function roundTrip<T>(
  name: string, values: fc.Arbitrary<T>, encode: (value: T) => Buffer, decode: (from: Buffer) => object,
  { cuts = true } = {},
): void {
  test(`${name} comes back as it was (SEED=${seed})`, () => {
    fc.assert(fc.property(values, (value) => {
      const encoded = encode(value);
      assert.deepEqual(decode(encoded), value);
      for (let length = 0; cuts && length < encoded.length; length += 1) {
        assert.ok(nbd.isMalformed(decode(encoded.subarray(0, length))), `${length} of ${encoded.length} bytes`);
      }
    }), { seed, numRuns: 50 });
  });
}

describe('NBD structures', () => {
  roundTrip('a greeting', record({ flags: u16 }), (value) => nbd.encodeGreeting(value.flags), nbd.decodeGreeting);
  roundTrip('client flags', record({ flags: u32 }), (value) => nbd.encodeClientFlags(value.flags), nbd.decodeClientFlags);
  roundTrip('an export name reply', record({ size, flags: u16 }),
    (value) => nbd.encodeExportNameReply({ ...value, zeroes: false }), nbd.decodeExportNameReply);
  roundTrip('an info request', record({ name: text, infos: fc.array(u16, { maxLength: 5 }) }),
    nbd.encodeInfoRequest, nbd.decodeInfoRequest);
  roundTrip('export info', record({ info: fc.constant('export' as const), size, flags: u16 }), nbd.encodeInfo, nbd.decodeInfo);
  roundTrip('block size info', record({ info: fc.constant('block-size' as const), minimum: u32, preferred: u32, maximum: u32 }),
    nbd.encodeInfo, nbd.decodeInfo);
  roundTrip('name and description info', record({ info: fc.constantFrom('name' as const, 'description' as const), text }),
    nbd.encodeInfo, nbd.decodeInfo, { cuts: false });
  roundTrip('a server entry', record({ name: text, description: text }),
    nbd.encodeServerEntry, nbd.decodeServerEntry, { cuts: false });
  roundTrip('a meta context request', record({ name: text, queries: fc.array(text, { maxLength: 5 }) }),
    nbd.encodeMetaRequest, nbd.decodeMetaRequest);
  roundTrip('a meta context', record({ id: u32, name: text }), nbd.encodeMetaContext, nbd.decodeMetaContext, { cuts: false });
  roundTrip('a request', record({ flags: u16, command: u16, cookie: u64, offset: size, length: u32 }),
    nbd.encodeRequest, nbd.decodeRequest);
  roundTrip('a simple reply', record({ kind: fc.constant('simple' as const), error: u32, cookie: u64 }),
    nbd.encodeSimpleReply, nbd.decodeReplyHeader);
  roundTrip('a chunk header', record({ kind: fc.constant('chunk' as const), flags: u16, type: u16, cookie: u64, length: u32 }),
    nbd.encodeChunkHeader, nbd.decodeReplyHeader);
  roundTrip('a hole', record({ offset: size, length: u32 }), nbd.encodeHole, nbd.decodeHole);
  roundTrip('a block status', record({
    contextId: u32,
    extents: fc.array(record({ length: u32.filter((length) => length > 0), flags: u32 }), { minLength: 1, maxLength: 1 }),
  }), nbd.encodeBlockStatus, nbd.decodeBlockStatus);
  const message = record({ error: u32.filter((error) => error > 0), message: text });
  roundTrip('an error chunk', message.map((value) => ({ ...value, offset: null as number | null })),
    nbd.encodeErrorChunk, (from) => nbd.decodeErrorChunk(nbd.NBD_CHUNK.ERROR, from));
  roundTrip('an error chunk with an offset',
    fc.tuple(message, size).map(([value, offset]) => ({ ...value, offset: offset as number | null })),
    nbd.encodeErrorChunk, (from) => nbd.decodeErrorChunk(nbd.NBD_CHUNK.ERROR_OFFSET, from));

  test('an option and its reply have the sizes and magics of the protocol', () => {
    const option = nbd.encodeOption(nbd.NBD_OPT.GO, Buffer.from('abc'));
    assert.equal(option.toString('hex'), '49484156454f505400000007' + '00000003' + '616263');
    assert.deepEqual(nbd.decodeOptionHeader(option), { option: 7, length: 3 });
    const reply = nbd.encodeOptionError(nbd.NBD_OPT.GO, nbd.NBD_REP.ERR_UNKNOWN, 'no');
    assert.equal(reply.toString('hex'), '0003e889045565a9' + '00000007' + '80000006' + '00000002' + '6e6f');
    assert.deepEqual(nbd.decodeOptionReplyHeader(reply), { option: 7, type: 0x8000_0006, length: 2 });
  });

  const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
  const oldstyle = hex('4e42444d41474943 0000420281861253 0000');
  const longName = Buffer.concat([hex('00001001'), Buffer.alloc(5000)]);
  const malformed: [string, object, RegExp][] = [
    ['an oldstyle greeting', nbd.decodeGreeting(oldstyle), /0x420281861253, expected 0x49484156454f5054/],
    ['a request with another magic', nbd.decodeRequest(Buffer.alloc(28)), /magic 0x0, expected 0x25609513/],
    ['a reply with another magic', nbd.decodeReplyHeader(Buffer.alloc(20)), /magic 0x0/],
    ['an option with another magic', nbd.decodeOptionHeader(Buffer.alloc(16)), /magic 0x0/],
    ['an option reply with another magic', nbd.decodeOptionReplyHeader(Buffer.alloc(20)), /magic 0x0/],
    ['a status extent of length 0', nbd.decodeBlockStatus(hex('00000001 00000000 00000000')), /length 0/],
    ['a status without extents', nbd.decodeBlockStatus(hex('00000001')), /at least 1/],
    ['half a status extent', nbd.decodeBlockStatus(hex('00000001 00000001 00000000 00000001')), /16 bytes/],
    ['an error chunk that is no error', nbd.decodeErrorChunk(nbd.NBD_CHUNK.ERROR, hex('00000000 0000')), /error 0/],
    ['a name that is too long', nbd.decodeInfoRequest(longName), /4097 bytes, at most 4096/],
    ['a name longer than its message', nbd.decodeInfoRequest(hex('00000010 6161')), /expected at least 20/],
    ['bytes behind an info request', nbd.decodeInfoRequest(hex('00000000 0000 ff')), /7 bytes, expected 6/],
    ['bytes behind a meta request', nbd.decodeMetaRequest(hex('00000000 00000000 ff')), /9 bytes, expected 8/],
    ['four billion queries in ten bytes', nbd.decodeMetaRequest(hex('00000000 ffffffff 0000')), /query of 2 bytes/],
  ];
  for (const [name, decoded, reason] of malformed) {
    test(`${name} is malformed`, () => {
      assert.ok(nbd.isMalformed(decoded));
      assert.match(decoded.malformed, reason);
    });
  }

  test('64-bit offsets beyond 2^53 stay beyond every disk', () => {
    for (const offset of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      const request = nbd.encodeRequest({ flags: 0, command: 0, cookie: 1n, offset: 0, length: 1 });
      request.writeBigUInt64BE(offset, 16);
      const decoded = nbd.decodeRequest(request);
      assert.ok(!nbd.isMalformed(decoded) && decoded.offset >= Number.MAX_SAFE_INTEGER, String(offset));
    }
  });

  test('error numbers and names translate, unknown ones as the protocol says', () => {
    assert.equal(nbd.nbdErrnoNumber('ENOSPC'), 28);
    assert.equal(nbd.nbdErrnoNumber('EROFS'), nbd.NBD_ERRNO.EIO);
    assert.equal(nbd.nbdErrnoNumber(undefined), nbd.NBD_ERRNO.EIO);
    assert.equal(nbd.nbdErrnoNumber('toString'), nbd.NBD_ERRNO.EIO);
    assert.equal(nbd.nbdErrnoName(28), 'ENOSPC');
    assert.equal(nbd.nbdErrnoName(77), 'EINVAL');
  });
});
