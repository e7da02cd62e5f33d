import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blake3 } from '@napi-rs/blake-hash';
import { errnoOf, UnderstudyError } from '../model/errors.ts';
import { describeLog } from './describe-log.ts';
import { LogWriter, type LogRecord, type NewLog } from './log-writer.ts';
import { recoverLog } from './log-recovery.ts';
import { MemoryFiles, memoryPorts } from './memory-files.ts';

const PATH = '/logs/disk0.hrl';
const INDEX = `${PATH}.index`;
const MIB = 1 << 20;
const NOW = Date.UTC(2026, 10, 23, 4, 30);
const about: NewLog = {
  uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee',
  createdAt: NOW, diskSize: 4096 * MIB, dataWriteGuid: '0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0',
};

function data(length: number, seed: number): Uint8Array {
  return new Uint8Array(length).map((_, at) => (at * 31 + seed * 97 + 1) & 0xff);
}

function write(offset: number, bytes: Uint8Array): LogRecord {
  return { op: 'write', offset, data: bytes };
}

async function finishAll(log: LogWriter): Promise<void> {
  for (let number = 0; number < log.recordCount; number++) log.finished(number);
  await log.allFinished();
}

function hasCode(code: string, errno?: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof UnderstudyError, String(error));
    assert.equal(error.code, code);
    if (errno !== undefined) assert.equal(errnoOf(error.cause), errno);
    return true;
  };
}

/**
 * The byte table of docs/formats/hrl.md read anew, without a line of the codec, so that both cannot be wrong in the
 * same way.
 */
function readByTable(file: Buffer): { op: number; offset: number; length: number; data: Buffer }[] {
  const sum = (bytes: Buffer): number => ~bytes.reduce((total, byte) => total + byte, 0) >>> 0;
  const without = (bytes: Buffer, at: number): number => sum(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 4)]));
  const u64 = (at: number): number => Number(file.readBigUInt64LE(at));
  assert.equal(file.toString('latin1', 0, 8), 'msctlog ');
  assert.equal(file.readUInt32LE(8), 0x20000);
  assert.equal(file.readUInt32LE(40), without(file.subarray(0, 4096), 40));
  assert.equal(u64(44), file.length, 'EOLLocation');
  assert.equal(u64(32), file.length, 'CurrentSize');
  const blockBytes = file.readUInt32LE(56);
  const blocks: number[] = [];
  for (let at = u64(44) - blockBytes; ; at -= u64(at)) {
    blocks.unshift(at);
    if (u64(at) === 0) break;
  }
  const entries = [];
  let from = 4096;
  for (const block of blocks) {
    assert.equal(file.readUInt32LE(block + 12), without(file.subarray(block, block + 32), 12));
    const valid = file.readUInt32LE(block + 8);
    for (let slot = 1; slot <= valid; slot++) {
      const at = block + 32 * slot;
      assert.equal(file.readUInt32LE(at + 8), without(file.subarray(at, at + 32), 8));
      const [op, length] = [file[at + 20]!, file.readUInt32LE(at + 12)];
      const bytes = file.subarray(from, from + (op === 1 ? length : 0));
      if (op === 1) assert.equal(file.readUInt32LE(at + 21), sum(bytes));
      entries.push({ op, offset: u64(at), length, data: bytes });
      from += bytes.length;
    }
    assert.ok(file.subarray(block + 32 * (valid + 1), block + blockBytes).every((byte) => byte === 0), 'free slots are zero');
    assert.equal(from, block, 'the data of a block end where it begins');
    from = block + blockBytes;
  }
  assert.equal(entries.length, u64(96), 'TotalMetadataEntries');
  return entries;
}

test('a closed log reads by the byte table as what was appended', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  const expected: { op: number; offset: number; length: number; data: Buffer }[] = [];
  for (let batch = 0; batch < 60; batch++) {
    const records: LogRecord[] = [];
    for (let n = 0; n <= batch % 17; n++) {
      const offset = (batch * 4096 + n * 512) % MIB;
      const bytes = data(512 * (1 + ((batch + n) % 9)), n);
      records.push(n % 5 === 4 ? { op: 'zero', offset, length: 8192 } : write(offset, bytes));
      expected.push(n % 5 === 4 ? { op: 0x81, offset, length: 8192, data: Buffer.alloc(0) }
        : { op: 1, offset, length: bytes.length, data: Buffer.from(bytes) });
    }
    await log.append(records, NOW + batch * 1000);
  }
  await finishAll(log);
  ports.files.asked.length = 0;
  const closed = await log.close();
  const order = [`datasync ${PATH}`, `remove ${INDEX}`, 'syncFolder /logs'];
  assert.deepEqual(ports.files.asked, order, 'durable before the index goes');
  const file = ports.files.get(PATH);
  assert.deepEqual(readByTable(file), expected);
  assert.ok(expected.length > 3 * 127, 'several blocks');
  assert.deepEqual(closed, {
    path: PATH, uniqueId: about.uniqueId, previousUniqueId: about.previousUniqueId,
    size: file.length, entries: expected.length, digest: blake3(file).toString('hex'),
  });
  assert.deepEqual(await ports.files.list('/logs'), ['disk0.hrl'], 'the index is gone');
  assert.equal(ports.files.openFiles, 0);
});

