import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { usedBytes } from '../../test/rig/used-bytes.ts';
import { UnderstudyError } from '../model/errors.ts';
import { encodeBlock, encodeHeader, ourHeader, type LogHeader, type RawEntry } from './codec.ts';
import { openLog, readLogHeader, type LogEntry } from './log-reader.ts';
import { LogWriter, type LogRecord } from './log-writer.ts';
import { MemoryFiles, memoryPorts } from './memory-files.ts';

const PATH = '/inbox/disk0.hrl';
const NOW = Date.UTC(2026, 10, 23, 4, 30);
const DISK = 1 << 24;
const ID = '00112233-4455-6677-8899-aabbccddeeff';

function hasCode(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof UnderstudyError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}

async function closedLog(batches: readonly (readonly LogRecord[])[]): Promise<Buffer> {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, { uniqueId: ID, previousUniqueId: null, createdAt: NOW, diskSize: DISK });
  for (const [n, batch] of batches.entries()) await log.append(batch, NOW + n * 1000);
  for (let number = 0; number < log.recordCount; number++) log.finished(number);
  await log.close();
  return ports.files.get(PATH);
}

interface Read {
  op: string;
  offset: number;
  length: number;
  data: string;
}

async function readAll(bytes: Uint8Array, diskSize = DISK): Promise<Read[]> {
  const files = new MemoryFiles();
  files.put(PATH, bytes);
  const log = await openLog(files, PATH, { diskSize });
  try {
    await log.verify();
    const all: Read[] = [];
    for await (const entry of log.entries()) {
      const data = new Uint8Array(entry.op === 'write' ? entry.length : 0);
      if (entry.op === 'write') await log.readData(entry, data);
      all.push({ op: entry.op, offset: entry.offset, length: entry.length, data: Buffer.from(data).toString('base64') });
    }
    return all;
  } finally {
    await log.close();
    assert.equal(files.openFiles, 0);
  }
}

/** A log put together by hand: header, then the pieces one after another. */
function handMade(pieces: readonly Buffer[], about: Partial<LogHeader> = {}): Buffer {
  const body = Buffer.concat(pieces);
  const end = { currentSize: 4096 + body.length, endOfLog: 4096 + body.length, totalEntries: 0 };
  const names = { createdAt: NOW, modifiedAt: NOW, uniqueId: ID, previousUniqueId: null, dataWriteGuid: null, fileType: 0 };
  return Buffer.concat([encodeHeader({ ...ourHeader(names, end), ...about }), body]);
}

function entry(offset: number, length: number, more: Partial<RawEntry> = {}): RawEntry {
  return { op: 'write', offset, length, timestamp: NOW, dataChecksum: 0, ...more };
}

const anyRecord: fc.Arbitrary<LogRecord> = fc.oneof(
  fc.record({
    op: fc.constant('write' as const), offset: fc.nat(DISK - 600), data: fc.uint8Array({ minLength: 1, maxLength: 600 }),
  }),
  fc.record({ op: fc.constant('zero' as const), offset: fc.nat(DISK / 2), length: fc.integer({ min: 1, max: DISK / 2 }) }),
);

test('what was appended is read, in order', async () => {
  const anyBatches = fc.array(fc.array(anyRecord, { minLength: 1, maxLength: 60 }), { maxLength: 12 });
  await fc.assert(fc.asyncProperty(anyBatches, async (batches) => {
    const expected = batches.flat().map((record): Read => record.op === 'write'
      ? { op: 'write', offset: record.offset, length: record.data.length, data: Buffer.from(record.data).toString('base64') }
      : { op: 'zero', offset: record.offset, length: record.length, data: '' });
    assert.deepEqual(await readAll(await closedLog(batches)), expected);
  }), { numRuns: 60 });
});

test('an entry keeps its time in whole seconds and its place in the file', async () => {
  const files = new MemoryFiles();
  const write: LogRecord = { op: 'write', offset: 512, data: new Uint8Array(10).fill(1) };
  files.put(PATH, await closedLog([[write], [{ op: 'zero', offset: 0, length: 99 }]]));
  const log = await openLog(files, PATH, { diskSize: DISK });
  const entries: LogEntry[] = [];
  for await (const one of log.entries()) entries.push(one);
  assert.deepEqual(entries, [
    { op: 'write', offset: 512, length: 10, position: 8192, timestamp: NOW, dataChecksum: ~10 >>> 0 },
    { op: 'zero', offset: 0, length: 99, position: 0, timestamp: NOW + 1000, dataChecksum: 0 },
  ]);
  assert.deepEqual(await log.verify(), { entries: 2, dataBytes: 10, zeroBytes: 99 });
});

