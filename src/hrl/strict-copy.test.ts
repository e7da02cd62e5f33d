import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../model/errors.ts';
import { openLog } from './log-reader.ts';
import { LogWriter, type LogRecord } from './log-writer.ts';
import { memoryPorts, type MemoryFiles } from './memory-files.ts';
import { copyStrict } from './strict-copy.ts';

const [FROM, TO] = ['/logs/disk0.hrl', '/export/disk0.hrl'];
const MIB = 1 << 20;
const limits = { diskSize: 16 * MIB };

async function logOf(records: readonly LogRecord[]): Promise<MemoryFiles> {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, FROM, {
    uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: null, createdAt: 1e12, ...limits,
  });
  await log.append(records, 1e12);
  for (let number = 0; number < log.recordCount; number++) log.finished(number);
  await log.close();
  return ports.files;
}

/** What a disk of zeroes holds after the log. */
async function applied(files: MemoryFiles, path: string): Promise<{ disk: Buffer; operations: Set<string>; uniqueId: string }> {
  const log = await openLog(files, path, limits);
  await log.verify();
  const disk = Buffer.alloc(limits.diskSize);
  const operations = new Set<string>();
  for await (const entry of log.entries()) {
    operations.add(entry.op);
    const range = disk.subarray(entry.offset, entry.offset + entry.length);
    if (entry.op === 'write') await log.readData(entry, range);
    else range.fill(0);
  }
  await log.close();
  return { disk, operations, uniqueId: log.header.uniqueId };
}

const mixed: LogRecord[] = [
  { op: 'write', offset: 0, data: new Uint8Array(3 * MIB + 100).fill(7) },
  { op: 'zero', offset: 1000, length: 2 * MIB + 5 },
  ...Array.from({ length: 200 }, (_, n): LogRecord => ({ op: 'write', offset: n * 4096, data: new Uint8Array(50).fill(n) })),
  { op: 'zero', offset: 90 * 4096, length: 4096 },
];

test('a strict copy has only writes and does the same to a disk', async () => {
  const files = await logOf(mixed);
  const { entries, size } = await copyStrict(files, FROM, TO, { ...limits, expandZeroes: true });
  const [before, after] = [await applied(files, FROM), await applied(files, TO)];
  assert.deepEqual([...before.operations].sort(), ['write', 'zero']);
  assert.deepEqual([...after.operations], ['write']);
  assert.ok(before.disk.equals(after.disk));
  assert.equal(after.uniqueId, before.uniqueId);
  assert.equal(size, files.get(TO).length);
  assert.equal(entries, 4 + 3 + 200 + 1);
  assert.equal(files.openFiles, 0);
});

test('zeroes are not expanded unasked: the log is refused, and nothing is left', async () => {
  const files = await logOf(mixed);
  await assert.rejects(copyStrict(files, FROM, TO, { ...limits, expandZeroes: false }),
    (error) => error instanceof UnderstudyError && error.code === 'LOG_HAS_ZEROES' && /2101253 bytes/.test(error.message));
  assert.equal(files.inodes.has(TO), false);
});

test('a copy that fails half-way is removed', async () => {
  const files = await logOf(mixed);
  files.fate = ({ path, length }) => (path === TO && length > MIB / 2 ? { bytes: 9, then: 'ENOSPC' } : undefined);
  await assert.rejects(copyStrict(files, FROM, TO, { ...limits, expandZeroes: true }), /ENOSPC/);
  assert.equal(files.inodes.has(TO), false);
  assert.equal(files.openFiles, 0);
});
