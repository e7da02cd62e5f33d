import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { lengthOf } from './log-layout.ts';
import { openLog } from './log-reader.ts';
import { recoverLog, type Recovery } from './log-recovery.ts';
import { LogWriter, type LogRecord, type NewLog } from './log-writer.ts';
import { MemoryFiles, memoryPorts } from './memory-files.ts';

const PATH = '/logs/disk0.hrl';
const INDEX = `${PATH}.index`;
const NOW = Date.UTC(2026, 10, 23, 4, 30);
const DISK = 1 << 20;
const about: NewLog = {
  uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: null, createdAt: NOW, diskSize: DISK,
};

/** Everything the memory files can do without a hanging write is done when this resolves. */
const quiet = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** A small generator of its own, so that a run depends on its seed alone. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function record(number: number, roll: (below: number) => number): LogRecord {
  const offset = roll(DISK / 2);
  if (roll(5) === 0) return { op: 'zero', offset, length: 1 + roll(4096) };
  // Some data are zeroes: torn, they look as if they were there, and then they are.
  const fill = roll(6) === 0 ? 0 : number + 1;
  return { op: 'write', offset, data: new Uint8Array(1 + roll(40)).fill(fill & 0xff) };
}

/** What one process knew when it died. */
interface Life {
  appended: LogRecord[];
  acknowledged: number;
  /** Told to the writer. */
  finished: Set<number>;
  /** Told, and known to be on file. */
  persisted: Set<number>;
  created: boolean;
  closing: boolean;
}

/**
 * Appends in batches, up to `depth` at once, reports finished disk writes out of order, closes; runs until a write
 * hangs.
 */
async function live(
  files: MemoryFiles, roll: (below: number) => number, options: { batches: number; depth: number }, life: Life,
): Promise<void> {
  const log = await LogWriter.create(memoryPorts(files), PATH, about);
  life.created = true;
  let flying: Promise<void>[] = [];
  for (let batch = 0; batch < options.batches; batch++) {
    const size = roll(12) === 0 ? 130 : 1 + roll(4);
    const records = Array.from({ length: size }, (_, n) => record(life.appended.length + n, roll));
    life.appended.push(...records);
    flying.push(log.append(records, NOW + batch * 1000).then((first) => {
      life.acknowledged = first + size;
      for (let n = 0; n < size; n++) {
        if (roll(3) === 0) continue;
        log.finished(first + n);
        life.finished.add(first + n);
      }
    }));
    if (flying.length < options.depth) continue;
    await Promise.all(flying);
    flying = [];
    if (roll(4) !== 0) continue;
    const told = [...life.finished];
    await log.persistFinished();
    for (const number of told) life.persisted.add(number);
  }
  await Promise.all(flying);
  for (let number = 0; number < log.recordCount; number++) {
    log.finished(number);
    life.finished.add(number);
  }
  life.closing = true;
  await log.close();
}

/** All, nothing or some of a write. */
function part(roll: (below: number) => number, length: number): number {
  return [length, 0, roll(length + 1)][roll(3)]!;
}

interface Crash {
  seed: number;
  /** The first write that does not return; those in flight with it get there in any part. */
  at: number;
  cut: number;
  depth: number;
  batches: number;
}

async function crash({ seed, at, cut, depth, batches }: Crash): Promise<{ life: Life; files: MemoryFiles; writes: number[] }> {
  const files = new MemoryFiles();
  const partly = dice(seed + 77);
  const writes: number[] = [];
  files.fate = ({ count, length }) => {
    writes.push(length);
    if (count < at) return undefined;
    return { bytes: count === at ? Math.min(cut, length) : part(partly, length), then: 'hang' };
  };
  const life: Life = {
    appended: [], acknowledged: 0, finished: new Set(), persisted: new Set(), created: false, closing: false,
  };
  void live(files, dice(seed), { batches, depth }, life);
  await quiet();
  return { life, files: files.afterCrash(), writes };
}

async function entriesOf(files: MemoryFiles): Promise<string[]> {
  const log = await openLog(files, PATH, { diskSize: DISK });
  await log.verify();
  const seen: string[] = [];
  for await (const entry of log.entries()) {
    const data = new Uint8Array(entry.op === 'write' ? entry.length : 0);
    if (entry.op === 'write') await log.readData(entry, data);
    seen.push(`${entry.op} ${entry.offset}+${entry.length} ${Buffer.from(data).toString('hex')}`);
  }
  await log.close();
  return seen;
}

