/**
 * What the tests of this folder share: two disks, two sides, a link between them that can be watched, cut and damaged.
 */
import { duplexPair } from 'node:stream';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { MemoryDisk } from '../../disk/memory-disk.ts';
import type { Extent, Seal, VirtualDisk } from '../../disk/virtual-disk.ts';
import type { Compute } from '../../model/ports.ts';
import { type Frame, type FrameChannel, StreamChannel, linkLost } from './frame-channel.ts';
import type { CompareResult } from './frames.ts';
import { hostCompute } from './host-compute.ts';
import type { SourceOptions, TargetOptions } from './options.ts';
import { runSource } from './source.ts';
import { runTarget } from './target.ts';
import type { TreeShape } from './tree-shape.ts';

/** Segments of 2 MiB, so that small disks have many. */
export const SMALL: TreeShape = { leafBytes: 32 * 1024, segmentNodes: 1 };
export const PAGE = 4096;

/** No threads, so that every run of a seed is the same run. */
export const syncCompute: Compute = {
  ...hostCompute(),
  async compress(data) {
    const shrunk = zstdCompressSync(data, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
    return shrunk.length < data.length * 0.95 ? shrunk : null;
  },
  async decompress(data, maxBytes) {
    return zstdDecompressSync(data, { maxOutputLength: Math.max(1, maxBytes) });
  },
};

export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

export function noise(random: (below: number) => number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = random(256);
  return bytes;
}

/** Delegates, so that a test overrides the one operation it is about. */
export class DiskUnderTest implements VirtualDisk {
  readonly inside: MemoryDisk;
  readonly logicalSectorSize: number;
  readonly format = 'raw';
  readonly variant = 'fixed';
  readonly physicalSectorSize = 4096;
  readonly geometry = null;
  readonly discardReadsZero = true;
  readonly readOnly: boolean;
  reads = 0;
  flushes = 0;
  readonly written: { offset: number; length: number }[] = [];

  constructor(inside: MemoryDisk, { logicalSectorSize = 512, readOnly = false } = {}) {
    this.inside = inside;
    this.logicalSectorSize = logicalSectorSize;
    this.readOnly = readOnly;
  }

  get location(): string {
    return this.inside.location;
  }

  get virtualSize(): number {
    return this.inside.virtualSize;
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    this.reads++;
    return this.inside.read(into, offset);
  }

  write(from: Uint8Array, offset: number): Promise<void> {
    this.written.push({ offset, length: from.length });
    return this.inside.write(from, offset);
  }

  zero(offset: number, length: number): Promise<void> {
    this.written.push({ offset, length });
    return this.inside.zero(offset, length);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.zero(offset, length);
  }

  async flush(): Promise<void> {
    this.flushes++;
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    return this.inside.extents(offset, length);
  }

  seal(): Promise<Seal> {
    return this.inside.seal();
  }

  close(): Promise<void> {
    return this.inside.close();
  }
}

export async function contents(disk: VirtualDisk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.virtualSize);
  await disk.read(bytes, 0);
  return bytes;
}

/** Equal bytes before `end`; reads only what either disk stores. */
export async function sameData(a: VirtualDisk, b: VirtualDisk, end: number): Promise<boolean> {
  for (const disk of [a, b]) {
    for await (const { kind, offset, length } of disk.extents(0, end)) {
      if (kind === 'zero') continue;
      const [left, right] = [Buffer.alloc(length), Buffer.alloc(length)];
      await a.read(left, offset);
      await b.read(right, offset);
      if (!left.equals(right)) return false;
    }
  }
  return true;
}

/** By brute force: what a compare has to find. */
export function differences(a: Buffer, b: Buffer): { pages: number[]; first: number | null } {
  const pages: number[] = [];
  for (let at = 0; at < a.length; at += PAGE)
    if (!a.subarray(at, at + PAGE).equals(b.subarray(at, at + PAGE))) pages.push(at / PAGE);
  const first =
    pages[0] === undefined
      ? null
      : a.subarray(pages[0] * PAGE).findIndex((value, at) => value !== b[pages[0]! * PAGE + at]);
  return { pages, first: first === null ? null : pages[0]! * PAGE + first };
}