test('data may be read in pieces, and never past the entry', async () => {
  const files = new MemoryFiles();
  const data = new Uint8Array(3 << 20).map((_, at) => (at * 7) >>> 5);
  files.put(PATH, await closedLog([[{ op: 'write', offset: 0, data }]]));
  const log = await openLog(files, PATH, { diskSize: DISK });
  const { value: one } = await log.entries().next();
  const pieces = [0, 1000, (1 << 20) + 7, 3 << 20].map((from, n, all) => new Uint8Array((all[n + 1] ?? from) - from));
  let skip = 0;
  await Promise.all(pieces.map((piece) => {
    const from = skip;
    skip += piece.length;
    return log.readData(one!, piece, from);
  }));
  assert.ok(Buffer.concat(pieces).equals(data));
  await assert.rejects(log.readData(one!, new Uint8Array(2), data.length - 1), RangeError);
});

test('a log of Windows without an empty first block, and without data checksums, is read', async () => {
  const data = Buffer.from('AAAABB');
  const log = handMade([data, encodeBlock(0, [entry(4096, 4), entry(0, 2)])]);
  assert.deepEqual(await readAll(log), [
    { op: 'write', offset: 4096, length: 4, data: Buffer.from('AAAA').toString('base64') },
    { op: 'write', offset: 0, length: 2, data: Buffer.from('BB').toString('base64') },
  ]);
});

test('a version 1 log with larger metadata blocks is read', async () => {
  const block = Buffer.concat([encodeBlock(0, [entry(0, 3)]), Buffer.alloc(4096)]);
  const log = handMade([Buffer.from('abc'), block], { version: 1, metadataSize: 8192 });
  assert.equal((await readAll(log)).length, 1);
});

test('bytes after the end of the log do not count', async () => {
  const log = await closedLog([[{ op: 'write', offset: 0, data: Uint8Array.of(1, 2) }]]);
  assert.deepEqual(await readAll(Buffer.concat([log, Buffer.alloc(5000, 7)])), await readAll(log));
});

test('a log that was not closed is refused, though its header can be read', async () => {
  const ports = memoryPorts();
  await LogWriter.create(ports, PATH, { uniqueId: ID, previousUniqueId: null, createdAt: NOW, diskSize: DISK });
  const file = await ports.files.open(PATH, 'read');
  const header = await readLogHeader(file);
  assert.ok(!('malformed' in header) && header.endOfLog === 0 && header.uniqueId === ID);
  await assert.rejects(openLog(ports.files, PATH, { diskSize: DISK }), hasCode('LOG_NOT_CLOSED', /was not closed/));
});

test('an entry outside of the disk is refused with both sizes', async () => {
  const log = await closedLog([[{ op: 'zero', offset: 4096, length: 4097 }]]);
  assert.equal((await readAll(log, 8193)).length, 1);
  await assert.rejects(readAll(log, 8192), hasCode('LOG_OUT_OF_BOUNDS', /up to byte 8193, the disk has 8192 bytes/));
});

const [first, data] = [encodeBlock(0, []), Buffer.from('0123456789')];
/** Ten bytes of data, and a block with one entry that says otherwise. */
const tenBytes = (length: number, more: Partial<RawEntry> = {}): Buffer[] => [data, encodeBlock(0, [entry(0, length, more)])];
const broken: [string, Buffer, RegExp][] = [
  ['is empty', Buffer.alloc(0), /0 bytes/],
  ['is text', Buffer.alloc(5000, 'text'), /begin/],
  ['ends behind the file', handMade([first], { endOfLog: 1e9 }), /ends at 1000000000, the file has 8192/],
  ['ends inside its header', handMade([first], { endOfLog: 4096 }), /block at 0, inside the header/],
  ['ends before its header', handMade([first], { endOfLog: 100 }), /block at -3996, inside the header/],
  ['has a block that points to itself', handMade([first, encodeBlock(1, [])]), /1 bytes back/],
  ['has a block that points into the header', handMade([first, encodeBlock(4097, [])]), /block at 4095, inside the header/],
  ['has a block that points far before the file', handMade([first, encodeBlock(2 ** 50, [])]), /inside the header/],
  ['has no block where it ends', handMade([first, Buffer.alloc(4096)]), /checksum 0/],
  ['has fewer bytes of data than its entries say', handMade(tenBytes(11)), /10 bytes of data before it, its entries have 11/],
  ['has more bytes of data than its entries say', handMade(tenBytes(9)), /10 bytes of data before it, its entries have 9/],
  ['has data without any entry', handMade([data, encodeBlock(0, [])]), /its entries have 0/],
  ['has data that give another checksum', handMade(tenBytes(10, { dataChecksum: 5 })), /data at 4096: checksum 5, but/],
  ['counts other entries than its blocks', handMade(tenBytes(10), { totalEntries: 2 }), /counts 2 entries, the blocks 1/],
];
for (const [what, bytes, reason] of broken) {
  test(`a log that ${what} is refused with the reason`, async () => {
    await assert.rejects(readAll(bytes), hasCode('LOG_INVALID', reason));
  });
}

