/** Disk images of the recipe that the compare benches share: 58 % random data in runs of 8 to 64 MiB, the rest holes, fixed seed. */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { constants, zstdCompressSync } from 'node:zlib';

const MIB = 2 ** 20;
const PAGE = 4096;

/** First MiB and count of each run of data. */
export type Runs = [first: number, count: number][];

export interface Difference {
  name: string;
  count: number;
  bytes: number;
}

/** For a disk of `size` bytes. */
export const differences = (size: number): Difference[] => [
  { name: 'equal', count: 0, bytes: PAGE },
  { name: '0.1 %, 4 KiB scattered', count: Math.round(1048 * (size / 2 ** 32)), bytes: PAGE },
  { name: '1 %, 4 KiB scattered', count: Math.round(10485 * (size / 2 ** 32)), bytes: PAGE },
  { name: '10 %, 64 KiB runs', count: Math.round(6553 * (size / 2 ** 32)), bytes: 16 * PAGE },
];

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

/** `share` of the disk is data. */
export function makeImage(path: string, size: number, share = 0.58): Runs {
  const random = randomFrom(20261123);
  const file = openSync(path, 'w');
  ftruncateSync(file, size);
  const words = new Uint32Array(MIB / 4);
  const runs: Runs = [];
  for (let at = 0; at < size / MIB;) {
    const data = Math.min(size / MIB - at, 8 + Math.floor(random() * 57));
    runs.push([at, data]);
    for (let end = at + data; at < end; at++) {
      fillNoise(words, random);
      writeSync(file, Buffer.from(words.buffer), 0, MIB, at * MIB);
    }
    at += Math.floor((data * (1 - share)) / share);
  }
  closeSync(file);
  return runs;
}

/** Distinct aligned pieces inside of the data, and new noise for each; another `seed`, other ones. */
export function* changes(runs: Runs, { count, bytes }: Difference, seed = 7): Generator<{ offset: number; data: Buffer }> {
  const random = randomFrom(seed + count);
  const done = new Set<number>();
  while (done.size < count) {
    const [first, length] = runs[Math.floor(random() * runs.length)]!;
    const offset = first * MIB + Math.floor((random() * length * MIB) / bytes) * bytes;
    if (done.has(offset)) continue;
    done.add(offset);
    const words = new Uint32Array(bytes / 4);
    fillNoise(words, random);
    yield { offset, data: Buffer.from(words.buffer) };
  }
}

/** Overwrites pieces of the file; returns how many bytes differ then. */
export function makeDifferent(path: string, runs: Runs, difference: Difference): number {
  const file = openSync(path, 'r+');
  for (const { offset, data } of changes(runs, difference)) writeSync(file, data, 0, data.length, offset);
  closeSync(file);
  return difference.count * difference.bytes;
}

/** Level 1 over all differing pages of the source in one stream: what the wire is measured against. */
export function zstdOfDifferences(source: string, target: string, size: number): number {
  const [a, b] = [openSync(source, 'r'), openSync(target, 'r')];
  const [left, right] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  const pages: Buffer[] = [];
  for (let at = 0; at < size; at += MIB) {
    readSync(a, left, 0, MIB, at);
    readSync(b, right, 0, MIB, at);
    if (left.equals(right)) continue;
    for (let page = 0; page < MIB; page += PAGE) {
      if (left.compare(right, page, page + PAGE, page, page + PAGE) !== 0) pages.push(Buffer.from(left.subarray(page, page + PAGE)));
    }
  }
  closeSync(a);
  closeSync(b);
  const level = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
  return pages.length === 0 ? 0 : zstdCompressSync(Buffer.concat(pages), level).length;
}
