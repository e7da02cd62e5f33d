/**
 * Which way should an open tracking log be kept readable after a process crash (rule R1)? Four ways, on a real file system:
 *
 *   ordered   data laid out as MS-HRL; its index frame is written after the data write has finished, with one frame write for all
 *             batches that finished meanwhile; no data checksum is needed, because a whole frame proves that its data came before it
 *   parallel  the same files; data and index frame are written at once, the frame carries a crc32 of the data
 *   journal   one file of our own (frame header, crc32, data; one write); turned into MS-HRL at close by copying
 *   data only no index at all: the floor (not crash safe)
 *
 * Each is driven as the tracker drives it: `depth` batches in flight, each of `records` × `size` bytes. Rounds alternate between the
 * ways, the median is printed. Usage: node bench/open-log.ts [folder] [megabytes per run] [rounds]
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, fdatasyncSync, ftruncateSync, openSync, readSync, rmSync, writeSync, writevSync, writev, write } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { byteSumChecksum } from '../src/hrl/byte-sum.ts';

type Write = (fd: number, buffers: Buffer[], position: number) => Promise<void>;

/** Through the thread pool: the event loop stays free for the guest. */
const pooled: Write = (fd, buffers, position) =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null): void => (error === null ? resolve() : reject(error));
    if (buffers.length === 1) write(fd, buffers[0]!, 0, buffers[0]!.length, position, done);
    else writev(fd, buffers, position, done);
  });

/** On the event loop: fewest instructions, but a slow volume stops every guest. */
const direct: Write = (fd, buffers, position) => {
  if (buffers.length === 1) writeSync(fd, buffers[0]!, 0, buffers[0]!.length, position);
  else writevSync(fd, buffers, position);
  return Promise.resolve();
};

interface Way {
  append(batch: Buffer[]): Promise<void>;
  close(): Promise<void>;
}

const frameBytes = (records: number): number => 64 + 32 * records;

function dataOnly(log: number, write: Write): Way {
  let position = 8192;
  return {
    append(batch) {
      const at = position;
      for (const data of batch) position += data.length;
      return write(log, batch, at);
    },
    close: async () => fdatasyncSync(log),
  };
}

function parallel(log: number, index: number, write: Write, sums: boolean): Way {
  let position = 8192;
  let indexPosition = 4096;
  return {
    async append(batch) {
      const [at, indexAt] = [position, indexPosition];
      const frame = Buffer.alloc(frameBytes(batch.length));
      let crc = 0;
      for (let i = 0; i < batch.length; i++) {
        const data = batch[i]!;
        position += data.length;
        crc = crc32(data, crc);
        if (sums) frame.writeUInt32LE(byteSumChecksum(data), 64 + 32 * i);
      }
      frame.writeUInt32LE(crc, 60);
      frame.writeUInt32LE(crc32(frame), 4);
      indexPosition += frame.length;
      await Promise.all([write(log, batch, at), write(index, [frame], indexAt)]);
    },
    close: async () => fdatasyncSync(log),
  };
}

function ordered(log: number, index: number, write: Write, sums: boolean): Way {
  let position = 8192;
  let indexPosition = 4096;
  let waiting: { frame: Buffer; settle: () => void }[] = [];
  let busy = false;
  const pump = async (): Promise<void> => {
    busy = true;
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      const joined = group.length === 1 ? group[0]!.frame : Buffer.concat(group.map((one) => one.frame));
      const at = indexPosition;
      indexPosition += joined.length;
      await write(index, [joined], at);
      for (const one of group) one.settle();
    }
    busy = false;
  };
  return {
    async append(batch) {
      const at = position;
      const frame = Buffer.alloc(frameBytes(batch.length));
      for (let i = 0; i < batch.length; i++) {
        position += batch[i]!.length;
        if (sums) frame.writeUInt32LE(byteSumChecksum(batch[i]!), 64 + 32 * i);
      }
      frame.writeUInt32LE(crc32(frame), 4);
      await write(log, batch, at);
      await new Promise<void>((settle) => {
        waiting.push({ frame, settle });
        if (!busy) void pump();
      });
    },
    close: async () => fdatasyncSync(log),
  };
}

function journal(log: number, target: number, write: Write, sums: boolean): Way {
  let position = 4096;
  return {
    append(batch) {
      const at = position;
      const frame = Buffer.alloc(frameBytes(batch.length));
      let crc = 0;
      position += frame.length;
      for (let i = 0; i < batch.length; i++) {
        position += batch[i]!.length;
        crc = crc32(batch[i]!, crc);
        if (sums) frame.writeUInt32LE(byteSumChecksum(batch[i]!), 64 + 32 * i);
      }
      frame.writeUInt32LE(crc, 60);
      frame.writeUInt32LE(crc32(frame), 4);
      return write(log, [frame, ...batch], at);
    },
    async close() {
      const window = Buffer.allocUnsafe(1 << 20);
      for (let at = 0; at < position; at += window.length) {
        const count = readSync(log, window, 0, window.length, at);
        await write(target, [window.subarray(0, count)], at);
      }
      fdatasyncSync(target);
    },
  };
}

