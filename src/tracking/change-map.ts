/**
 * The change map: one bit per region of a disk, set while primary and replica may differ there (design §6, R7–R10).
 *
 * Invariants
 * - A region's bit is durable before the first write to it in an epoch reaches the disk (R7): `mark` is not done before it is.
 * - A bit drops only through `release`, whose caller vouches for R8: same boot, the epoch's writes finished, the disk flushed
 *   after them, and the replica holds the epoch applied and durable.
 * - Dropping is lazy: the bit leaves the file with some later flush. A bit too many costs a compare, a bit too few costs data.
 * - Every page written comes from the one image in memory, so a torn page mixes two versions that both hold all durable bits.
 * - When a bit cannot be made durable the map says `distrusted` for good (R10); only a completed resync makes a new one.
 *
 * File: docs/formats/change-map.md. The size is fixed by disk and region size, and allocated when the map is made.
 */
import { crc32 } from 'node:zlib';
import { UnderstudyError } from '../model/errors.ts';
import type { Files, OpenFile } from '../model/ports.ts';

const MAGIC = 'UNDSTMAP';
const VERSION = 1;
const PAGE_BYTES = 4096;
/** So many pages are written in one piece when some of them have changed: the bits of 2 TiB. */
const AT_ONCE_PAGES = 64;
export const REGION_BYTES_DEFAULT = 1 << 20;
/**
 * Regions written most recently keep their bit across epochs, so that steady writing costs no extra flush (R7). The price: after a
 * crash up to 4 GiB more is read and compared on both sides, which takes a few seconds and sends only digests.
 */
export const HOT_REGIONS_MAX = 4096;

export interface Range {
  offset: number;
  length: number;
}

export interface ChangeMapOptions {
  diskSize: number;
  regionBytes?: number;
  hotRegionsMax?: number;
}

export class ChangeMap {
  readonly regionBytes: number;
  diskSize: number;
  #file: OpenFile;
  #bits: Uint8Array;
  /** Epoch of the last write per region; 0 = none since the map was opened. */
  #lastEpoch: Float64Array;
  /** 1 once the bit is known to be on stable storage. */
  #durable: Uint8Array;
  #touched = new Map<number, number[]>();
  #hot = new Set<number>();
  #hotMax: number;
  #dirtyPages = new Set<number>();
  /** Regions whose bits somebody waits for; those the next flush makes durable. */
  #asked: number[] = [];
  #flushing: Promise<void> | null = null;
  #next: PromiseWithResolvers<void> | null = null;
  #failure: Error | null = null;
  #releasedEpoch = 0;
  #pinned: Uint8Array | null = null;
  #set = 0;

  private constructor(file: OpenFile, bits: Uint8Array, options: Required<ChangeMapOptions>) {
    this.#file = file;
    this.#bits = bits;
    this.diskSize = options.diskSize;
    this.regionBytes = options.regionBytes;
    this.#hotMax = options.hotRegionsMax;
    const regions = regionCount(options.diskSize, options.regionBytes);
    this.#lastEpoch = new Float64Array(regions);
    this.#durable = new Uint8Array(regions);
  }

  /** Makes a map with no bit set, or `everything`, replacing any at the path; durable when it resolves. */
  static async create(files: Files, path: string, options: ChangeMapOptions & { everything?: boolean }): Promise<ChangeMap> {
    const full = withDefaults(options);
    const temporary = `${path}.new`;
    await files.remove(temporary);
    const file = await files.open(temporary, 'create');
    const bits = new Uint8Array(bitmapBytes(full.diskSize, full.regionBytes));
    if (options.everything === true) setFirst(bits, regionCount(full.diskSize, full.regionBytes));
    try {
      // Written, not truncated: a hole could fail with ENOSPC at the moment when a bit is needed.
      await file.write([encodeHeader(full.diskSize, full.regionBytes), bits], 0);
      await file.datasync();
    } catch (cause) {
      await file.close();
      await files.remove(temporary);
      throw cause;
    }
    await files.rename(temporary, path);
    await files.syncFolder(path.slice(0, path.lastIndexOf('/')));
    const map = new ChangeMap(file, bits, full);
    if (options.everything === true) {
      map.#adoptBits(0);
      map.pin();
    }
    return map;
  }

