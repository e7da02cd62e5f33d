import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { blake3 } from '@napi-rs/blake-hash';
import fc from 'fast-check';
import { MemoryFiles } from './memory-files.ts';
import { decodeRuns, decodeSegmentHeader, decodeUndoHeader, SEGMENT_PAGES_MAX, UNDO_PAGE_BYTES as PAGE } from './undo-codec.ts';
import { UndoReader } from './undo-reader.ts';
import { UndoWriter, type UndoPorts } from './undo-writer.ts';

const PATH = '/store/disk.raw.7.hru';
const HEADER = { diskSize: 64 << 20, epoch: 7, time: 1_793_620_800_000 };
const compute = { digest: (data: Uint8Array) => blake3(data) };
const portsOver = (files: MemoryFiles): UndoPorts => ({ files, compute });
const page = (fill: number, count = 1): Uint8Array => new Uint8Array(count * PAGE).fill(fill);

/** Appends one set's pages; what counts from then on. */
async function append(ports: UndoPorts, end: number, epoch: number, pages: [page: number, bytes: Uint8Array][]): Promise<number> {
  const writer = await UndoWriter.open(ports, PATH, HEADER, end, epoch);
  for (const [number, bytes] of pages) await writer.add(number, bytes);
  const after = await writer.finish();
  await writer.close();
  return after;
}

async function contents(log: UndoReader): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  for (const piece of log.pieces(0, 1 << 30)) {
    const bytes = new Uint8Array(piece.pages * PAGE);
    if (piece.place !== null) await log.read(bytes, piece.place);
    for (let at = 0; at < piece.pages; at++) found.set(piece.page + at, bytes[at * PAGE]!);
  }
  return found;
}

test('pages of several sets come back, each from its segment, zeroes as marks', async () => {
  const files = new MemoryFiles();
  const ports = portsOver(files);
  let end = await append(ports, 0, 8, [[9, page(1, 3)], [2, page(0, 2)], [4, page(5)]]);
  end = await append(ports, end, 9, [[100, page(7)], [0, page(3)]]);
  const log = await UndoReader.open(ports, PATH, end);
  assert.deepEqual(log.header, HEADER);
  assert.deepEqual([...(await contents(log))].sort(([a], [b]) => a - b), [[0, 3], [2, 0], [3, 0], [4, 5], [9, 1], [10, 1], [11, 1], [100, 7]]);
  assert.deepEqual([...log.pieces(3, 7)].map(({ page: first, pages }) => [first, pages]), [[3, 1], [4, 1], [9, 1]]);
  await log.close();
  assert.equal(files.openFiles, 0);
});

test('a set larger than a segment is cut into several', async () => {
  const ports = portsOver(new MemoryFiles());
  const end = await append(ports, 0, 8, [[0, page(1, SEGMENT_PAGES_MAX + 10)], [5000, page(2)]]);
  const log = await UndoReader.open(ports, PATH, end);
  assert.equal((await contents(log)).size, SEGMENT_PAGES_MAX + 11);
  assert.equal(log.runs, 3);
  await log.close();
});

test('what a crash has left behind the end on record is cut, what is before it stays byte for byte', async () => {
  const files = new MemoryFiles();
  const ports = portsOver(files);
  const end = await append(ports, 0, 8, [[1, page(1)]]);
  const committed = files.get(PATH).subarray(0, end);
  await append(ports, end, 9, [[2, page(2)], [3, page(3)]]);
  const after = await append(ports, end, 9, [[2, page(4)]]);
  assert.deepEqual(files.get(PATH).subarray(0, end), committed);
  assert.equal(files.get(PATH).length, after);
  const log = await UndoReader.open(ports, PATH, after);
  assert.deepEqual([...(await contents(log))], [[1, 1], [2, 4]]);
  await log.close();
});

test('any changed byte is found: in header, block or index when the log is opened, in data when that page is read', async () => {
  const files = new MemoryFiles();
  const ports = portsOver(files);
  const end = await append(ports, 0, 8, [[3, page(1, 2)], [8, page(0)]]);
  const whole = files.get(PATH);
  const used = [0, 9, 20, 41, PAGE, PAGE + 17, PAGE + 25, PAGE + 57, 3 * PAGE - 1, 4 * PAGE, 4 * PAGE + 25, 4 * PAGE + 48 + 31];
  for (const at of used) {
    const changed = Buffer.from(whole);
    changed[at]! ^= 0x40;
    files.put(PATH, changed);
    await assert.rejects(async () => {
      const log = await UndoReader.open(ports, PATH, end);
      await contents(log).finally(() => log.close());
    }, { code: 'UNDO_LOG_DAMAGED' }, `byte ${at}`);
  }
  files.put(PATH, whole.subarray(0, whole.length - PAGE));
  await assert.rejects(UndoReader.open(ports, PATH, end), { code: 'UNDO_LOG_DAMAGED' });
  await assert.rejects(UndoWriter.open(ports, PATH, HEADER, end, 9), { code: 'UNDO_LOG_DAMAGED' });
  await files.remove(PATH);
  await assert.rejects(UndoReader.open(ports, PATH, end), { code: 'UNDO_LOG_DAMAGED' });
  assert.equal(files.openFiles, 0);
});

test('data is durable, and the folder of a new file too, before finish resolves', async () => {
  const files = new MemoryFiles();
  const end = await append(portsOver(files), 0, 8, [[1, page(1)]]);
  assert.deepEqual(files.asked.slice(-2), [`datasync ${PATH}`, 'syncFolder /store']);
  await append(portsOver(files), end, 9, [[2, page(1)]]);
  assert.equal(files.asked.at(-1), `datasync ${PATH}`);
});

test('random bytes are refused by every decoder, with a reason', () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 0, maxLength: 4096 }), (bytes) => {
    const block = Buffer.alloc(PAGE);
    block.set(bytes);
    for (const decoded of [decodeUndoHeader(block), decodeSegmentHeader(block)]) assert.ok('malformed' in decoded);
    const runs = decodeRuns(block, { epoch: 1, dataPages: 10, runs: 100, indexDigest: new Uint8Array(32) });
    assert.ok('malformed' in runs || runs.every(({ pages }) => pages > 0));
  }));
});

const GOLDEN = new URL('../../test/golden/undo-log/v1/disk.raw.7.hru', import.meta.url);

test('an undo log that version 1 wrote reads as it did then', async () => {
  const files = new MemoryFiles();
  const ports = portsOver(files);
  const kept = readFileSync(GOLDEN);
  files.put(PATH, kept);
  const log = await UndoReader.open(ports, PATH, kept.length);
  assert.deepEqual(log.header, HEADER);
  const found = await contents(log);
  assert.deepEqual([found.size, found.get(0), found.get(3), found.get(4), found.get(107), found.get(16_383)], [104, 4, 1, 1, 0, 9]);
  await log.close();
});