/** Two disks with holes, data, zero data over holes, and differences from one byte to whole megabytes. */
export async function randomDisks(
  seed: number,
  sizeMax = 6 * 2 ** 20,
): Promise<{ source: DiskUnderTest; target: DiskUnderTest }> {
  const random = randomFrom(seed);
  const size = 512 * (1 + random(sizeMax / 512));
  const [source, target] = [new MemoryDisk(size), new MemoryDisk(size)];
  const piece = (max: number) => {
    const offset = random(size);
    return { offset, length: 1 + random(Math.min(max, size - offset)) };
  };
  for (let count = random(12); count > 0; count--) {
    const { offset, length } = piece(512 * 1024);
    const bytes = Buffer.alloc(length, noise(random, 1 + random(5000)));
    await source.write(bytes, offset);
    await target.write(bytes, offset);
  }
  for (let count = random(10); count > 0; count--) {
    const { offset, length } = piece([1, 4096, 65536, 2 ** 20][random(4)]!);
    const disk = [source, target][random(2)]!;
    const kind = random(4);
    if (kind === 0) await disk.zero(offset, length);
    else if (kind === 1) await disk.write(Buffer.alloc(length), offset);
    else await disk.write(Buffer.alloc(length, noise(random, 1 + random(5000))), offset);
  }
  return { source: new DiskUnderTest(source), target: new DiskUnderTest(target) };
}

/** Sees every frame of one side in both directions; may change what is sent, or cut the link. */
export class WatchedChannel implements FrameChannel {
  readonly #inside: FrameChannel;
  /** Frames by type. */
  readonly seen = new Map<number, number>();
  frames = 0;
  onFrame: (number: number) => void = () => {};
  change: (type: number, parts: readonly Uint8Array[]) => { type: number; parts: readonly Uint8Array[] } = (
    type,
    parts,
  ) => ({ type, parts });
  /** Awaited before a received frame is handed on. */
  hold: (type: number) => Promise<void> | void = () => {};

  constructor(inside: FrameChannel) {
    this.#inside = inside;
  }

  get wireBytes(): number {
    return this.#inside.wireBytes;
  }

  async send(type: number, parts: readonly Uint8Array[]): Promise<void> {
    this.#note(type);
    const changed = this.change(type, parts);
    await this.#inside.send(changed.type, changed.parts);
  }

  async receive(): Promise<Frame | null> {
    const frame = await this.#inside.receive();
    if (frame !== null) {
      await this.hold(frame.type);
      this.#note(frame.type);
    }
    return frame;
  }

  close(reason: Error, last: Parameters<FrameChannel['close']>[1]): Promise<void> {
    return this.#inside.close(reason, last);
  }

  cut(): void {
    void this.#inside.close(linkLost('cut by the test'), null);
  }

  #note(type: number): void {
    this.seen.set(type, (this.seen.get(type) ?? 0) + 1);
    this.onFrame(this.frames++);
  }
}

export interface Pair {
  near: WatchedChannel;
  far: WatchedChannel;
  outcome: Promise<{ source: PromiseSettledResult<CompareResult>; target: PromiseSettledResult<CompareResult> }>;
}

export interface PairOptions {
  source: VirtualDisk;
  target: VirtualDisk;
  mode?: 'mend' | 'compare-only';
  sourceOptions?: Partial<SourceOptions>;
  targetOptions?: Partial<TargetOptions>;
  link?: () => [StreamChannel, StreamChannel];
  prepare?: (near: WatchedChannel, far: WatchedChannel) => void;
}

export function plainLink(): [StreamChannel, StreamChannel] {
  const [a, b] = duplexPair();
  return [new StreamChannel(a, a, syncCompute), new StreamChannel(b, b, syncCompute)];
}

/** Starts both sides, each in this thread. */
export function startPair({
  source,
  target,
  mode = 'mend',
  sourceOptions,
  targetOptions,
  link = plainLink,
  prepare,
}: PairOptions): Pair {
  const [a, b] = link();
  const [near, far] = [new WatchedChannel(a), new WatchedChannel(b)];
  prepare?.(near, far);
  const outcome = Promise.allSettled([
    runSource(near, { disk: source, mode, compute: syncCompute, shape: SMALL, ...sourceOptions }),
    runTarget(far, { base: target, target, allow: mode, compute: syncCompute, ...targetOptions }),
  ]).then(([sourceEnd, targetEnd]) => ({ source: sourceEnd, target: targetEnd }));
  return { near, far, outcome };
}

/** Both results, or the source's error. */
export async function runPair(
  options: PairOptions,
): Promise<{ source: CompareResult; target: CompareResult; near: WatchedChannel }> {
  const pair = startPair(options);
  const { source, target } = await pair.outcome;
  if (source.status === 'rejected') throw source.reason;
  if (target.status === 'rejected') throw target.reason;
  return { source: source.value, target: target.value, near: pair.near };
}
