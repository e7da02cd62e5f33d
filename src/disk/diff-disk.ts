/**
 * A diff disk over any base: what is written goes into it, the base stays as it is, and reading sees the two as one disk.
 *
 * Two files. `PATH` holds the pages at their guest offsets and is sparse elsewhere; `PATH.map` says which 4 KiB pages are here.
 *
 * Invariants
 * - The base is never written; only `merge` does that, through the caller's disk.
 * - A bit of the map is written only after the page it speaks of has been synced: after a crash every bit is true, and a
 *   page without one counts as never written. Whoever writes keeps a cursor that does not pass the last `flush`.
 * - Bits are only ever set, so a torn page of the map mixes two true versions.
 *
 * Byte table: docs/formats/diff-disk.md.
 */
import { crc32 } from 'node:zlib';
import { DiskOverBase } from './disk-over-base.ts';
import { assertInside, type Extent, type LentRuns, type Seal, type VirtualDisk } from './virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import { LiveMap, liveMapPath, readBits } from './live-map.ts';
import { BLOCK_BYTES, PageBits } from './page-bits.ts';
import type { Clock, Files, OpenFile } from '../model/ports.ts';
import { settleAll } from '../model/settle-all.ts';
import { isZero } from '../model/zero-bytes.ts';
import { promptWrites } from './prompt-writes.ts';

const MAGIC = 'UNDSTDIF';
const VERSION = 1;
export const PAGE_BYTES = 4096;
const HEADER_BYTES = 4096;
const COPY_BYTES = 1 << 20;
/** Of a merge at once: enough to hide what a system call on another thread costs. */
const PIECES_AT_ONCE = 8;

export interface DiffDisk extends VirtualDisk {
  /** Bytes that the diff disk holds. */
  readonly heldBytes: number;
  /** What it holds of the range and what it does not, in order; stretches of whole pages but at the ends of the range. */
  runs(offset: number, length: number): Iterable<DiffRun> | AsyncIterable<DiffRun>;
  /**
   * Copies everything held into the base's place, in order; may be repeated. Flushes `into` at the end. The base is open for writing, and
   * `into` is it, or writes through it.
   */
  merge(into: MergeTarget, options: MergeRun): Promise<void>;
}

export interface DiffRun {
  offset: number;
  length: number;
  held: boolean;
}

export interface MergeRun {
  signal?: AbortSignal;
  onProgress?: (mergedBytes: number) => void;
  /** Runs each change of base and diff disk; who opens them meanwhile does it between two of these. Default: at once. */
  exclusive?: (work: () => Promise<void>) => Promise<void>;
  /** With it most writes are made on this thread, see prompt-writes.ts. */
  clock?: Pick<Clock, 'monotonic'>;
}

/** The plain one: which pages it holds is in memory. */
export interface PageDiffDisk extends DiffDisk {
  runs(offset: number, length: number): Iterable<DiffRun>;
}

export type MergeTarget = Pick<VirtualDisk, 'write' | 'writeNow' | 'zero' | 'flush'>;

/**
 * Opens the diff disk at `path`, or makes an empty one. The base must have the same size as when it was made; it belongs to the
 * diff disk from here on and is closed with it. `mustExist`: what it holds counts already, so one that is gone is an error
 * (DIFF_DISK_MISSING); an empty one in its place would silently read as the base. With a boot id, what was written survives the
 * death of this process also where nobody has asked for a flush: for a guest, which keeps no cursor.
 */
export async function openDiffDisk(
  files: Files, path: string, base: VirtualDisk, { mustExist = false, bootId }: { mustExist?: boolean; bootId?: string } = {},
): Promise<PageDiffDisk> {
  const mapPath = `${path}.map`;
  const bits = new PageBits();
  const exists = (await files.stat(mapPath)) !== null;
  if (mustExist && (!exists || (await files.stat(path)) === null)) {
    throw diffDiskMissing(path);
  }
  if (exists) await readMap(files, mapPath, base.virtualSize, bits);
  else await makeFiles(files, path, base.virtualSize);
  const kept = bootId === undefined ? null : await LiveMap.open(files, liveMapPath(path), bootId, bits);
  const opened = new PlainDiffDisk(base, await files.open(path, 'write'), await files.open(mapPath, 'write'), bits);
  if (kept !== null) opened.keepLive(kept.live, kept.found);
  return opened;
}

