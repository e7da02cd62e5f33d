/**
 * Which way should an open tracking log be kept readable after a process crash (rule R1)? docs/decisions/0002-open-log.md
 *
 *   data only  no index at all: the floor, not crash safe
 *   ordered    data laid out as MS-HRL; the index frame is written after its data, one write for all frames that wait; a
 *              whole frame proves its data, so that no checksum is needed for that
 *   parallel   the same files, data and frame at once; the frame carries something to recognise the data by: the byte sum
 *              that MS-HRL has for each entry anyway, or a crc32, or both
 *   journal    one file of our own: frame, then data, one write; at close it is copied into a file laid out as MS-HRL
 *   LogWriter  what the product does
 *
 * `depth` batches are in flight, each of `records` × `size` bytes. Rounds alternate between the ways; medians are printed.
 * Usage: node bench/open-log.ts [folder] [MiB per run] [rounds] [pattern of ways]
 */
import { randomFillSync, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { hostFiles } from '../src/disk/host-files.ts';
import { byteSumChecksum } from '../src/hrl/byte-sum.ts';
import { LogWriter } from '../src/hrl/log-writer.ts';
import type { Files, OpenFile } from '../src/model/ports.ts';

interface Way {
  append(batch: Buffer[]): Promise<unknown>;
  close(): Promise<unknown>;
}

interface Checks {
  sum: boolean;
  crc: boolean;
}

const FIRST_DATA = 8192;
const files: Files = hostFiles;

const totalOf = (batch: readonly Buffer[]): number => batch.reduce((total, { length }) => total + length, 0);

/** As long as a real frame, with the checksums that are asked for. */
function frameOf(batch: readonly Buffer[], checks: Checks): Buffer {
  const frame = Buffer.alloc(64 + 32 * batch.length);
  let crc = 0;
  for (let n = 0; n < batch.length; n++) {
    if (checks.crc) crc = crc32(batch[n]!, crc);
    if (checks.sum) frame.writeUInt32LE(byteSumChecksum(batch[n]!), 64 + 32 * n);
  }
  frame.writeUInt32LE(crc, 60);
  frame.writeUInt32LE(crc32(frame), 4);
  return frame;
}

function dataOnly(log: OpenFile): Way {
  let position = FIRST_DATA;
  return {
    append(batch) {
      const at = position;
      position += totalOf(batch);
      return log.write(batch, at);
    },
    close: () => log.datasync(),
  };
}

function parallel(log: OpenFile, index: OpenFile, checks: Checks): Way {
  let [position, indexPosition] = [FIRST_DATA, 0];
  return {
    append(batch) {
      const [at, indexAt, frame] = [position, indexPosition, frameOf(batch, checks)];
      position += totalOf(batch);
      indexPosition += frame.length;
      return Promise.all([log.write(batch, at), index.write([frame], indexAt)]);
    },
    close: () => log.datasync(),
  };
}

function ordered(log: OpenFile, index: OpenFile, checks: Checks): Way {
  let [position, indexPosition, busy] = [FIRST_DATA, 0, false];
  let waiting: { frame: Buffer; settle: () => void }[] = [];
  const pump = async (): Promise<void> => {
    busy = true;
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      const frames = Buffer.concat(group.map(({ frame }) => frame));
      const at = indexPosition;
      indexPosition += frames.length;
      await index.write([frames], at);
      for (const { settle } of group) settle();
    }
    busy = false;
  };
  return {
    async append(batch) {
      const [at, frame] = [position, frameOf(batch, checks)];
      position += totalOf(batch);
      await log.write(batch, at);
      await new Promise<void>((settle) => {
        waiting.push({ frame, settle });
        if (!busy) void pump();
      });
    },
    close: () => log.datasync(),
  };
}

function journal(log: OpenFile, target: OpenFile, checks: Checks): Way {
  let position = 0;
  return {
    append(batch) {
      const [at, frame] = [position, frameOf(batch, checks)];
      position += frame.length + totalOf(batch);
      return log.write([frame, ...batch], at);
    },
    async close() {
      const window = Buffer.allocUnsafe(1 << 20);
      for (let at = 0; at < position; at += window.length) {
        await target.write([window.subarray(0, await log.read(window, at))], at);
      }
      await target.datasync();
    },
  };
}

async function product(path: string): Promise<Way> {
  const digester = (): { update(data: Uint8Array): void; digest(): Uint8Array } => {
    const hasher = new Blake3Hasher();
    return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
  };
  const about = { uniqueId: randomUUID(), previousUniqueId: null, createdAt: Date.now(), diskSize: 2 ** 40 };
  const log = await LogWriter.create({ files, compute: { digester } }, path, about);
  return {
    async append(batch) {
      const records = batch.map((data, n) => ({ op: 'write' as const, offset: n * data.length, data }));
      const first = await log.append(records, about.createdAt);
      for (let n = 0; n < batch.length; n++) log.finished(first + n);
    },
    close: () => log.close(),
  };
}