test('a batch is one write to the log and one to the index', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  const written: string[] = [];
  ports.files.fate = ({ path }) => void written.push(path);
  await log.append(Array.from({ length: 300 }, (_, n) => write(n * 512, data(512, n))), NOW);
  assert.deepEqual(written, [PATH, INDEX]);
  await log.append([{ op: 'zero', offset: 0, length: 512 }], NOW);
  assert.deepEqual(written, [PATH, INDEX, INDEX], 'zeroes have no data');
  log.finished(0);
  assert.equal(written.length, 3, 'finish marks wait for the next append');
});

test('a log without writes is whole', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  const { size, entries } = await log.close();
  assert.deepEqual({ size, entries }, { size: 8192, entries: 0 });
  assert.deepEqual(readByTable(ports.files.get(PATH)), []);
});

test('long records are split, and count as one', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  const long = data(16 * MIB + 512, 1);
  assert.equal(await log.append([{ op: 'zero', offset: 0, length: 3072 * MIB + 4096 }, write(512, long)], NOW), 0);
  assert.equal(await log.append([write(0, data(512, 2))], NOW), 2);
  await finishAll(log);
  await log.close();
  const entries = readByTable(ports.files.get(PATH));
  assert.deepEqual(entries.map(({ op, offset, length }) => [op, offset, length]), [
    [0x81, 0, 1024 * MIB], [0x81, 1024 * MIB, 1024 * MIB], [0x81, 2048 * MIB, 1024 * MIB], [0x81, 3072 * MIB, 4096],
    [1, 512, 16 * MIB], [1, 512 + 16 * MIB, 512], [1, 0, 512],
  ]);
  assert.ok(Buffer.concat([entries[4]!.data, entries[5]!.data]).equals(long));
});

test('bytes counts the log and its index, appends in flight included', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  assert.equal(log.bytes, 8192 + 4096);
  const appended = log.append([write(0, data(4096, 0))], NOW + 5000);
  assert.equal(log.bytes, 8192 + 4096 + 4096 + 64 + 32);
  assert.equal(log.lastActivity, NOW + 5000);
  await appended;
  assert.equal(log.bytes, ports.files.get(PATH).length + ports.files.get(INDEX).length);
});

test('an append never resolves before an earlier one', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  ports.files.fate = ({ count, length }) => (count === 2 ? { bytes: length, then: 'hang' } : undefined);
  const settled: number[] = [];
  const note = (number: number): void => void settled.push(number);
  void log.append([write(0, data(512, 0))], NOW).then(note);
  void log.append([write(512, data(512, 1))], NOW).then(note);
  // Everything the memory files can do without the hanging write is a matter of microtasks.
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(settled, []);
  assert.throws(() => log.finished(0), /cannot have finished/);
});

test('a record outside of the disk, an empty one and an append after the end are bugs of the caller', async () => {
  const log = await LogWriter.create(memoryPorts(), PATH, { ...about, diskSize: 4096 });
  assert.throws(() => log.append([write(4096, data(1, 0))], NOW), RangeError);
  assert.throws(() => log.append([{ op: 'zero', offset: 0, length: 0 }], NOW), RangeError);
  assert.throws(() => log.append([write(-512, data(512, 0))], NOW), RangeError);
  assert.equal(log.recordCount, 0);
  await log.close();
  assert.throws(() => log.append([write(0, data(512, 0))], NOW), /has ended/);
});

test('a log with an unfinished record is not closed', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  await log.append([write(0, data(512, 0)), write(512, data(512, 1))], NOW);
  log.finished(1);
  await assert.rejects(log.close(), /1 disk writes have not finished/);
  const all = log.allFinished();
  log.finished(0);
  await all;
  await log.close();
});