const WAYS = ['data only', 'ordered', 'parallel', 'journal', 'ordered+sum', 'parallel+sum'] as const;

function make(name: (typeof WAYS)[number], log: number, other: number, write: Write): Way {
  switch (name) {
    case 'data only': return dataOnly(log, write);
    case 'ordered': return ordered(log, other, write, false);
    case 'parallel': return parallel(log, other, write, false);
    case 'journal': return journal(log, other, write, false);
    case 'ordered+sum': return ordered(log, other, write, true);
    case 'parallel+sum': return parallel(log, other, write, true);
  }
}

interface Sample { appendMs: number; cpuMs: number; closeMs: number; p50Us: number; p99Us: number }

async function run(folder: string, name: (typeof WAYS)[number], write: Write, size: number, records: number, depth: number, total: number): Promise<Sample> {
  const paths = [join(folder, 'bench.hrl'), join(folder, 'bench.other')];
  for (const path of paths) rmSync(path, { force: true });
  const [log, other] = [openSync(paths[0]!, 'w+'), openSync(paths[1]!, 'w+')];
  ftruncateSync(log, 8192);
  const way = make(name, log, other, write);
  const batches = Math.ceil(total / (size * records));
  const latencies = new Float64Array(batches);
  let next = 0;
  const cpu = process.cpuUsage();
  const start = performance.now();
  await Promise.all(Array.from({ length: depth }, async () => {
    while (next < batches) {
      const number = next++;
      const batch = Array.from({ length: records }, (_, i) => slice((number * records + i) * size, size));
      const from = performance.now();
      await way.append(batch);
      latencies[number] = performance.now() - from;
    }
  }));
  const appendMs = performance.now() - start;
  const used = process.cpuUsage(cpu);
  const closing = performance.now();
  await way.close();
  const closeMs = performance.now() - closing;
  for (const fd of [log, other]) closeSync(fd);
  for (const path of paths) rmSync(path);
  latencies.sort();
  const at = (q: number): number => latencies[Math.min(batches - 1, Math.floor(batches * q))]! * 1000;
  return { appendMs, cpuMs: (used.user + used.system) / 1000, closeMs, p50Us: at(0.5), p99Us: at(0.99) };
}

const pool = randomFillSync(Buffer.allocUnsafe(32 << 20));
const slice = (at: number, size: number): Buffer => pool.subarray(at % (pool.length - size) & ~4095, (at % (pool.length - size) & ~4095) + size);
const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;

const folder = process.argv[2] ?? tmpdir();
const total = Number(process.argv[3] ?? 256) << 20;
const rounds = Number(process.argv[4] ?? 5);
const CASES = [
  { size: 4096, records: 1, depth: 1 }, { size: 4096, records: 1, depth: 16 }, { size: 4096, records: 16, depth: 1 },
  { size: 4096, records: 16, depth: 4 }, { size: 65536, records: 1, depth: 1 }, { size: 65536, records: 1, depth: 16 }, { size: 65536, records: 4, depth: 4 },
];

console.log(`${total >> 20} MiB per run in ${folder}, ${rounds} rounds, medians; Node ${process.version}`);
console.log('writes  | batch          | way          | MB/s append | cpu µs/batch | p50 µs | p99 µs | close ms | MB/s with close');
for (const [mode, write] of [['pooled', pooled], ['direct', direct]] as const) {
  for (const { size, records, depth } of CASES) {
    if (mode === 'direct' && depth > 1) continue;
    const samples = new Map<string, Sample[]>(WAYS.map((name) => [name, []]));
    const bytes = size === 4096 ? total >> 1 : total;
    for (let round = 0; round < rounds; round++) {
      for (const name of WAYS) samples.get(name)!.push(await run(folder, name, write, size, records, depth, bytes));
    }
    for (const [name, taken] of samples) {
      const of = (pick: (sample: Sample) => number): number => median(taken.map(pick));
      const batches = bytes / (size * records);
      const columns = [
        mode.padEnd(7), `${String(size >> 10).padStart(2)} KiB × ${String(records).padStart(2)}, q${depth}`.padEnd(14), name.padEnd(12),
        (bytes / 1e3 / of((s) => s.appendMs)).toFixed(0).padStart(11), (of((s) => s.cpuMs) * 1000 / batches).toFixed(1).padStart(12),
        of((s) => s.p50Us).toFixed(0).padStart(6), of((s) => s.p99Us).toFixed(0).padStart(6), of((s) => s.closeMs).toFixed(0).padStart(8),
        (bytes / 1e3 / of((s) => s.appendMs + s.closeMs)).toFixed(0).padStart(15),
      ];
      console.log(columns.join(' | '));
    }
  }
}
