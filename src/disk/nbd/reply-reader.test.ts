import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import {
  encodeBlockStatus, encodeChunkHeader, encodeErrorChunk, encodeHole, encodeSimpleReply, NBD_CHUNK, NBD_CMD, writeU64,
} from './protocol.ts';
import { ReplyReader, type PendingRequest } from './reply-reader.ts';

const CONTEXT = 5;
type Ending = { request: PendingRequest; error: NodeJS.ErrnoException | null };

function chunk(type: number, payload: Buffer, options: { cookie?: bigint; done?: boolean } = {}): Buffer {
  const { cookie = 1n, done = true } = options;
  return Buffer.concat([encodeChunkHeader({ flags: done ? 1 : 0, type, cookie, length: payload.length }), payload]);
}

function data(offset: number, text: string, options?: { cookie?: bigint; done?: boolean }): Buffer {
  const payload = Buffer.alloc(8 + text.length);
  writeU64(payload, offset, 0);
  payload.write(text, 8);
  return chunk(NBD_CHUNK.OFFSET_DATA, payload, options);
}

const hole = (offset: number, length: number, options?: { done?: boolean }): Buffer =>
  chunk(NBD_CHUNK.OFFSET_HOLE, encodeHole({ offset, length }), options);
const nothing = (): Buffer => chunk(NBD_CHUNK.NONE, Buffer.alloc(0));
const status = (contextId: number, options?: { done?: boolean }): Buffer =>
  chunk(NBD_CHUNK.BLOCK_STATUS, encodeBlockStatus({ contextId, extents: [{ length: 512, flags: 3 }] }), options);
const failed = (error: number, message: string, options?: { done?: boolean }): Buffer =>
  chunk(NBD_CHUNK.ERROR, encodeErrorChunk({ error, message, offset: null }), options);
const simple = (error: number, cookie = 1n): Buffer => encodeSimpleReply({ error, cookie });

