import type { BlockMap, BlockRoom, BlockState } from '../vhd/block-map.ts';
import { malformedImage, readExactly } from '../vhd/image-errors.ts';
import { allSet, assignBits, BitmapCache } from '../vhd/sector-bits.ts';
import type { SectorBits } from '../vhd/sector-bits.ts';
import { alignUp, layout, Space } from '../vhd/space.ts';
import type { Range } from '../vhd/space.ts';
import type { OpenFile } from '../../model/ports.ts';
import { BITMAP_PRESENT, bitmapIndex, PAYLOAD, payloadIndex } from './bat.ts';
import { MIB } from './header.ts';
import { roomOf, usedRanges } from './vhdx-image.ts';
import type { VhdxImage } from './vhdx-image.ts';
import type { Page, VhdxSession } from './vhdx-session.ts';

/**
 * Blocks of a VHDX. Order of a commit:
 *
 * 1. sync: payload, and the file's new length
 * 2. changed pages of sector bitmaps and of the block table into the log, bitmaps first; sync; then to their places
 *
 * Room of vacated payload blocks is used again after 2: the log never writes into payload, so replay cannot hurt its new
 * owner. Room of sector bitmap blocks is never given up while the disk is open: an old log entry might still name it.
 */

const PAGE = 4096;
/** Units of bitmap bytes in memory: 4 KiB at least, so at most about 16 MiB with the usual block sizes. */
const BITMAPS_IN_MEMORY_MAX = 2048;
const DIRTY_PAGES_MAX = 2048;

export class VhdxMap implements BlockMap {
  readonly blockSize: number;
  readonly sectorSize: number;
  readonly zeroedState: 'zero' | null;
  readonly #file: OpenFile;
  readonly #image: VhdxImage;
  readonly #session: VhdxSession | null;
  readonly #bitmaps: BitmapCache;
  readonly #bitmapBytesPerBlock: number;
  readonly #unitBytes: number;
  readonly #dirtyPages = new Set<number>();
  #vacated: Range[] = [];
  #space: Space | null = null;
  /** Also after a commit that failed: nothing is known then. */
  #committing = false;

  /** `session` is null when the disk is open for reading. */
  constructor(image: VhdxImage, session: VhdxSession | null) {
    const { shape } = image;
    this.#file = session?.file ?? image.file;
    this.#image = image;
    this.#session = session;
    this.blockSize = shape.blockSize;
    this.sectorSize = shape.sectorSize;
    this.zeroedState = image.variant === 'fixed' ? null : 'zero';
    this.#bitmapBytesPerBlock = shape.blockSize / shape.sectorSize / 8;
    this.#unitBytes = Math.max(PAGE, this.#bitmapBytesPerBlock);
    this.#bitmaps = new BitmapCache(BITMAPS_IN_MEMORY_MAX, (unit) =>
      readExactly(this.#file, this.#unitPosition(unit), this.#unitBytes, 'sector bitmap'),
    );
    if (session !== null) this.#space = spaceOf(image);
  }

  get begun(): boolean {
    return this.#session?.dataGuidFresh === true;
  }

  begin(identity?: string): Promise<void> {
    return this.#session!.beginData(identity);
  }

  state(block: number): BlockState {
    switch (this.#image.bat.state(payloadIndex(this.#image.shape, block))) {
      case PAYLOAD.full:
        return 'full';
      case PAYLOAD.partial:
        return 'partial';
      case PAYLOAD.notPresent:
        return 'absent';
      default:
        return 'zero';
    }
  }

  position(block: number): number {
    return this.#image.bat.offset(payloadIndex(this.#image.shape, block));
  }

  bits(block: number): SectorBits | undefined {
    const bytes = this.#bitmaps.get(this.#unitOf(block));
    return bytes === undefined ? undefined : this.#bitsIn(bytes, block);
  }

  async loadBits(block: number): Promise<SectorBits> {
    return this.#bitsIn(await this.#bitmaps.fetch(this.#unitOf(block)), block);
  }

  markPresent(block: number, from: number, end: number): void {
    const bits = this.bits(block);
    if (bits === undefined || this.state(block) !== 'partial') return;
    assignBits(bits, from, end, true);
    this.#bitmaps.markDirty(this.#unitOf(block));
    if (allSet(bits, 0, this.blockSize / this.sectorSize))
      this.#setEntry(payloadIndex(this.#image.shape, block), PAYLOAD.full, this.position(block));
  }

  get unsettled(): boolean {
    return this.#committing || this.#bitmaps.hasDirty || this.#dirtyPages.size > 0;
  }

  get overfull(): boolean {
    return this.#bitmaps.overfull || this.#dirtyPages.size > DIRTY_PAGES_MAX;
  }

  reserve(): Promise<BlockRoom> {
    return this.#room(this.blockSize);
  }