function asEntry(one: LogRecord): string {
  const data = one.op === 'write' ? one.data : new Uint8Array();
  return `${one.op} ${one.offset}+${lengthOf(one)} ${Buffer.from(data).toString('hex')}`;
}

/**
 * The promise of recovery, whatever the crash was. Returns what happened, so that a test can see that all of it did.
 */
async function mendAndCheck({ life, files }: { life: Life; files: MemoryFiles }): Promise<Recovery['outcome']> {
  const ports = memoryPorts(files);
  const recovered = await recoverLog(ports, PATH);
  if (recovered.outcome === 'untrusted') {
    assert.equal(life.created, false, recovered.reason);
    return 'untrusted';
  }
  if (recovered.outcome === 'closed') {
    assert.ok(life.closing);
    assert.deepEqual(await entriesOf(files), life.appended.map(asEntry));
    assert.equal(files.inodes.has(INDEX), false);
    return 'closed';
  }
  const { writer, unfinished } = recovered;
  const kept = writer.recordCount;
  assert.ok(kept >= life.acknowledged && kept <= life.appended.length, `${life.acknowledged} acknowledged, ${kept} kept`);
  assert.equal(writer.unfinishedCount, unfinished.length);
  assert.equal(writer.bytes, files.get(PATH).length + files.get(INDEX).length, 'what was cut off is gone from both files');
  const open = new Set(unfinished.map(({ number }) => number));
  for (let number = 0; number < kept; number++) {
    if (!life.finished.has(number)) assert.ok(open.has(number), `record ${number} had not finished`);
    if (life.persisted.has(number)) assert.ok(!open.has(number), `record ${number} was known to have finished`);
  }
  for (const { number, op, offset, length } of unfinished) {
    const was = life.appended[number]!;
    assert.deepEqual({ op, offset, length }, { op: was.op, offset: was.offset, length: lengthOf(was) });
  }
  const more = Array.from({ length: 3 }, (_, n) => record(900 + n, dice(kept + n)));
  assert.equal(await writer.append(more, NOW + 1_000_000), kept);
  for (let number = 0; number < writer.recordCount; number++) writer.finished(number);
  await writer.close();
  assert.deepEqual(await entriesOf(files), [...life.appended.slice(0, kept), ...more].map(asEntry));
  assert.equal(files.openFiles, 0);
  return 'open';
}

/** Every byte of a short write; of a long one (headers, metadata blocks) its ends and every 97th. */
function cutsOf(length: number): number[] {
  const all = Array.from({ length: length + 1 }, (_, cut) => cut);
  return length < 300 ? all : all.filter((cut) => cut < 2 || cut > length - 2 || cut % 331 === 0);
}

test('a crash at any byte of any write keeps exactly a prefix with all that was acknowledged', async () => {
  const script = { seed: 4, depth: 2, batches: 6 };
  const { writes } = await crash({ ...script, at: Infinity, cut: 0 });
  assert.ok(writes.length > 14, `${writes.length} writes`);
  const outcomes = { open: 0, closed: 0, untrusted: 0 };
  for (const [at, length] of writes.entries()) {
    for (const cut of cutsOf(length)) {
      const seen = await crash({ ...script, at, cut });
      try {
        outcomes[await mendAndCheck(seen)] += 1;
      } catch (error) {
        throw new Error(`crash in write ${at} after ${cut} of ${length} bytes`, { cause: error });
      }
    }
  }
  assert.ok(outcomes.open > 300 && outcomes.closed > 0 && outcomes.untrusted > 0, JSON.stringify(outcomes));
});

test('the same holds with many appends in flight, of which any part may have got there', async () => {
  const anyCrash = fc.record({
    seed: fc.nat(1 << 30), at: fc.integer({ min: 2, max: 90 }), cut: fc.nat(6000), depth: fc.integer({ min: 2, max: 9 }),
    batches: fc.constant(40),
  });
  await fc.assert(fc.asyncProperty(anyCrash, async (how) => void await mendAndCheck(await crash(how))), { numRuns: 80 });
});