export const diffDiskMissing = (path: string): UnderstudyError => new UnderstudyError('io', 'DIFF_DISK_MISSING',
  `the diff disk ${path} is gone, and with it what it held`, 'Resynchronize the VM from the start.');

/** In whichever form it is. */
export async function removeDiffDisk(files: Files, path: string): Promise<void> {
  for (const end of ['.avhd', '.avhdx']) {
    await files.remove(`${path}${end}`);
    await files.remove(`${path}${end}.new`);
  }
  await files.remove(`${path}.map`);
  await files.remove(liveMapPath(path));
  await files.remove(path);
}

/** Bytes of the bits in the map. */
const mapBytes = (size: number): number => Math.ceil(Math.ceil(size / PAGE_BYTES) / 8);

async function makeFiles(files: Files, path: string, size: number): Promise<void> {
  // Pages of an attempt that never got its map, and bits of one before.
  await files.remove(liveMapPath(path));
  await files.remove(path);
  const pages = await files.open(path, 'create');
  await pages.truncate(size);
  await pages.datasync();
  await pages.close();
  const fresh = `${path}.map.new`;
  await files.remove(fresh);
  const map = await files.open(fresh, 'create');
  await map.write([encodeHeader(size)], 0);
  await map.truncate(HEADER_BYTES + mapBytes(size));
  await map.datasync();
  await map.close();
  await files.rename(fresh, `${path}.map`);
  await files.syncFolder(path.slice(0, path.lastIndexOf('/')));
}

async function readMap(files: Files, path: string, size: number, bits: PageBits): Promise<void> {
  const map = await files.open(path, 'read');
  const header = new Uint8Array(HEADER_BYTES);
  const whole = (await map.read(header, 0)) === HEADER_BYTES && (await map.size()) >= HEADER_BYTES + mapBytes(size);
  await readBits(map, mapBytes(size), (block, bytes) => bits.join(block, bytes));
  await map.close();
  const defect = whole ? headerDefect(header, size) : 'it is cut';
  if (defect === null) return;
  throw new UnderstudyError('io', 'DIFF_DISK_DAMAGED', `the map ${path} of a diff disk cannot be used: ${defect}`,
    'Cancel the resynchronization and start it again: the base is untouched.');
}

class PlainDiffDisk extends DiskOverBase implements PageDiffDisk {
  readonly readOnly = false;
  readonly discardReadsZero = true;
  readonly lend?: (offset: number, length: number) => Promise<LentRuns>;
  readonly lentFiles?: readonly string[];
  #base: VirtualDisk;
  #pages: OpenFile;
  #map: OpenFile;
  #bits: PageBits;
  /** Blocks of the bits with some that were set since the last flush; durable with the next one. */
  #fresh = new Set<number>();
  #flushing: Promise<void> = Promise.resolve();
  #live: LiveMap | null = null;
  /** Writers of partial pages take turns per page, since they read the rest of it first. */
  #partial = new Map<number, Promise<void>>();