  /**
   * Opens the map after a restart. Which epoch set a bit is not kept, so every bit counts as written in `currentEpoch`.
   * `orSize`: the other size that it may have been made for, when a crash has interrupted a resize.
   * @throws UnderstudyError CHANGE_MAP_DAMAGED when it is missing, cut, or made for another size: the map is distrusted then.
   */
  static async open(
    files: Files, path: string, options: ChangeMapOptions & { currentEpoch: number; orSize?: number | undefined },
  ): Promise<ChangeMap> {
    const full = withDefaults(options);
    const damaged = (what: string) => new UnderstudyError('io', 'CHANGE_MAP_DAMAGED', `change map ${path}: ${what}`,
      'Resynchronize the VM; a full compare makes a new map.');
    if ((await files.stat(path)) === null) throw damaged('the file is missing');
    const file = await files.open(path, 'write');
    const header = new Uint8Array(PAGE_BYTES);
    const hasHeader = (await file.read(header, 0)) === PAGE_BYTES;
    if (options.orSize !== undefined && hasHeader && sizeIn(header) === options.orSize) full.diskSize = options.orSize;
    const bits = new Uint8Array(bitmapBytes(full.diskSize, full.regionBytes));
    const complete = hasHeader && (await file.read(bits, PAGE_BYTES)) === bits.length;
    const reason = complete ? headerDefect(header, full) : 'the file is too short';
    if (reason !== null) {
      await file.close();
      throw damaged(reason);
    }
    const map = new ChangeMap(file, bits, full);
    map.#adoptBits(options.currentEpoch);
    return map;
  }

  /** Why the map must not be believed, or null. */
  get distrusted(): Error | null {
    return this.#failure;
  }

  /** Regions whose bit is set. */
  get regionsSet(): number {
    return this.#set;
  }

