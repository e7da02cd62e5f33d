import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk } from '../disk/memory-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { LogWriter, type LogRecord } from '../hrl/log-writer.ts';
import { memoryPorts } from '../hrl/memory-files.ts';
import type { DiskRecord, InboxRecord, RelationshipRecord } from '../model/records.ts';
import { applySet, defectOf } from './apply.ts';
import type { ReplicationPorts } from './replication-ports.ts';

const SIZE = 64 << 20;
const ID = '00112233-4455-6677-8899-aabbccddeeff';
const disk: DiskRecord = { diskId: 'd0', path: '/disk', format: 'raw', virtualSize: SIZE, logicalSectorSize: 512, geometry: null };
const open = new AbortController().signal;

async function setOf(records: LogRecord[], previousUniqueId: string | null = null) {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, '/log', { uniqueId: ID, previousUniqueId, createdAt: 1, diskSize: SIZE });
  for (const record of records) log.finished(await log.append([record], 2));
  const { size, digest, entries } = await log.close();
  const record: InboxRecord = { vmId: 'v', epoch: 1, status: 'received', closedAt: 3,
    disks: [{ diskId: 'd0', uniqueId: ID, previousUniqueId, path: '/log', size, digest, entries, diskSize: SIZE }] };
  return { ports, record };
}

const replica = (files: ReplicationPorts['files'], target: VirtualDisk) =>
  ({ files, openDisk: async () => target, clock: { monotonic: () => 0 } }) as unknown as ReplicationPorts;

const relationship = (applied: Record<string, string> = {}) => ({ lastAppliedLogs: applied }) as unknown as RelationshipRecord;

test('what overlaps ends as the last entry left it, others are written side by side', async () => {
  const at = (offset: number, fill: number, length = 4096): LogRecord => ({ op: 'write', offset, data: new Uint8Array(length).fill(fill) });
  const { ports, record } = await setOf([at(0, 1), at(8192, 2), at(2048, 3), { op: 'zero', offset: 4096, length: 1024 }, at(4608, 5, 512)]);
  const base = new MemoryDisk(SIZE);
  let running = 0;
  let most = 0;
  // The earlier a write begins the later it ends: only the order of beginning can save it.
  let delay = 50;
  const slow: VirtualDisk = Object.assign(Object.create(base) as VirtualDisk, {
    async write(from: Uint8Array, offset: number) {
      most = Math.max(most, ++running);
      for (let turn = delay--; turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve));
      await base.write(from, offset);
      running--;
    },
    virtualSize: SIZE, flush: async () => {}, seal: async () => ({ kind: 'none', reason: 'memory' }), close: async () => {},
    zero: (offset: number, length: number) => base.zero(offset, length),
  });
  const applied = await applySet(replica(ports.files, slow), record, [disk], open);
  assert.deepEqual(applied.logs, { d0: ID });
  const found = new Uint8Array(12_288);
  await base.read(found, 0);
  assert.deepEqual([found[0], found[2047], found[2048], found[4095], found[4096], found[4608], found[5119], found[5120], found[6143], found[8192]],
    [1, 1, 3, 3, 0, 5, 5, 3, 3, 2]);
  assert.ok(most >= 2, 'nothing was written side by side');
});

test('memory is bounded: a log of long writes is applied in windows', async () => {
  const { ports, record } = await setOf(Array.from({ length: 6 }, (_, index): LogRecord =>
    ({ op: 'write', offset: index * (10 << 20), data: new Uint8Array(10 << 20).fill(index + 1) })));
  let held = 0;
  let most = 0;
  const target = {
    virtualSize: SIZE, location: '/disk',
    async write(from: Uint8Array) {
      most = Math.max(most, (held += from.length));
      await new Promise((resolve) => setImmediate(resolve));
      held -= from.length;
    },
    zero: async () => {}, flush: async () => {}, seal: async () => ({ kind: 'none', reason: 'test' }), close: async () => {},
  } as unknown as VirtualDisk;
  await applySet(replica(ports.files, target), record, [disk], open);
  assert.ok(most <= 20 << 20, `${most} bytes at once`);
  assert.ok(most > 0);
});