  constructor(base: VirtualDisk, pages: OpenFile, map: OpenFile, bits: PageBits) {
    super(base, { location: pages.path });
    this.#base = base;
    this.#pages = pages;
    this.#map = map;
    this.#bits = bits;
    if (base.format !== 'raw' || base.variant !== 'fixed') return;
    this.lentFiles = [base.location, pages.path];
    this.lend = (from, length) => Promise.resolve({ runs: this.#places(from, length), release: () => {} });
  }

  /** `found`: blocks of the bits of which only the live map had some; durable with the next flush. */
  keepLive(live: LiveMap, found: readonly number[]): void {
    this.#live = live;
    for (const block of found) this.#fresh.add(block);
  }

  get heldBytes(): number {
    return this.#bits.held * PAGE_BYTES;
  }

  readNow(into: Uint8Array, offset: number): boolean {
    assertInside(this, offset, into.length);
    for (const run of this.runs(offset, into.length)) {
      const from = run.held ? this.#pages : this.#base;
      if (from.readNow?.(into.subarray(run.offset - offset, run.offset - offset + run.length), run.offset) !== true) return false;
    }
    return true;
  }

  /** Whole pages, where no guest waits for their bits. */
  writeNow(from: Uint8Array, offset: number): boolean {
    assertInside(this, offset, from.length);
    const end = offset + from.length;
    const isWhole = offset % PAGE_BYTES === 0 && (end % PAGE_BYTES === 0 || end === this.virtualSize);
    if (!isWhole || this.#live !== null || this.#pages.writeNow?.(from, offset) !== true) return false;
    void this.#hold(offset, end);
    return true;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    for (const run of this.runs(offset, into.length)) {
      const part = into.subarray(run.offset - offset, run.offset - offset + run.length);
      if (run.held) await readFully(this.#pages, part, run.offset);
      else await this.#base.read(part, run.offset);
    }
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, from.length);
    const end = offset + from.length;
    const firstWhole = Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES;
    // The last page of a disk may be short; written to its end it counts as whole.
    const lastWhole = end === this.virtualSize ? end : Math.floor(end / PAGE_BYTES) * PAGE_BYTES;
    if (firstWhole >= lastWhole) {
      for (let at = offset; at < end; at = pageEnd(at)) await this.#writePartial(from.subarray(at - offset, pageEnd(at) - offset), at);
      return;
    }
    if (offset < firstWhole) await this.#writePartial(from.subarray(0, firstWhole - offset), offset);
    await this.#pages.write([from.subarray(firstWhole - offset, lastWhole - offset)], firstWhole);
    await this.#hold(firstWhole, lastWhole);
    if (lastWhole < end) await this.#writePartial(from.subarray(lastWhole - offset), lastWhole);
  }

  async zero(offset: number, length: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(length, COPY_BYTES));
    for (let done = 0; done < length; done += zeroes.length) {
      await this.write(zeroes.subarray(0, Math.min(zeroes.length, length - done)), offset + done);
    }
  }

  discard(offset: number, length: number): Promise<void> {
    return this.zero(offset, length);
  }

  flush(): Promise<void> {
    const next = this.#flushing.then(() => this.#flushNow());
    this.#flushing = next.catch(() => undefined);
    return next;
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertInside(this, offset, length);
    for (const run of this.runs(offset, length)) {
      if (run.held) yield { offset: run.offset, length: run.length, kind: 'data' };
      else yield* this.#base.extents(run.offset, run.length);
    }
  }

  async seal(): Promise<Seal> {
    return { kind: 'none', reason: 'a diff disk changes while it is used' };
  }

  async close(): Promise<void> {
    await this.#flushing;
    await this.#pages.close();
    await this.#map.close();
    await this.#live?.close();
    await this.#base.close();
  }

  async merge(into: MergeTarget, options: MergeRun): Promise<void> {
    const { exclusive = (work) => work(), clock, signal, onProgress } = options;
    const writeNow = clock === undefined ? () => false : promptWrites(into, clock);
    const write = async ({ offset, data }: Piece, index: number): Promise<void> => {
      if (isZero(data)) await into.zero(offset, data.length);
      // The first always by the thread pool: the server lives meanwhile.
      else if (index === 0 || !writeNow(data, offset)) await into.write(data, offset);
    };
    let merged = 0;
    for (const pieces of this.#pieces(new Uint8Array(COPY_BYTES))) {
      signal?.throwIfAborted();
      await settleAll(pieces.map(async ({ offset, data }) => {
        if (this.#pages.readNow?.(data, offset) !== true) await readFully(this.#pages, data, offset);
      }));
      await exclusive(() => settleAll(pieces.map(write)));
      for (const { data } of pieces) merged += data.length;
      onProgress?.(merged);
    }
    await exclusive(() => into.flush());
  }

  /** All that is held, in order, a few pieces at a time; their data goes into the same memory each time. */
  *#pieces(memory: Uint8Array): Generator<Piece[]> {
    let pieces: Piece[] = [];
    let filled = 0;
    for (const run of this.runs(0, this.virtualSize)) {
      if (!run.held) continue;
      for (let done = 0; done < run.length; ) {
        const length = Math.min(memory.length - filled, run.length - done);
        pieces.push({ offset: run.offset + done, data: memory.subarray(filled, filled + length) });
        [filled, done] = [filled + length, done + length];
        if (filled < memory.length && pieces.length < PIECES_AT_ONCE) continue;
        yield pieces;
        [pieces, filled] = [[], 0];
      }
    }
    if (pieces.length > 0) yield pieces;
  }

  #places(offset: number, length: number): LentRuns['runs'] {
    assertInside(this, offset, length);
    return [...this.runs(offset, length)].map((run) =>
      ({ offset: run.offset, length: run.length, file: run.held ? 1 : 0, position: run.offset }));
  }

  async #writePartial(from: Uint8Array, offset: number): Promise<void> {
    const page = Math.floor(offset / PAGE_BYTES);
    const before = this.#partial.get(page) ?? Promise.resolve();
    const turn = before.then(() => this.#mixPage(page, from, offset));
    const settled = turn.catch(() => undefined);
    this.#partial.set(page, settled);
    await turn;
    if (this.#partial.get(page) === settled) this.#partial.delete(page);
  }

  async #mixPage(page: number, from: Uint8Array, offset: number): Promise<void> {
    if (this.#bits.has(page)) return this.#pages.write([from], offset);
    const start = page * PAGE_BYTES;
    const whole = new Uint8Array(Math.min(PAGE_BYTES, this.virtualSize - start));
    await this.#base.read(whole, start);
    whole.set(from, offset - start);
    await this.#pages.write([whole], start);
    await this.#hold(start, start + whole.length);
  }

  /** Null when nothing has to be waited for. */
  #hold(from: number, to: number): Promise<void> | null {
    const added = new Set<number>();
    for (let page = from / PAGE_BYTES; page * PAGE_BYTES < to; page++) {
      if (!this.#bits.add(page)) continue;
      const block = Math.floor(page / (8 * BLOCK_BYTES));
      this.#fresh.add(block);
      added.add(block);
    }
    return added.size === 0 || this.#live === null ? null : this.#live.note(added);
  }

  async #flushNow(): Promise<void> {
    // What is set while the pages are synced waits for the next flush.
    const image = [...this.#fresh].sort((a, b) => a - b).map((block) => [block, this.#bits.copy(block)] as const);
    this.#fresh.clear();
    const most = mapBytes(this.virtualSize);
    try {
      await this.#pages.datasync();
      for (const [block, bits] of image) {
        const at = block * BLOCK_BYTES;
        await this.#map.write([bits.subarray(0, most - at)], HEADER_BYTES + at);
      }
      await this.#map.datasync();
    } catch (error) {
      for (const [block] of image) this.#fresh.add(block);
      throw error;
    }
  }

  *runs(offset: number, length: number): Generator<{ offset: number; length: number; held: boolean }> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const page = Math.floor(at / PAGE_BYTES);
      const held = this.#bits.has(page);
      const to = Math.min(end, this.#bits.until(page, Math.ceil(end / PAGE_BYTES)) * PAGE_BYTES);
      yield { offset: at, length: to - at, held };
      at = to;
    }
  }
}

interface Piece {
  offset: number;
  data: Uint8Array;
}

const pageEnd = (offset: number): number => (Math.floor(offset / PAGE_BYTES) + 1) * PAGE_BYTES;

async function readFully(file: OpenFile, into: Uint8Array, position: number): Promise<void> {
  if ((await file.read(into, position)) === into.length) return;
  throw Object.assign(new Error(`${file.path} is shorter than its map says`), { code: 'EIO' });
}

function encodeHeader(size: number): Uint8Array {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(PAGE_BYTES, 12);
  header.writeBigUInt64LE(BigInt(size), 16);
  header.writeUInt32LE(crc32(header.subarray(0, 24)), 24);
  return header;
}

function headerDefect(bytes: Uint8Array, size: number): string | null {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (header.toString('latin1', 0, 8) !== MAGIC) return 'it has no header';
  if (header.readUInt32LE(24) !== crc32(header.subarray(0, 24))) return 'the header checksum does not match';
  if (header.readUInt32LE(8) !== VERSION || header.readUInt32LE(12) !== PAGE_BYTES) return 'it is of another version';
  const found = Number(header.readBigUInt64LE(16));
  return found === size ? null : `it is for a disk of ${found} bytes, the base has ${size}`;
}
