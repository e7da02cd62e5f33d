import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeBlockHeader, decodeEntry, decodeHeader, encodeBlock, encodeEntry, encodeHeader, fromLogTime, HEADER_BYTES,
  METADATA_BYTES, ourHeader, toLogTime, type LogHeader,
} from './codec.ts';
import { readGuid, writeGuid } from './guid.ts';
import { byteSumChecksum } from './byte-sum.ts';

const ID = '00112233-4455-6677-8899-aabbccddeeff';
const GUID = '0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0';
const header: LogHeader = {
  ...ourHeader(
    {
      createdAt: Date.UTC(2026, 10, 23), modifiedAt: Date.UTC(2026, 10, 24), uniqueId: ID, previousUniqueId: GUID,
      dataWriteGuid: GUID, fileType: 0,
    },
    { currentSize: 12_288, endOfLog: 12_288, totalEntries: 3 },
  ),
};

function resealed(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(0, 40);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.writeUInt32LE(~sum >>> 0, 40);
  return bytes;
}

// Values published in MS-HRL 2.6 and its example, recomputed; every entry of that example has no data checksum.
test('the published checksums of metadata headers are ours', () => {
  assert.equal(byteSumChecksum(Buffer.alloc(32)), 4294967295);
  assert.equal(encodeBlock(0, []).readUInt32LE(12), 4294967295);
  const bytes = Buffer.alloc(32);
  bytes.writeUInt32LE(324_096, 0);
  bytes.writeUInt32LE(58, 8);
  bytes.writeUInt32LE(4294966991, 12);
  assert.deepEqual(decodeBlockHeader(bytes, METADATA_BYTES), { distance: 324_096, entries: 58 });
});

for (const [offset, length, seconds, checksum] of [
  [3_626_340_352, 4096, 539_842_382, 4294966639],
  [10_188_185_600, 4096, 539_842_382, 4294966776],
  [135_266_304, 1024, 539_842_382, 4294967024],
] as const) {
  test(`the published checksum of the entry at ${offset} is ours`, () => {
    const bytes = Buffer.alloc(64);
    const entry = { op: 'write', offset, length, timestamp: fromLogTime(seconds), dataChecksum: 0 } as const;
    encodeEntry(bytes, 32, entry);
    assert.equal(bytes.readUInt32LE(40), checksum);
    assert.deepEqual(decodeEntry(bytes, 0), entry);
  });
}

test('the published time stamp is 2017-02-08 04:13:00 UTC', () => {
  assert.equal(new Date(fromLogTime(539_842_380)).toISOString(), '2017-02-08T04:13:00.000Z');
  assert.equal(toLogTime(Date.UTC(2017, 1, 8, 4, 13)), 539_842_380);
});

test('times outside of 2000 to 2136 become the nearest end', () => {
  assert.equal(toLogTime(0), 0);
  assert.equal(toLogTime(Date.UTC(2200, 0)), 0xffff_ffff);
});

test('GUIDs have their first three groups little-endian', () => {
  const bytes = Buffer.alloc(16);
  writeGuid(bytes, 0, ID);
  assert.equal(bytes.toString('hex'), '33221100554477668899aabbccddeeff');
  assert.equal(readGuid(bytes, 0), ID);
});

test('a header reads as it was written', () => {
  assert.deepEqual(decodeHeader(encodeHeader(header)), header);
});

test('a version 1 header has no data-write GUID', () => {
  const bytes = encodeHeader({ ...header, version: 1 });
  assert.equal(bytes.readUInt32LE(8), 0x0001_0000);
  assert.deepEqual(decodeHeader(bytes), { ...header, version: 1, dataWriteGuid: null });
});

test('a cookie may end in a zero instead of a blank', () => {
  const bytes = encodeHeader(header);
  bytes[7] = 0;
  assert.ok(!('malformed' in decodeHeader(resealed(bytes))));
});

const badHeaders: [string, (bytes: Buffer) => Buffer, RegExp][] = [
  ['is cut', (bytes) => bytes.subarray(0, HEADER_BYTES - 1), /4095 bytes/],
  ['has another cookie', (bytes) => resealed(bytes.fill('MSCTLOG', 0, 7)), /begin/],
  ['has another version', (bytes) => { bytes.writeUInt32LE(0x0003_0000, 8); return resealed(bytes); }, /0x30000/],
  ['has a wrong checksum', (bytes) => { bytes[200] = 1; return bytes; }, /checksum/],
  ['has blocks of 0 bytes', (bytes) => { bytes.writeUInt32LE(0, 56); return resealed(bytes); }, /blocks of 0/],
  ['has blocks of 1000 bytes', (bytes) => { bytes.writeUInt32LE(1000, 56); return resealed(bytes); }, /blocks of 1000/],
  ['has blocks of 2 GiB', (bytes) => { bytes.writeUInt32LE(2 ** 31, 56); return resealed(bytes); }, /blocks of 2147483648/],
  ['ends above 2^53', (bytes) => { bytes.writeUInt32LE(0xffff_ffff, 48); return resealed(bytes); }, /2\^53/],
];
for (const [what, change, reason] of badHeaders) {
  test(`a header that ${what} is refused with the reason`, () => {
    const decoded = decodeHeader(change(encodeHeader(header)));
    assert.ok('malformed' in decoded);
    assert.match(decoded.malformed, reason);
  });
}

test('a block that claims more entries than it has slots is refused', () => {
  const bytes = encodeBlock(0, []);
  bytes.writeUInt32LE(128, 8);
  bytes.writeUInt32LE(~128 >>> 0, 12);
  assert.deepEqual(decodeBlockHeader(bytes, METADATA_BYTES), { malformed: '128 entries, it has 127 slots' });
});

test('an operation that is not known is refused', () => {
  const bytes = Buffer.alloc(64);
  encodeEntry(bytes, 32, { op: 'zero', offset: 0, length: 512, timestamp: fromLogTime(0), dataChecksum: 0 });
  assert.equal(bytes[52], 0x81);
  bytes[52] = 0x80;
  bytes.writeUInt32LE(bytes.readUInt32LE(40) + 1, 40);
  assert.deepEqual(decodeEntry(bytes, 0), { malformed: 'operation 128 is not known' });
});
