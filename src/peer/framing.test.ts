import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeFrame, encodeFrame } from './framing.ts';

const MIB = 1024 * 1024;
const whole = (json: unknown, payload: Uint8Array) => Buffer.concat(encodeFrame(json, payload));

test('the bytes of a frame are those of the protocol page', () => {
  assert.equal(whole({ vm: 'a' }, Buffer.from('xyz')).toString('hex'), '0000000a00000003' + '7b22766d223a2261227d' + '78797a');
});

test('what is encoded is decoded again', () => {
  fc.assert(fc.property(fc.jsonValue(), fc.uint8Array({ maxLength: 200 }), (json, payload) => {
    const frame = decodeFrame(whole(json, payload), 200);
    assert.ok(!('malformed' in frame));
    assert.deepEqual(frame.json, JSON.parse(JSON.stringify(json)));
    assert.deepEqual(new Uint8Array(frame.payload), payload);
  }));
});

test('a frame with any number of bytes missing or added is refused', () => {
  const bytes = whole({ vm: 'a' }, Buffer.from('xyz'));
  for (let length = 0; length < bytes.length; length++) {
    assert.ok('malformed' in decodeFrame(bytes.subarray(0, length), MIB), `${length}`);
  }
  assert.match(JSON.stringify(decodeFrame(Buffer.concat([bytes, Buffer.alloc(1)]), MIB)), /declares 21 bytes, 22 came/);
});

test('sizes beyond the limits are refused by the header alone', () => {
  const header = (jsonBytes: number, payloadBytes: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32BE(jsonBytes, 0);
    bytes.writeUInt32BE(payloadBytes, 4);
    return decodeFrame(bytes, 100);
  };
  assert.match(JSON.stringify(header(256 * 1024 + 1, 0)), /JSON of 262145 bytes, at most 262144/);
  assert.match(JSON.stringify(header(0, 101)), /payload of 101 bytes, at most 100/);
  assert.match(JSON.stringify(header(0xffffffff, 0xffffffff)), /JSON of 4294967295 bytes/);
});

test('JSON in broken UTF-8, nothing and a byte-order mark are refused', () => {
  for (const json of [[0x22, 0xff, 0x22], [], [0xef, 0xbb, 0xbf, 0x31], [0x7b]]) {
    const bytes = Buffer.from([0, 0, 0, json.length, 0, 0, 0, 0, ...json]);
    assert.ok('malformed' in decodeFrame(bytes, 0), String(json));
  }
});

test('arbitrary bytes never throw', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => { decodeFrame(bytes, 16); }));
});
