import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../model/errors.ts';
import { describeLog } from './describe-log.ts';
import { decodeIndexHeader, encodeIndexHeader } from './log-index.ts';
import { LogWriter } from './log-writer.ts';
import { memoryPorts } from './memory-files.ts';

const PATH = '/logs/disk0.hrl';
const NOW = Date.UTC(2026, 10, 23, 4, 30);

async function twoRecords(): Promise<{ log: LogWriter; ports: ReturnType<typeof memoryPorts> }> {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, {
    uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: null, createdAt: NOW, diskSize: 1 << 20,
  });
  const data = new Uint8Array(64).fill(1);
  await log.append([{ op: 'write', offset: 512, data }, { op: 'zero', offset: 0, length: 4096 }], NOW + 61_000);
  return { log, ports };
}

const entries = [
  { operation: 'write', byteOffset: 512, length: 64, timestamp: '2026-11-23T04:31:01.000Z' },
  { operation: 'zero', byteOffset: 0, length: 4096, timestamp: '2026-11-23T04:31:01.000Z' },
];

test('an open log is described by its index, a closed one by itself: the same entries', async () => {
  const { log, ports } = await twoRecords();
  const open = await describeLog(ports.files, PATH);
  assert.deepEqual([open.state, open.entries, open.header.endOfLog], ['open', entries, 0]);
  log.finished(0);
  log.finished(1);
  await log.close();
  const closed = await describeLog(ports.files, PATH);
  assert.deepEqual([closed.state, closed.entries, closed.truncated], ['closed', entries, false]);
  assert.equal(closed.header.createdAt, '2026-11-23T04:30:00.000Z');
  assert.equal(closed.header.modifiedAt, '2026-11-23T04:31:01.000Z');
  assert.deepEqual(JSON.parse(JSON.stringify(closed)), closed);
  assert.equal(ports.files.openFiles, 0);
});

test('an open log without its own index is said to be unreadable', async () => {
  const { log, ports } = await twoRecords();
  await log.abandon();
  const index = ports.files.get(`${PATH}.index`);
  await ports.files.remove(`${PATH}.index`);
  assert.deepEqual((await describeLog(ports.files, PATH)).state, 'unreadable');
  const about = decodeIndexHeader(index);
  assert.ok(!('malformed' in about));
  const foreign = encodeIndexHeader({ ...about, uniqueId: 'ffffffff-4455-6677-8899-aabbccddeeff' });
  ports.files.put(`${PATH}.index`, Buffer.concat([foreign, index.subarray(foreign.length)]));
  const described = await describeLog(ports.files, PATH);
  assert.deepEqual([described.state, described.entries], ['unreadable', []]);
  assert.equal(ports.files.openFiles, 0);
});

test('no more entries are given than were asked for', async () => {
  const { ports } = await twoRecords();
  const described = await describeLog(ports.files, PATH, 1);
  assert.deepEqual([described.entries, described.truncated], [entries.slice(0, 1), true]);
  assert.equal((await describeLog(ports.files, PATH, 2)).truncated, false);
});

test('a file that is no log is refused', async () => {
  const { files } = memoryPorts();
  files.put(PATH, Buffer.alloc(9000, 'x'));
  await assert.rejects(describeLog(files, PATH), (error) => error instanceof UnderstudyError && error.code === 'LOG_INVALID');
  assert.equal(files.openFiles, 0);
});