for (const [what, victim] of [['log', PATH], ['index', INDEX]] as const) {
  test(`a full volume under the ${what} poisons the writer, and the index goes before the append rejects`, async () => {
    const ports = memoryPorts();
    const log = await LogWriter.create(ports, PATH, about);
    await log.append([write(0, data(4096, 0))], NOW);
    const waiting = log.allFinished();
    ports.files.fate = ({ path }) => (path === victim ? { bytes: 50, then: 'ENOSPC' } : undefined);
    const [failed, later] = [log.append([write(0, data(4096, 1))], NOW), log.append([write(4096, data(4096, 2))], NOW)];
    const indexThere: boolean[] = [];
    const looked = failed.finally(() => indexThere.push(ports.files.inodes.has(INDEX)));
    await assert.rejects(looked, hasCode('LOG_WRITE_FAILED', 'ENOSPC'));
    await assert.rejects(later, hasCode('LOG_WRITE_FAILED', 'ENOSPC'));
    assert.deepEqual(indexThere, [false]);
    ports.files.fate = () => undefined;
    const writes = ports.files.writes;
    await assert.rejects(log.append([write(0, data(512, 3))], NOW), hasCode('LOG_WRITE_FAILED'));
    await assert.rejects(log.persistFinished(), hasCode('LOG_WRITE_FAILED'));
    await assert.rejects(log.close(), hasCode('LOG_WRITE_FAILED'));
    await assert.rejects(waiting, hasCode('LOG_WRITE_FAILED'));
    assert.equal(ports.files.writes, writes, 'nothing is tried again');
    assert.equal((await recoverLog(memoryPorts(ports.files.afterCrash()), PATH)).outcome, 'untrusted');
    await log.abandon();
    assert.equal(ports.files.openFiles, 0);
  });
}

test('an append that fails while the index cannot be removed says that the log is still trusted', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  ports.files.fate = () => ({ bytes: 0, then: 'EIO' });
  ports.files.errors.set(`remove ${INDEX}`, 'EROFS');
  await assert.rejects(log.append([write(0, data(512, 0))], NOW), hasCode('LOG_STILL_TRUSTED', 'EIO'));
  await assert.rejects(log.distrust('again'), hasCode('LOG_STILL_TRUSTED', 'EIO'));
});

test('a log that is given up while an append hangs is trusted by nobody', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  ports.files.fate = ({ length }) => ({ bytes: length, then: 'hang' });
  void log.append([write(0, data(512, 0))], NOW);
  await log.distrust('it took longer than 2 s');
  assert.match(log.failure!.message, /longer than 2 s/);
  await assert.rejects(log.append([write(0, data(512, 0))], NOW), hasCode('LOG_WRITE_FAILED'));
  assert.equal((await recoverLog(memoryPorts(ports.files.afterCrash()), PATH)).outcome, 'untrusted');
});

test('an append in flight rejects when the log is given up meanwhile', async () => {
  const log = await LogWriter.create(memoryPorts(), PATH, about);
  const appended = log.append([write(0, data(512, 0))], NOW);
  const given = log.distrust('the disk was written unlogged');
  await assert.rejects(appended, hasCode('LOG_WRITE_FAILED'));
  await given;
});

test('a close that fails leaves a log that nobody trusts, though its header named its end already', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  await log.append([write(0, data(512, 0))], NOW);
  await finishAll(log);
  ports.files.errors.set(`datasync ${PATH}`, 'EIO');
  await assert.rejects(log.close(), hasCode('LOG_WRITE_FAILED', 'EIO'));
  ports.files.errors.clear();
  assert.equal((await recoverLog(memoryPorts(ports.files.afterCrash()), PATH)).outcome, 'untrusted');
  assert.equal((await describeLog(ports.files, PATH)).state, 'unreadable');
  await log.abandon();
});

test('a log is not created over another one', async () => {
  const ports = memoryPorts();
  await LogWriter.create(ports, PATH, about);
  await assert.rejects(LogWriter.create(ports, PATH, about), hasCode('LOG_EXISTS', 'EEXIST'));
  assert.deepEqual(await ports.files.list('/logs'), ['disk0.hrl', 'disk0.hrl.index']);
});

test('a creation that fails leaves nothing behind', async () => {
  const files = new MemoryFiles();
  files.fate = ({ path }) => (path === PATH ? { bytes: 10, then: 'ENOSPC' } : undefined);
  await assert.rejects(LogWriter.create(memoryPorts(files), PATH, about), hasCode('LOG_WRITE_FAILED', 'ENOSPC'));
  assert.deepEqual(await files.list('/logs'), []);
  assert.equal(files.openFiles, 0);
});
