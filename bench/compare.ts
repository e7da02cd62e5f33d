/**
 * How fast are two nearly equal disks compared and made equal, and what crosses the wire? One run makes the images of
 * the recipe (58 % random data in runs of 8 to 64 MiB, the rest holes, fixed seed), measures `b3sum` and `rsync` on
 * them, then the compare engine with both sides in one process, and prints ratios. Warm page cache, no fsync asked of
 * the others.
 *
 * usage: node bench/compare.ts [--gib 4] [--rounds 3] [--folder DIR] [--json]
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { constants, zstdCompressSync } from 'node:zlib';
import { openRawDisk } from '../src/disk/raw-disk.ts';
import { hostCompute } from '../src/resync/compare/host-compute.ts';
import { compareLocal, syncLocal } from '../src/resync/compare/local.ts';

const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '3' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const size = Math.round(Number(values.gib) * 2 ** 30);
const rounds = Number(values.rounds);
const MIB = 2 ** 20;

function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Bytes that do not compress, cheap to make: a xorshift stream. */
function fillNoise(into: Uint32Array, random: () => number): void {
  let x = (random() * 2 ** 32) | 1;
  for (let at = 0; at < into.length; at++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    into[at] = x;
  }
}

/** Returns the runs of data as MiB pairs. */
function makeImage(path: string): [first: number, count: number][] {
  const random = randomFrom(20261123);
  const file = openSync(path, 'w');
  ftruncateSync(file, size);
  const words = new Uint32Array(MIB / 4);
  const runs: [number, number][] = [];
  for (let at = 0; at < size / MIB;) {
    const data = Math.min(size / MIB - at, 8 + Math.floor(random() * 57));
    runs.push([at, data]);
    for (let end = at + data; at < end; at++) {
      fillNoise(words, random);
      writeSync(file, Buffer.from(words.buffer), 0, MIB, at * MIB);
    }
    at += Math.floor((data * 0.42) / 0.58);
  }
  closeSync(file);
  return runs;
}

interface Difference {
  name: string;
  count: number;
  bytes: number;
}

const DIFFERENCES: readonly Difference[] = [
  { name: 'equal', count: 0, bytes: 4096 },
  { name: '0.1 %, 4 KiB scattered', count: Math.round(1048 * (size / 2 ** 32)), bytes: 4096 },
  { name: '1 %, 4 KiB scattered', count: Math.round(10485 * (size / 2 ** 32)), bytes: 4096 },
  { name: '10 %, 64 KiB runs', count: Math.round(6553 * (size / 2 ** 32)), bytes: 65536 },
];

/** Overwrites distinct aligned pieces inside of the data with new noise; returns how many bytes differ. */
function makeDifferent(path: string, runs: readonly [number, number][], { count, bytes }: Difference): number {
  const random = randomFrom(7 + count);
  const file = openSync(path, 'r+');
  const done = new Set<number>();
  const words = new Uint32Array(bytes / 4);
  while (done.size < count) {
    const [first, length] = runs[Math.floor(random() * runs.length)]!;
    const offset = first * MIB + Math.floor((random() * length * MIB) / bytes) * bytes;
    if (done.has(offset)) continue;
    done.add(offset);
    fillNoise(words, random);
    writeSync(file, Buffer.from(words.buffer), 0, bytes, offset);
  }
  closeSync(file);
  return count * bytes;
}

/** Level 1 over all differing pages of the source in one stream: what the wire is measured against. */
function zstdOfDifferences(source: string, target: string): number {
  const [a, b] = [openSync(source, 'r'), openSync(target, 'r')];
  const [left, right] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  const pages: Buffer[] = [];
  for (let at = 0; at < size; at += MIB) {
    readSync(a, left, 0, MIB, at);
    readSync(b, right, 0, MIB, at);
    if (left.equals(right)) continue;
    for (let page = 0; page < MIB; page += 4096) {
      if (left.compare(right, page, page + 4096, page, page + 4096) !== 0)
        pages.push(Buffer.from(left.subarray(page, page + 4096)));
    }
  }
  closeSync(a);
  closeSync(b);
  const level = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
  return pages.length === 0 ? 0 : zstdCompressSync(Buffer.concat(pages), level).length;
}

const median = (samples: number[]): number => samples.sort((a, b) => a - b)[Math.floor(samples.length / 2)]!;

async function timed(work: () => Promise<void> | void): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

async function main(): Promise<void> {
  const folder = mkdtempSync(join(values.folder, 'understudy-bench-'));
  const [source, target] = [join(folder, 'source.img'), join(folder, 'target.img')];
  const rows: Record<string, number | string | null>[] = [];
  try {
    const runs = makeImage(source);
    for (const difference of DIFFERENCES) {
      rows.push(await measure(source, target, runs, difference));
      if (values.json !== true) console.log(rows.at(-1));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (values.json === true) console.log(JSON.stringify({ size, rows }));
}

async function measure(source: string, target: string, runs: readonly [number, number][], difference: Difference) {
  const compute = hostCompute();
  const remake = () => {
    execFileSync('cp', ['--sparse=always', source, target]);
    return makeDifferent(target, runs, difference);
  };
  const differing = remake();
  const zstd = zstdOfDifferences(source, target);
  const samples = { b3sum: [] as number[], rsync: [] as number[], compare: [] as number[], sync: [] as number[] };
  let wire = 0;
  for (let round = 0; round < rounds; round++) {
    if (has('b3sum')) samples.b3sum.push(await timed(() => void execFileSync('b3sum', [source, target])));
    samples.compare.push(
      await timed(async () => {
        const [a, b] = await Promise.all(
          [source, target].map((path) => openRawDisk(path, { readOnly: true, lock: false })),
        );
        const result = await compareLocal(a!, b!, { compute });
        assert.equal(result.differingBytes, differing);
        await Promise.all([a!.close(), b!.close()]);
      }),
    );
    samples.sync.push(
      await timed(async () => {
        const a = await openRawDisk(source, { readOnly: true, lock: false });
        const b = await openRawDisk(target, { readOnly: false, lock: false });
        const result = await syncLocal(a, b, { compute });
        assert.equal(result.differingBytes, differing);
        wire = result.wireBytes;
        await Promise.all([a.close(), b.close()]);
      }),
    );
    execFileSync('cmp', [source, target]);
    makeDifferent(target, runs, difference);
    if (has('rsync')) {
      const rsync = ['-I', '--inplace', '--no-whole-file', source, target];
      samples.rsync.push(await timed(() => void execFileSync('rsync', rsync)));
      makeDifferent(target, runs, difference);
    }
  }
  const seconds = Object.fromEntries(
    Object.entries(samples).map(([name, taken]) => [name, taken.length === 0 ? null : median(taken)]),
  );
  const ratio = (value: number | null, to: number | null) =>
    value === null || to === null ? null : Number((value / to).toFixed(3));
  return {
    difference: difference.name,
    b3sumSeconds: ratio(seconds.b3sum!, 1),
    rsyncSeconds: ratio(seconds.rsync!, 1),
    compareSeconds: ratio(seconds.compare!, 1),
    syncSeconds: ratio(seconds.sync!, 1),
    compareToB3sum: ratio(seconds.compare!, seconds.b3sum!),
    syncToB3sum: ratio(seconds.sync!, seconds.b3sum!),
    syncToRsync: ratio(seconds.sync!, seconds.rsync!),
    wireBytes: wire,
    zstdBytes: zstd,
    wireToZstd: ratio(Math.max(0, wire - 65536), zstd === 0 ? null : zstd),
  };
}

await main();