test('a stop ends between two windows, and the set counts as not applied', async () => {
  const { ports, record } = await setOf([{ op: 'write', offset: 0, data: new Uint8Array(512) }]);
  const stop = new AbortController();
  stop.abort(new Error('the server stops'));
  await assert.rejects(applySet(replica(ports.files, new MemoryDisk(SIZE)), record, [disk], stop.signal), /the server stops/);
});

test('defects are told apart: what another copy may mend, and what none can', async () => {
  const good: LogRecord[] = [{ op: 'write', offset: SIZE - 512, data: new Uint8Array(512).fill(1) }];
  const { ports, record } = await setOf(good, ID);
  const defect = (applied: Record<string, string>, disks = [disk]) => defectOf(ports, record, relationship(applied), disks);
  assert.equal(await defect({ d0: ID }), null);
  assert.match((await defect({}))!.reason, /follows 00112233.*, applied last was none/);
  assert.deepEqual([(await defect({}))!.again, (await defect({}))!.code], [true, 'LOG_OUT_OF_SEQUENCE']);
  assert.deepEqual([(await defect({ d0: ID }, []))!.again, (await defect({ d0: ID }, []))!.code], [false, 'LOG_INVALID']);
  // A log of a larger disk grows the replica (R26); one that writes outside of the disk it is for is invalid.
  const outside = { ...record, disks: record.disks.map((log) => ({ ...log, diskSize: SIZE - 512 })) };
  const smaller = await defectOf(ports, outside, relationship({ d0: ID }), [{ ...disk, virtualSize: SIZE - 512 }]);
  assert.deepEqual([smaller!.again, smaller!.code], [false, 'LOG_OUT_OF_BOUNDS']);
  ports.files.inodes.delete('/log');
  assert.equal((await defect({ d0: ID }))!.again, true);
  assert.equal(ports.files.openFiles, 0);
});

test('1,000 damaged logs: none that is refused changes the replica, none that passes changes it in another way', async () => {
  const pages = Array.from({ length: 40 }, (_, n): LogRecord => n % 8 === 3
    ? { op: 'zero', offset: n * 4096, length: 4096 }
    : { op: 'write', offset: n * 4096, data: new Uint8Array(512).fill(n + 1) });
  const { ports, record } = await setOf(pages);
  const whole = ports.files.get('/log');
  const apply = async (target: MemoryDisk): Promise<boolean> => {
    if ((await defectOf(ports, record, relationship(), [disk])) !== null) return false;
    await applySet(replica(ports.files, Object.assign(target, { seal: async () => ({ kind: 'none', reason: 'memory' }) })), record, [disk], open);
    return true;
  };
  const contents = async (target: MemoryDisk) => {
    const bytes = new Uint8Array(40 * 4096);
    await target.read(bytes, 0);
    return Buffer.from(bytes);
  };
  const expected = new MemoryDisk(SIZE);
  assert.equal(await apply(expected), true);
  const [after, before] = [await contents(expected), await contents(new MemoryDisk(SIZE))];
  let refused = 0;
  await fc.assert(fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), async (at, change, cut) => {
    const bytes = Buffer.from(cut ? whole.subarray(0, at) : whole);
    if (!cut) bytes[at]! ^= change;
    ports.files.put('/log', bytes);
    const target = new MemoryDisk(SIZE);
    const applied = await apply(target);
    refused += applied ? 0 : 1;
    assert.ok((await contents(target)).equals(applied ? after : before), applied ? 'applied otherwise' : 'a refused log has changed the replica');
  }), { numRuns: 1000 });
  assert.ok(refused > 800, `${refused} of 1000 refused`);
});