  async #room(length: number): Promise<BlockRoom> {
    const room = this.#space!.take(length, MIB);
    if (!room.fresh) return room;
    try {
      await this.#file.truncate(room.end);
    } catch (error) {
      this.abandon(room);
      throw error;
    }
    this.#session!.fileSize = room.end;
    return room;
  }

  abandon({ position, end }: BlockRoom): void {
    this.#space!.give({ start: position, end });
  }

  async publish(block: number, { position }: BlockRoom, state: 'full' | 'partial'): Promise<void> {
    const { shape, bat } = this.#image;
    if (state === 'partial') await this.#clearBits(block);
    const index = payloadIndex(shape, block);
    const before = roomOf(bat, index);
    if (before !== null) this.#vacated.push({ start: before, end: before + this.blockSize });
    this.#setEntry(index, state === 'full' ? PAYLOAD.full : PAYLOAD.partial, position);
  }

  /** Bits of an earlier life of the block may be set: they mean nothing until now. */
  async #clearBits(block: number): Promise<void> {
    const { shape, bat } = this.#image;
    const index = bitmapIndex(shape, Math.floor(block / shape.ratio));
    if (bat.state(index) !== BITMAP_PRESENT) {
      const room = await this.#room(MIB);
      if (!room.fresh) await this.#file.write([new Uint8Array(MIB)], room.position);
      this.#setEntry(index, BITMAP_PRESENT, room.position);
    }
    const unit = this.#unitOf(block);
    const bytes = await this.#bitmaps.fetch(unit);
    assignBits(this.#bitsIn(bytes, block), 0, this.blockSize / this.sectorSize, false);
    // The bytes may have left the cache while they were clean.
    this.#bitmaps.markDirty(unit);
    this.#bitmaps.put(unit, bytes);
  }

  vacate(block: number, state: 'absent' | 'zero'): void {
    const index = payloadIndex(this.#image.shape, block);
    const start = roomOf(this.#image.bat, index);
    if (start !== null) this.#vacated.push({ start, end: start + this.blockSize });
    this.#setEntry(index, state === 'zero' ? PAYLOAD.zero : PAYLOAD.notPresent, 0);
  }

  /** Moves a block to room that is not in use by anything; its bytes are there already. */
  move(index: number, length: number, to: number): void {
    const { bat } = this.#image;
    this.#vacated.push({ start: bat.offset(index), end: bat.offset(index) + length });
    this.#setEntry(index, bat.state(index), to);
  }

  get space(): Space {
    return this.#space!;
  }

  async commit(): Promise<void> {
    this.#committing = true;
    await this.#commit();
    this.#committing = false;
  }

  async #commit(): Promise<void> {
    const pages: Page[] = [];
    for (const { key: unit, bytes } of this.#bitmaps.dirty()) {
      const position = this.#unitPosition(unit);
      for (let at = 0; at < bytes.length; at += PAGE)
        pages.push({ offset: position + at, bytes: bytes.subarray(at, at + PAGE) });
    }
    for (const page of [...this.#dirtyPages].sort((a, b) => a - b)) pages.push(await this.#tablePage(page));
    this.#dirtyPages.clear();
    await this.#session!.sync();
    if (pages.length === 0) return;
    const vacated = this.#vacated;
    this.#vacated = [];
    await this.#session!.beginLayout();
    await this.#session!.writePages(pages);
    this.#bitmaps.allWritten();
    for (const range of vacated) {
      this.#space!.give(range);
      // Best effort: the room is free either way, a hole only saves space.
      await this.#file.punch?.(range.start, range.end - range.start).catch(() => undefined);
    }
  }

  async rest(): Promise<void> {
    await this.commit();
    await this.#session!.rest();
  }

  /** A page of the table; past the entries in use stays what is there. */
  async #tablePage(page: number): Promise<Page> {
    const { bat, batRegion } = this.#image;
    const offset = batRegion.offset + page * PAGE;
    const words = bat.words.subarray(page * (PAGE / 4), (page + 1) * (PAGE / 4));
    const entries = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
    if (entries.length === PAGE) return { offset, bytes: entries };
    const bytes = await readExactly(this.#file, offset, PAGE, 'block allocation table');
    bytes.set(entries);
    return { offset, bytes };
  }

  #setEntry(index: number, state: number, offset: number): void {
    this.#image.bat.set(index, state, offset);
    this.#dirtyPages.add(Math.floor((index * 8) / PAGE));
  }

  /** Bitmap bytes of all chunks in a row: a chunk has exactly 1 MiB of them. */
  #unitOf(block: number): number {
    return Math.floor((block * this.#bitmapBytesPerBlock) / this.#unitBytes);
  }

  #unitPosition(unit: number): number {
    const at = unit * this.#unitBytes;
    return this.#image.bat.offset(bitmapIndex(this.#image.shape, Math.floor(at / MIB))) + (at % MIB);
  }

  #bitsIn(bytes: Uint8Array, block: number): SectorBits {
    return { bytes, firstBit: ((block * this.#bitmapBytesPerBlock) % this.#unitBytes) * 8, order: 'lsb-first' };
  }
}

function spaceOf(image: VhdxImage): Space {
  const found = layout(usedRanges(image), 0);
  if ('overlap' in found) {
    const [a, b] = found.overlap;
    throw malformedImage(image.path, `two structures share the file's bytes: ${a.start}..${a.end} and ${b.start}..${b.end}`);
  }
  // What lies behind the last structure (the rest of a crash) is room like any gap: the file is never cut while its log is
  // in use.
  const behind = image.fileSize - (image.fileSize % MIB);
  if (behind > found.end) found.free.push({ start: found.end, end: behind });
  return new Space(found.free, alignUp(Math.max(found.end, image.fileSize), MIB));
}