  /**
   * Notes a write to the range in `epoch`. Returns null when every region's bit is durable already (the usual case, free of
   * allocations), else a promise that resolves when it is. Never rejects: after a failure the map is distrusted and the
   * promise resolves, because the guest goes on (promise 1).
   */
  mark(offset: number, length: number, epoch: number): Promise<void> | null {
    if (this.#failure !== null || length === 0) return null;
    const last = Math.floor((offset + length - 1) / this.regionBytes);
    let waits = false;
    for (let region = Math.floor(offset / this.regionBytes); region <= last; region++) {
      if (this.#lastEpoch[region] !== epoch) this.#touch(region, epoch);
      if (this.#durable[region] === 1) continue;
      waits = true;
      this.#asked.push(region);
      if (this.#getBit(region)) continue;
      this.#setBit(region, true);
    }
    return waits ? this.#flush() : null;
  }

  /** The bits of all epochs up to and including `epoch` may drop (R8, see above); bits of later writes and hot regions stay. */
  release(epoch: number): void {
    this.#releasedEpoch = Math.max(this.#releasedEpoch, epoch);
    for (const [touchedIn, regions] of this.#touched) {
      if (touchedIn > epoch) continue;
      for (const region of regions) {
        if (this.#lastEpoch[region]! <= epoch && !this.#hot.has(region)) this.#drop(region);
      }
      this.#touched.delete(touchedIn);
    }
  }

  /** The regions that may differ, merged where they touch, in order; the last one is cut at the end of the disk. */
  suspects(): Range[] {
    const ranges: Range[] = [];
    for (let region = 0; region < this.#lastEpoch.length; region++) {
      if (this.#bits[region >> 3] === 0) {
        region |= 7;
        continue;
      }
      if (!this.#getBit(region)) continue;
      const offset = region * this.regionBytes;
      const length = Math.min(this.regionBytes, this.diskSize - offset);
      const before = ranges.at(-1);
      if (before !== undefined && before.offset + before.length === offset) before.length += length;
      else ranges.push({ offset, length });
    }
    return ranges;
  }

  /** Regions written after this epoch, in order and merged; those of unknown epoch count as written. */
  touchedSince(epoch: number): Range[] {
    const ranges: Range[] = [];
    for (let region = 0; region < this.#lastEpoch.length; region++) {
      if (this.#lastEpoch[region]! <= epoch) continue;
      const offset = region * this.regionBytes;
      const length = Math.min(this.regionBytes, this.diskSize - offset);
      const before = ranges.at(-1);
      if (before !== undefined && before.offset + before.length === offset) before.length += length;
      else ranges.push({ offset, length });
    }
    return ranges;
  }

  /** All bits set now stay until `unpin`, whatever epochs are released: no log explains them (R9, or tracking by map alone). */
  pin(): void {
    this.#pinned = this.#bits.slice();
  }

  /** The pinned differences have been repaired: their bits drop, except where a later epoch has written. */
  unpin(): void {
    const pinned = this.#pinned;
    this.#pinned = null;
    if (pinned === null) return;
    for (let region = 0; region < this.#lastEpoch.length; region++) {
      if ((pinned[region >> 3]! & (1 << (region & 7))) === 0 || this.#hot.has(region)) continue;
      if (this.#lastEpoch[region]! <= this.#releasedEpoch) this.#drop(region);
    }
  }

  /** Marks the map as not to be believed: a write may have reached the disk whose bit is not durable (R10). */
  distrust(reason: Error): void {
    this.#failure ??= reason;
  }

  /**
   * For a disk of another size: a new file with the bits as they are takes the place of the old one, durably (R26). Marks of the
   * meantime wait, as for a flush, and go to the new file. After a rejection the map is the old one, or distrusted.
   */
  async resize(files: Files, path: string, diskSize: number): Promise<void> {
    if (diskSize === this.diskSize) return;
    while (this.#flushing !== null) await this.#flushing;
    const replaced = this.#replaceFile(files, path, diskSize);
    this.#flushing = replaced.catch(() => undefined).then(() => this.#flushNext());
    await replaced;
  }

  async #replaceFile(files: Files, path: string, diskSize: number): Promise<void> {
    const temporary = `${path}.new`;
    await files.remove(temporary);
    const file = await files.open(temporary, 'create');
    try {
      await file.write([encodeHeader(diskSize, this.regionBytes), resized(this.#bits, bitmapBytes(diskSize, this.regionBytes))], 0);
      await file.datasync();
    } catch (cause) {
      await file.close();
      await files.remove(temporary);
      throw cause;
    }
    try {
      await files.rename(temporary, path);
      await files.syncFolder(path.slice(0, path.lastIndexOf('/')));
    } catch (cause) {
      // Nobody knows which of the two files a crash would leave.
      this.distrust(cause instanceof Error ? cause : new Error(String(cause)));
      await file.close();
      throw cause;
    }
    const old = this.#file;
    const regions = regionCount(diskSize, this.regionBytes);
    this.#file = file;
    this.diskSize = diskSize;
    this.#bits = resized(this.#bits, bitmapBytes(diskSize, this.regionBytes));
    if (this.#pinned !== null) this.#pinned = resized(this.#pinned, this.#bits.length);
    this.#durable = resized(this.#durable, regions);
    const lastEpoch = new Float64Array(regions);
    lastEpoch.set(this.#lastEpoch.subarray(0, regions));
    this.#lastEpoch = lastEpoch;
    await old.close();
  }

  async close(): Promise<void> {
    if (this.#failure === null && this.#dirtyPages.size > 0) await this.#flush();
    await this.#file.close();
  }

  #touch(region: number, epoch: number): void {
    this.#lastEpoch[region] = epoch;
    const regions = this.#touched.get(epoch);
    if (regions === undefined) this.#touched.set(epoch, [region]);
    else regions.push(region);
    this.#hot.delete(region);
    this.#hot.add(region);
    if (this.#hot.size <= this.#hotMax) return;
    const coldest = this.#hot.values().next().value!;
    this.#hot.delete(coldest);
    // It stayed set only for being hot: what it was waiting for may be released already.
    if (this.#lastEpoch[coldest]! <= this.#releasedEpoch) this.#drop(coldest);
  }

  #drop(region: number): void {
    if (!this.#getBit(region)) return;
    if (this.#pinned !== null && (this.#pinned[region >> 3]! & (1 << (region & 7))) !== 0) return;
    this.#durable[region] = 0;
    this.#setBit(region, false);
  }

  #getBit(region: number): boolean {
    return (this.#bits[region >> 3]! & (1 << (region & 7))) !== 0;
  }

  #setBit(region: number, value: boolean): void {
    if (value) this.#bits[region >> 3]! |= 1 << (region & 7);
    else this.#bits[region >> 3]! &= ~(1 << (region & 7));
    this.#set += value ? 1 : -1;
    this.#dirtyPages.add(Math.floor((region >> 3) / PAGE_BYTES));
  }

  /** Group commit: whoever asks while one flush runs shares the next one. Two never overlap, so no older page lands last. */
  #flush(): Promise<void> {
    if (this.#flushing === null) {
      this.#flushing = this.#writeDirtyPages();
      return this.#flushing;
    }
    this.#next ??= Promise.withResolvers<void>();
    return this.#next.promise;
  }

  async #writeDirtyPages(): Promise<void> {
    const pages = [...this.#dirtyPages].sort((a, b) => a - b);
    this.#dirtyPages.clear();
    const asked = this.#asked;
    this.#asked = [];
    try {
      await this.#makeDurable(pages);
    } catch (cause) {
      this.distrust(cause instanceof Error ? cause : new Error(String(cause)));
    }
    // Dropped meanwhile: then it is not in memory, and leaves the file with a later flush.
    if (this.#failure === null) for (const region of asked) if (this.#getBit(region)) this.#durable[region] = 1;
    this.#flushNext();
  }

  /**
   * A guest waits: so all in one call where the host has one and what lies between the pages is not much. Copied before anything is waited
   * for: bits may change meanwhile, and only what was set at the call becomes durable.
   */
  async #makeDurable(pages: readonly number[]): Promise<void> {
    // All were in the flush before, for which their asker came too late.
    if (pages.length === 0) return;
    const piece = (first: number, last: number) => (
      { image: this.#bits.slice(first * PAGE_BYTES, (last + 1) * PAGE_BYTES), position: (first + 1) * PAGE_BYTES });
    const [first, last] = [pages[0]!, pages.at(-1)!];
    const pieces = last - first < AT_ONCE_PAGES ? [piece(first, last)] : pages.map((page) => piece(page, page));
    if (pieces.length === 1 && (await this.#file.writeDurably?.(pieces[0]!.image, pieces[0]!.position)) === true) return;
    await Promise.all(pieces.map(({ image, position }) => this.#file.write([image], position)));
    await this.#file.datasync();
  }

  #flushNext(): void {
    const next = this.#next;
    this.#next = null;
    this.#flushing = next === null ? null : this.#writeDirtyPages().then(next.resolve);
  }

  #adoptBits(epoch: number): void {
    for (let region = 0; region < this.#lastEpoch.length; region++) {
      if (!this.#getBit(region)) continue;
      this.#set++;
      this.#lastEpoch[region] = epoch;
      // Not durable yet as far as we know: the page cache may be all that holds it, so the first write flushes once, for all.
      this.#asked.push(region);
      const regions = this.#touched.get(epoch);
      if (regions === undefined) this.#touched.set(epoch, [region]);
      else regions.push(region);
      this.#dirtyPages.add(Math.floor((region >> 3) / PAGE_BYTES));
    }
  }
}

function withDefaults(options: ChangeMapOptions): Required<ChangeMapOptions> {
  return {
    diskSize: options.diskSize,
    regionBytes: options.regionBytes ?? REGION_BYTES_DEFAULT,
    hotRegionsMax: options.hotRegionsMax ?? HOT_REGIONS_MAX,
  };
}

function setFirst(bits: Uint8Array, count: number): void {
  for (let region = 0; region < count; region++) bits[region >> 3]! |= 1 << (region & 7);
}

function resized(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(length);
  copy.set(bytes.subarray(0, length));
  return copy;
}

const regionCount = (diskSize: number, regionBytes: number) => Math.ceil(diskSize / regionBytes);
/** Whole pages, so that every page write has one size. */
const bitmapBytes = (diskSize: number, regionBytes: number) =>
  Math.max(1, Math.ceil(regionCount(diskSize, regionBytes) / 8 / PAGE_BYTES)) * PAGE_BYTES;

function encodeHeader(diskSize: number, regionBytes: number): Uint8Array {
  const header = Buffer.alloc(PAGE_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(regionBytes, 12);
  header.writeBigUInt64LE(BigInt(diskSize), 16);
  header.writeUInt32LE(crc32(header.subarray(0, 24)), 24);
  return header;
}

const sizeIn = (header: Uint8Array): number =>
  Number(Buffer.from(header.buffer, header.byteOffset, header.byteLength).readBigUInt64LE(16));

function headerDefect(bytes: Uint8Array, expected: Required<ChangeMapOptions>): string | null {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (header.toString('latin1', 0, 8) !== MAGIC) return 'it has no change-map header';
  if (header.readUInt32LE(24) !== crc32(header.subarray(0, 24))) return 'the header checksum does not match';
  if (header.readUInt32LE(8) !== VERSION) return `version ${header.readUInt32LE(8)}, this program reads ${VERSION}`;
  if (header.readUInt32LE(12) !== expected.regionBytes) {
    return `regions of ${header.readUInt32LE(12)} bytes, expected ${expected.regionBytes}`;
  }
  const size = Number(header.readBigUInt64LE(16));
  return size === expected.diskSize ? null : `made for a disk of ${size} bytes, the disk has ${expected.diskSize}`;
}
