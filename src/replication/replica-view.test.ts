import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blake3 } from '@napi-rs/blake-hash';
import fc from 'fast-check';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { LayeredDisk } from '../disk/layered-disk.ts';
import { PageSet } from '../disk/page-set.ts';
import { LogWriter, type LogRecord } from '../hrl/log-writer.ts';
import { memoryPorts } from '../hrl/memory-files.ts';
import { UndoWriter } from '../hrl/undo-writer.ts';
import type { DiskRecord, InboxRecord, PointRecord } from '../model/records.ts';
import { openLatest, openPoint } from './replica-view.ts';
import { captureUndo, UndoNotKept } from './undo-capture.ts';

/** Not a whole number of pages, as a disk may be. */
const SIZE = 40 * 4096 + 1536;
const open = new AbortController().signal;
const record: DiskRecord = { diskId: 'd0', path: '/store/d.raw', format: 'raw', virtualSize: SIZE, logicalSectorSize: 512, geometry: null };

interface Write {
  offset: number;
  length: number;
  fill: number;
}

const writes = fc.array(fc.record({
  offset: fc.integer({ min: 0, max: SIZE - 1 }), length: fc.integer({ min: 1, max: 30_000 }), fill: fc.integer({ min: 0, max: 255 }),
}), { maxLength: 12 });

const clipped = ({ offset, length, fill }: Write): Write => ({ offset, length: Math.min(length, SIZE - offset), fill });
const recordOf = ({ offset, length, fill }: Write): LogRecord =>
  (fill === 0 ? { op: 'zero', offset, length } : { op: 'write', offset, data: new Uint8Array(length).fill(fill) });

async function contents(disk: { virtualSize: number; read(into: Uint8Array, offset: number): Promise<void> }): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.virtualSize);
  await disk.read(bytes, 0);
  return bytes;
}

function ports() {
  const { files } = memoryPorts();
  return { files, compute: { digest: (data: Uint8Array) => blake3(data) } as never };
}

test('property: every point equals the copy remembered at its time, also with the set after it applied by halves', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ writes, isPoint: fc.boolean() }), { minLength: 1, maxLength: 10 }), fc.nat(), async (sets, half) => {
    const { files, compute } = ports();
    const disk = new MemoryDisk(SIZE);
    const points: PointRecord[] = [];
    const remembered = new Map<number, Buffer>();
    let touched = new PageSet();
    for (const [index, { writes: random, isPoint }] of sets.entries()) {
      const epoch = index + 1;
      if (isPoint || points.length === 0) {
        points.push({ vmId: 'v', epoch, time: epoch, kind: 'standard', createdAt: 0, damaged: null, undoneThrough: epoch,
          disks: [{ diskId: 'd0', virtualSize: SIZE, path: `/store/d.raw.${epoch}.hru`, end: 0 }] });
        remembered.set(epoch, await contents(disk));
        touched = new PageSet();
      }
      const log = points.at(-1)!.disks[0]!;
      const set = random.map(clipped);
      const writer = await UndoWriter.open({ files, compute }, log.path, { diskSize: SIZE, epoch, time: epoch }, log.end, epoch + 1);
      await captureUndo(disk, (async function* ranges() {
        yield* set;
      })(), touched, writer, open);
      log.end = await writer.finish();
      await writer.close();
      const applied = index === sets.length - 1 ? set.slice(0, half % (set.length + 1)) : set;
      for (const { offset, length, fill } of applied) await disk.write(new Uint8Array(length).fill(fill), offset);
    }
    for (const [index, point] of points.entries()) {
      const view = await openPoint({ files, compute }, disk, record, points.slice(index), () => assert.fail('damaged'));
      assert.ok((await contents(view)).equals(remembered.get(point.epoch)!), `point ${point.epoch}`);
      const piece = Buffer.alloc(5000);
      await view.read(piece, 3333);
      assert.ok(piece.equals(remembered.get(point.epoch)!.subarray(3333, 8333)));
      let covered = 0;
      for await (const { offset, length, kind } of view.extents(0, SIZE)) {
        assert.equal(offset, covered);
        if (kind === 'zero') assert.ok(remembered.get(point.epoch)!.subarray(offset, offset + length).every((byte) => byte === 0));
        covered += length;
      }
      assert.equal(covered, SIZE);
      await view.close();
    }
    assert.equal(files.openFiles, 0);
  }), { numRuns: 60 });
});