describe('NBD replies', () => {
  let requests: Map<bigint, PendingRequest>;
  let endings: Ending[];
  let reader: ReplyReader;
  beforeEach(() => {
    requests = new Map();
    endings = [];
    reader = new ReplyReader(requests, CONTEXT);
  });

  /** A request of 10 bytes at 100. */
  function ask(command: number, cookie = 1n): Buffer | null {
    const into = command === NBD_CMD.READ ? Buffer.alloc(10, '?') : null;
    const request: PendingRequest = {
      command, offset: 100, length: 10, into, startedAt: 0, filled: [], extents: [], error: null,
      done: (error) => endings.push({ request, error }),
    };
    requests.set(cookie, request);
    return into;
  }

  test('replies are understood however the bytes are cut', () => {
    const into = [ask(NBD_CMD.READ, 1n), ask(NBD_CMD.READ, 2n)];
    ask(NBD_CMD.WRITE, 3n);
    const bytes = Buffer.concat([
      data(105, 'fghij', { cookie: 2n, done: false }), simple(0, 3n), simple(0, 1n), Buffer.from('0123456789'),
      data(100, 'abcde', { cookie: 2n, done: false }), chunk(NBD_CHUNK.NONE, Buffer.alloc(0), { cookie: 2n }),
    ]);
    for (const byte of bytes) assert.equal(reader.feed(Buffer.of(byte)), null);
    assert.deepEqual(endings.map(({ request }) => request.command), [NBD_CMD.WRITE, NBD_CMD.READ, NBD_CMD.READ]);
    assert.deepEqual(endings.map(({ error }) => error), [null, null, null]);
    assert.equal(into[0]!.toString(), '0123456789');
    assert.equal(into[1]!.toString(), 'abcdefghij');
    assert.equal(requests.size, 0);
  });

  test('holes read as zeroes', () => {
    const into = ask(NBD_CMD.READ);
    assert.equal(reader.feed(Buffer.concat([hole(103, 7, { done: false }), data(100, 'abc')])), null);
    assert.equal(into!.toString(), 'abc\0\0\0\0\0\0\0');
    assert.equal(endings[0]!.error, null);
  });

  test('extents of our context are kept, those of others are not', () => {
    ask(NBD_CMD.BLOCK_STATUS);
    assert.equal(reader.feed(Buffer.concat([status(9, { done: false }), status(CONTEXT, { done: false }), status(8)])), null);
    assert.deepEqual(endings[0]!.request.extents, [{ length: 512, flags: 3 }]);
  });

  const odd = chunk(0x80ff, encodeErrorChunk({ error: 12, message: 'odd', offset: null }));
  const errors: [string, Buffer, string, RegExp][] = [
    ['a simple error', simple(28), 'ENOSPC', /10 bytes at 100/],
    ['a simple error with an unknown number', simple(9999), 'EINVAL', /./],
    ['an error chunk with a message', failed(5, 'bad sector'), 'EIO', /bad sector/],
    ['an error chunk in front of the end', Buffer.concat([failed(1, 'no', { done: false }), nothing()]), 'EPERM', /no/],
    ['an error chunk of an unknown type', odd, 'ENOMEM', /odd/],
  ];
  for (const [name, bytes, code, message] of errors) {
    test(`${name} fails the request with ${code}, and the connection goes on`, () => {
      ask(NBD_CMD.READ);
      assert.equal(reader.feed(bytes), null);
      assert.equal(endings[0]!.error?.code, code);
      assert.match(endings[0]!.error!.message, message);
      ask(NBD_CMD.FLUSH, 2n);
      assert.equal(reader.feed(simple(0, 2n)), null);
      assert.equal(endings[1]!.error, null);
    });
  }

  const { READ, WRITE, BLOCK_STATUS } = NBD_CMD;
  const overlapping = Buffer.concat([data(100, 'abcde', { done: false }), data(104, 'efghij')]);
  const huge = encodeChunkHeader({ flags: 1, type: NBD_CHUNK.ERROR, cookie: 1n, length: 0xffff_ffff });
  const hostile: [string, number, Buffer, RegExp][] = [
    ['bytes that are no reply', READ, Buffer.alloc(20, 'x'), /magic/],
    ['a reply to nobody', READ, simple(0, 77n), /77/],
    ['data outside of the request', READ, data(99, 'abc'), /-1 to 2/],
    ['data behind the request', READ, data(108, 'abc'), /8 to 11/],
    ['a hole outside of the request', READ, hole(100, 11), /0 to 11/],
    ['a hole at 2^64', READ, hole(2 ** 64 - 4096, 10), /bytes/],
    ['half of the data', READ, data(100, 'abcde'), /in part/],
    ['data with a gap', READ, Buffer.concat([data(100, 'abc', { done: false }), data(104, 'efghij')]), /in part/],
    ['overlapping data of the right length', READ, overlapping, /in part/],
    ['no data at all', READ, nothing(), /in part/],
    ['an empty data chunk', READ, chunk(NBD_CHUNK.OFFSET_DATA, Buffer.alloc(8)), /type 1 with 8 bytes/],
    ['data for a write', WRITE, data(100, 'abc'), /type 1/],
    ['a hole for a write', WRITE, hole(100, 3), /type 2/],
    ['extents for a read', READ, status(CONTEXT), /type 5/],
    ['no extents', BLOCK_STATUS, nothing(), /without extents/],
    ['no extents in a simple reply', BLOCK_STATUS, simple(0), /without extents/],
    ['extents of other contexts only', BLOCK_STATUS, status(99), /without extents/],
    ['an unknown chunk', READ, chunk(77, Buffer.alloc(4)), /type 77/],
    ['a full empty chunk', READ, chunk(NBD_CHUNK.NONE, Buffer.alloc(4)), /empty chunk of 4/],
    ['an error chunk of four gigabytes', READ, huge, /4294967295/],
    ['an error chunk without an error', READ, failedWithZero(), /error 0/],
  ];
  for (const [name, command, bytes, reason] of hostile) {
    test(`${name} ends the connection with a reason`, () => {
      ask(command);
      const malformed = reader.feed(bytes);
      assert.match(malformed?.malformed ?? 'accepted', reason);
      assert.deepEqual(endings, [], 'nobody was told that it went well');
    });
  }
});

function failedWithZero(): Buffer {
  return chunk(NBD_CHUNK.ERROR, Buffer.alloc(6));
}