test('a log that becomes shorter while it is read is refused', async () => {
  const files = new MemoryFiles();
  files.put(PATH, await closedLog([[{ op: 'write', offset: 0, data: new Uint8Array(3 << 20).fill(3) }]]));
  const log = await openLog(files, PATH, { diskSize: DISK });
  await (await files.open(PATH, 'write')).truncate(2 << 20);
  await assert.rejects(log.verify(), hasCode('LOG_INVALID', /ended at/));
});

test('1,000 damaged logs are each refused with a reason or read as before', async () => {
  const batches = Array.from({ length: 30 }, (_, batch) => Array.from({ length: 10 }, (_, n): LogRecord => n === 3
    ? { op: 'zero', offset: batch * 4096, length: 4096 }
    : { op: 'write', offset: (batch * 10 + n) * 512, data: new Uint8Array(64).map((_, at) => at * n + batch) }));
  const original = await closedLog(batches);
  const expected = await readAll(original);
  const lastBlock = original.length - 4096;
  let refused = 0;
  const damage = fc.oneof(
    fc.record({ kind: fc.constant('flip' as const), at: fc.nat(original.length - 1), bit: fc.nat(7) }),
    fc.record({ kind: fc.constant('set' as const), at: fc.nat(original.length - 1), bit: fc.nat(255) }),
    fc.record({ kind: fc.constant('cut' as const), at: fc.nat(original.length), bit: fc.constant(0) }),
    fc.record({ kind: fc.constant('insert' as const), at: fc.nat(original.length), bit: fc.nat(255) }),
    // Headers of file, blocks and entries are a small part of the file, and the part that lies about lengths.
    fc.record({ kind: fc.constant('set' as const), at: fc.nat(127), bit: fc.nat(255) }),
    fc.record({ kind: fc.constant('set' as const), at: fc.nat(1023).map((at) => lastBlock + at), bit: fc.nat(255) }),
  );
  let runs = 0;
  let settled = 0;
  await fc.assert(fc.asyncProperty(damage, async ({ kind, at, bit }) => {
    if (++runs === 250) settled = await usedBytes();
    let bytes = Buffer.from(original);
    if (kind === 'flip') bytes[at]! ^= 1 << bit;
    else if (kind === 'set') bytes[at] = bit;
    else if (kind === 'cut') bytes = bytes.subarray(0, at);
    else bytes = Buffer.concat([bytes.subarray(0, at), Buffer.of(bit), bytes.subarray(at)]);
    let read: Read[];
    try {
      read = await readAll(bytes);
    } catch (error) {
      assert.ok(error instanceof UnderstudyError && /^LOG_(INVALID|NOT_CLOSED|OUT_OF_BOUNDS)$/.test(error.code), String(error));
      refused += 1;
      return;
    }
    assert.deepEqual(read, expected);
  }), { numRuns: 1000 });
  assert.ok(refused > 500, `${refused} of 1000 refused`);
  const growth = (await usedBytes()) - settled;
  assert.ok(growth < 4 << 20, `${growth} bytes more are in use than after a quarter of the logs`);
});

test('a log whose checksums were mended after the damage is still bounded by file and disk', async () => {
  const wild = fc.record({
    distance: fc.oneof(fc.nat(20_000), fc.maxSafeNat()), offset: fc.oneof(fc.nat(DISK), fc.maxSafeNat()),
    length: fc.oneof(fc.nat(20), fc.nat(0xffff_ffff)), op: fc.constantFrom('write' as const, 'zero' as const),
    metadataSize: fc.nat(16).map((n) => n * 512),
    endOfLog: fc.oneof(fc.nat(30_000), fc.maxSafeNat()),
  });
  await fc.assert(fc.asyncProperty(wild, async ({ distance, offset, length, op, metadataSize, endOfLog }) => {
    const pieces = [first, data, encodeBlock(distance, [entry(offset, length, { op })])];
    try {
      for (const one of await readAll(handMade(pieces, { metadataSize, endOfLog }))) assert.ok(one.offset + one.length <= DISK);
    } catch (error) {
      assert.ok(error instanceof UnderstudyError, String(error));
    }
  }), { numRuns: 500 });
});