test('property: the latest through logs that wait equals those logs applied, wherever applying has stopped', async () => {
  await fc.assert(fc.asyncProperty(fc.array(writes, { minLength: 1, maxLength: 5 }), fc.nat(), async (sets, stop) => {
    const memory = memoryPorts();
    const { files } = memory;
    const disk = new MemoryDisk(SIZE);
    const applied = new MemoryDisk(SIZE);
    const inbox: InboxRecord[] = [];
    for (const [index, random] of sets.entries()) {
      const path = `/inbox/${index}.hrl`;
      const uniqueId = `00112233-4455-6677-8899-aabbccddee0${index}`;
      const log = await LogWriter.create(memory, path, { uniqueId, previousUniqueId: null, createdAt: 1, diskSize: SIZE });
      for (const write of random.map(clipped)) {
        log.finished(await log.append([recordOf(write)], 2));
        await applied.write(new Uint8Array(write.length).fill(write.fill), write.offset);
      }
      const { size, digest, entries } = await log.close();
      inbox.push({ vmId: 'v', epoch: index, status: 'received', closedAt: 3,
        disks: [{ diskId: 'd0', uniqueId, previousUniqueId: null, path, size, digest, entries, diskSize: SIZE }] });
    }
    const first = sets[0]!.map(clipped);
    for (const { offset, length, fill } of first.slice(0, stop % (first.length + 1))) await disk.write(new Uint8Array(length).fill(fill), offset);
    const view = await openLatest({ files }, disk, record, inbox);
    assert.ok((await contents(view)).equals(await contents(applied)));
    await view.close();
    assert.equal(files.openFiles, 0);
  }), { numRuns: 60 });
});

test('a larger disk in a waiting log is served larger, and reads as zeroes where nothing was written', async () => {
  const memory = memoryPorts();
  const chain = { uniqueId: '00112233-4455-6677-8899-aabbccddee01', previousUniqueId: null };
  const log = await LogWriter.create(memory, '/l.hrl', { ...chain, createdAt: 1, diskSize: 2 * SIZE });
  log.finished(await log.append([{ op: 'write', offset: SIZE + 512, data: new Uint8Array(512).fill(4) }], 2));
  const { size, digest, entries, uniqueId } = await log.close();
  const set: InboxRecord = { vmId: 'v', epoch: 1, status: 'received', closedAt: 3,
    disks: [{ diskId: 'd0', uniqueId, previousUniqueId: null, path: '/l.hrl', size, digest, entries, diskSize: 2 * SIZE }] };
  const view = await openLatest(memory, new MemoryDisk(SIZE), record, [set]);
  const found = await contents(view);
  assert.equal(found.length, 2 * SIZE);
  assert.deepEqual([found[SIZE + 511], found[SIZE + 512], found[SIZE + 1023], found[SIZE + 1024], found[100]], [0, 4, 4, 0, 0]);
});

test('a point of a disk that has become smaller is refused with both sizes', async () => {
  const { files, compute } = ports();
  const point: PointRecord = { vmId: 'v', epoch: 1, time: 1, kind: 'standard', createdAt: 0, damaged: null, undoneThrough: 1,
    disks: [{ diskId: 'd0', virtualSize: 2 * SIZE, path: '/store/u.hru', end: 0 }] };
  await assert.rejects(openPoint({ files, compute }, new MemoryDisk(SIZE), record, [point], () => undefined),
    { code: 'POINT_DISK_SHRUNK', message: new RegExp(`${SIZE} bytes now, .* ${2 * SIZE}`) });
});

test('an undo log that cannot be written is told apart from a disk that cannot be read', async () => {
  const { files, compute } = ports();
  files.fate = () => ({ bytes: 0, then: 'ENOSPC' });
  const disk = new MemoryDisk(SIZE);
  await disk.write(new Uint8Array(4096).fill(1), 0);
  const ranges = async function* all() {
    yield { offset: 0, length: SIZE };
  };
  await assert.rejects(UndoWriter.open({ files, compute }, '/store/u', { diskSize: SIZE, epoch: 1, time: 1 }, 0, 2), { code: 'ENOSPC' });
  files.fate = () => undefined;
  const writer = await UndoWriter.open({ files, compute }, '/store/v', { diskSize: SIZE, epoch: 1, time: 1 }, 0, 2);
  await captureUndo(disk, ranges(), new PageSet(), writer, open);
  const broken = Object.assign(Object.create(disk) as MemoryDisk, { read: () => Promise.reject(new Error('EIO of the disk')), virtualSize: SIZE });
  await assert.rejects(captureUndo(broken, ranges(), new PageSet(), writer, open), (error) => !(error instanceof UndoNotKept));
});

test('a view cannot be written', async () => {
  const view = new LayeredDisk(new MemoryDisk(SIZE), [], SIZE);
  await assert.rejects(view.write(), { code: 'EPERM' });
  await assert.rejects(view.zero(), { code: 'EPERM' });
});