test('a crash during recovery loses nothing either', async () => {
  for (let seed = 0; seed < 40; seed++) {
    const { life, files } = await crash({ seed, at: 8 + (seed % 50), cut: seed * 3, depth: 3, batches: 30 });
    const dying = memoryPorts(files);
    const partly = dice(seed);
    files.fate = ({ length }) => ({ bytes: partly(length + 1), then: 'hang' });
    void recoverLog(dying, PATH);
    await quiet();
    await mendAndCheck({ life, files: files.afterCrash() });
  }
});

async function openLogWith(records: number, finished: readonly number[]): Promise<MemoryFiles> {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  for (let number = 0; number < records; number++) {
    await log.append([{ op: 'write', offset: number * 64, data: new Uint8Array(64).fill(number + 1) }], NOW);
  }
  for (const number of finished) log.finished(number);
  await log.persistFinished();
  return ports.files;
}

test('only records whose disk write is not known to have finished come back, in log order', async () => {
  const files = await openLogWith(6, [0, 1, 4]);
  const recovered = await recoverLog(memoryPorts(files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  const seen = recovered.unfinished.map(({ number, offset, length }) => [number, offset, length]);
  assert.deepEqual(seen, [[2, 128, 64], [3, 192, 64], [5, 320, 64]]);
  assert.equal(recovered.torn, 0);
});

test('a record that was split comes back as one', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, { ...about, diskSize: 2 ** 33 });
  await log.append([{ op: 'zero', offset: 512, length: 2 ** 31 + 7 }, { op: 'zero', offset: 0, length: 3 }], NOW);
  const recovered = await recoverLog(memoryPorts(ports.files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  assert.deepEqual(recovered.unfinished, [
    { number: 0, op: 'zero', offset: 512, length: 2 ** 31 + 7 }, { number: 1, op: 'zero', offset: 0, length: 3 },
  ]);
});

test('after a clean stop everything is known to have finished', async () => {
  const files = await openLogWith(5, [4, 3, 2, 1, 0]);
  const recovered = await recoverLog(memoryPorts(files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  assert.deepEqual(recovered.unfinished, []);
});

test('recovery reads the data of the last frames only, not of what was acknowledged', async () => {
  const files = (await openLogWith(200, [])).afterCrash();
  // Damage that only somebody who reads old data can see: acknowledged data are in the page cache for certain.
  files.inode(PATH).bytes[8192] = 0xff;
  assert.equal((await recoverLog(memoryPorts(files), PATH)).outcome, 'open');
});

test('records that were cut off are counted', async () => {
  const files = (await openLogWith(3, [])).afterCrash();
  const log = await recoverLog(memoryPorts(files), PATH);
  assert.ok(log.outcome === 'open');
  files.fate = ({ path, length }) => (path === PATH ? { bytes: 10, then: 'hang' } : { bytes: length, then: 'hang' });
  void log.writer.append([0, 1].map((n) => ({ op: 'write', offset: n * 64, data: new Uint8Array(64).fill(9) })), NOW);
  const recovered = await recoverLog(memoryPorts(files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  assert.equal(recovered.torn, 2);
  assert.equal(recovered.writer.recordCount, 3);
});

test('a metadata block that did not get there is noticed, though all data of its batch did', async () => {
  const files = (await openLogWith(0, [])).afterCrash();
  const log = await recoverLog(memoryPorts(files), PATH);
  assert.ok(log.outcome === 'open');
  // 130 records of 64 bytes, a block after the 127th: data, half a block, and the next append behind them.
  const logWrites = [127 * 64 + 100, 64];
  files.fate = ({ path, length }) => ({ bytes: path === PATH ? logWrites.shift()! : length, then: 'hang' });
  const one: LogRecord = { op: 'write', offset: 0, data: new Uint8Array(64).fill(5) };
  const records = (count: number): LogRecord[] => Array.from({ length: count }, () => one);
  void log.writer.append(records(130), NOW);
  void log.writer.append(records(1), NOW);
  const recovered = await recoverLog(memoryPorts(files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  assert.deepEqual([recovered.writer.recordCount, recovered.torn], [0, 131]);
});

test('zeroes that did not get there are cut off where the file ends before them', async () => {
  const files = (await openLogWith(1, [])).afterCrash();
  const log = await recoverLog(memoryPorts(files), PATH);
  assert.ok(log.outcome === 'open');
  files.fate = ({ path, length }) => ({ bytes: path === PATH ? 0 : length, then: 'hang' });
  void log.writer.append([{ op: 'write', offset: 0, data: new Uint8Array(64) }], NOW);
  const recovered = await recoverLog(memoryPorts(files.afterCrash()), PATH);
  assert.ok(recovered.outcome === 'open');
  assert.deepEqual([recovered.writer.recordCount, recovered.torn], [1, 1]);
});

const refused: [string, (files: MemoryFiles) => void, RegExp][] = [
  ['without its log', (files) => void files.inodes.delete(PATH), /disk0\.hrl is missing/],
  ['without its index', (files) => void files.inodes.delete(INDEX), /has no index/],
  ['with a damaged index header', (files) => void (files.inode(INDEX).bytes[80] = 1), /crc32/],
  ['with the index of another log', (files) => files.put(INDEX, otherIndex), /belongs to log ffffffff/],
  ['that was cut', (files) => files.put(PATH, files.get(PATH).subarray(0, 8256)), /acknowledges \d+ bytes, the log has 8256/],
];
const otherIndex = await (async () => {
  const ports = memoryPorts();
  await LogWriter.create(ports, PATH, { ...about, uniqueId: 'ffffffff-4455-6677-8899-aabbccddeeff' });
  return ports.files.get(INDEX);
})();
for (const [what, damage, reason] of refused) {
  test(`an open log ${what} is not trusted`, async () => {
    const files = (await openLogWith(5, [])).afterCrash();
    damage(files);
    const recovered = await recoverLog(memoryPorts(files), PATH);
    assert.ok(recovered.outcome === 'untrusted');
    assert.match(recovered.reason, reason);
    assert.equal(files.openFiles, 0);
  });
}

test('a frame that is whole but contradicts those before it is not taken for a crash', async () => {
  const files = (await openLogWith(5, [])).afterCrash();
  const index = files.get(INDEX);
  const frame = 64 + 32;
  // Frame 1 is missing; frame 2 follows frame 0.
  files.put(INDEX, Buffer.concat([index.subarray(0, 4096 + frame), index.subarray(4096 + 2 * frame)]));
  const recovered = await recoverLog(memoryPorts(files), PATH);
  assert.ok(recovered.outcome === 'untrusted');
  assert.match(recovered.reason, /record 2 follows 1 records/);
});

test('a closed log is closed again, also when its index is still there', async () => {
  const ports = memoryPorts();
  const log = await LogWriter.create(ports, PATH, about);
  const index = ports.files.get(INDEX);
  const closed = await log.close();
  ports.files.put(INDEX, index);
  for (let turn = 0; turn < 2; turn++) {
    assert.deepEqual(await recoverLog(ports, PATH), { outcome: 'closed', log: closed });
    assert.deepEqual(await ports.files.list('/logs'), ['disk0.hrl']);
  }
});

test('an index of random bytes ends the recovery with a reason or with a prefix', async () => {
  const files = await openLogWith(12, [1, 3]);
  const index = files.get(INDEX);
  const anyPlace = fc.integer({ min: 4096, max: index.length - 1 });
  const anyNoise = fc.uint8Array({ minLength: 1, maxLength: 80 });
  await fc.assert(fc.asyncProperty(anyPlace, anyNoise, async (at, noise) => {
    const damaged = files.afterCrash();
    damaged.put(INDEX, Buffer.concat([index.subarray(0, at), noise, index.subarray(at + noise.length)]));
    const recovered = await recoverLog(memoryPorts(damaged), PATH);
    if (recovered.outcome === 'open') assert.ok(recovered.writer.recordCount <= 12);
    else assert.equal(recovered.outcome, 'untrusted');
  }), { numRuns: 200 });
});

test('an I/O error is not a statement about the log', async () => {
  const files = (await openLogWith(2, [])).afterCrash();
  files.errors.set(`read ${INDEX}`, 'EIO');
  await assert.rejects(recoverLog(memoryPorts(files), PATH), /EIO: read/);
  assert.equal(files.openFiles, 0);
});