const [NONE, SUM] = [{ sum: false, crc: false }, { sum: true, crc: false }];
const WAYS: Record<string, (log: OpenFile, other: OpenFile, path: string) => Way | Promise<Way>> = {
  'data only': dataOnly,
  'ordered': (log, index) => ordered(log, index, NONE),
  'ordered, sum': (log, index) => ordered(log, index, SUM),
  'parallel, sum': (log, index) => parallel(log, index, SUM),
  'parallel, crc': (log, index) => parallel(log, index, { sum: false, crc: true }),
  'parallel, both': (log, index) => parallel(log, index, { sum: true, crc: true }),
  'journal, sum': (log, target) => journal(log, target, SUM),
  'LogWriter': (_log, _other, path) => product(path),
};

interface Load {
  size: number;
  records: number;
  depth: number;
}

interface Sample {
  appendMs: number;
  cpuMs: number;
  closeMs: number;
  p50Us: number;
  p99Us: number;
}

const pool = randomFillSync(Buffer.allocUnsafe(32 << 20));

function batchOf({ size, records }: Load, number: number): Buffer[] {
  return Array.from({ length: records }, (_, n) => {
    const at = (((number * records + n) * size) % (pool.length - size)) & ~4095;
    return pool.subarray(at, at + size);
  });
}

async function run(folder: string, name: string, load: Load, batches: number): Promise<Sample> {
  const paths = ['log', 'other', 'product', 'product.index'].map((one) => join(folder, `bench-${process.pid}.${one}`));
  const [log, other] = [await files.open(paths[0]!, 'create'), await files.open(paths[1]!, 'create')];
  const way = await WAYS[name]!(log, other, paths[2]!);
  const latencies = new Float64Array(batches);
  let next = 0;
  const [cpu, start] = [process.cpuUsage(), performance.now()];
  await Promise.all(Array.from({ length: load.depth }, async () => {
    while (next < batches) {
      const number = next++;
      const from = performance.now();
      await way.append(batchOf(load, number));
      latencies[number] = performance.now() - from;
    }
  }));
  const [used, ended] = [process.cpuUsage(cpu), performance.now()];
  await way.close();
  const closeMs = performance.now() - ended;
  await Promise.all([log.close(), other.close()]);
  for (const path of paths) rmSync(path, { force: true });
  latencies.sort();
  const quantile = (q: number): number => latencies[Math.floor((batches - 1) * q)]! * 1000;
  const cpuMs = (used.user + used.system) / 1000;
  return { appendMs: ended - start, cpuMs, closeMs, p50Us: quantile(0.5), p99Us: quantile(0.99) };
}

function row(name: string, { size, records, depth }: Load, batches: number, samples: readonly Sample[]): string {
  const median = (pick: (sample: Sample) => number): number =>
    samples.map(pick).sort((a, b) => a - b)[samples.length >> 1]!;
  const kilobytes = (batches * size * records) / 1000;
  const numbers = [
    kilobytes / median((sample) => sample.appendMs), (median((sample) => sample.cpuMs) * 1000) / batches,
    median((sample) => sample.p50Us), median((sample) => sample.p99Us), median((sample) => sample.closeMs),
    kilobytes / median((sample) => sample.appendMs + sample.closeMs),
  ];
  const cells = numbers.map((value) => value.toFixed(0).padStart(7));
  return `| ${size >> 10} KiB × ${records}, ${depth} in flight | ${name.padEnd(14)} | ${cells.join(' | ')} |`;
}

const folder = process.argv[2] ?? tmpdir();
const total = Number(process.argv[3] ?? 128) << 20;
const rounds = Number(process.argv[4] ?? 5);
const pattern = new RegExp(process.argv[5] ?? '');
const LOADS: Load[] = [
  { size: 4096, records: 1, depth: 1 }, { size: 4096, records: 16, depth: 1 }, { size: 4096, records: 16, depth: 4 },
  { size: 65_536, records: 1, depth: 1 }, { size: 65_536, records: 4, depth: 4 },
];

console.log(`${total >> 20} MiB per run in ${folder}, ${rounds} rounds, medians, Node ${process.version}\n`);
console.log('| batches | way | MB/s | CPU µs/batch | p50 µs | p99 µs | close ms | MB/s with close |');
console.log('|---|---|---|---|---|---|---|---|');
for (const load of LOADS) {
  // One append per record costs a system call each: a quarter of the bytes is enough.
  const batches = Math.ceil((load.size * load.records <= 4096 ? total / 4 : total) / (load.size * load.records));
  const samples = new Map(Object.keys(WAYS).filter((name) => pattern.test(name)).map((name) => [name, [] as Sample[]]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, taken] of samples) taken.push(await run(folder, name, load, batches));
  }
  for (const [name, taken] of samples) console.log(row(name, load, batches, taken));
}
