import type { OpenFile } from '../../model/ports.ts';
import type { BlockMap, BlockRoom, BlockState } from './block-map.ts';
import { encodeFooter } from './footer.ts';
import { malformedImage, readExactly } from './image-errors.ts';
import { allSet, assignBits, BitmapCache } from './sector-bits.ts';
import type { SectorBits } from './sector-bits.ts';
import { layout, Space } from './space.ts';
import type { Range } from './space.ts';
import { ABSENT, usedRanges } from './vhd-image.ts';
import type { SparseParts, VhdImage } from './vhd-image.ts';

/**
 * Blocks of a dynamic or differencing VHD. Order of a commit, which is what makes a crash harmless:
 *
 * 1. data (written by the disk above), bitmaps of new blocks, the footer behind the last block
 * 2. sync
 * 3. new table entries, and bits of new sectors in blocks that the table named before
 * 4. sync; only now may the room of blocks that were given up be used again
 *
 * While blocks are added there may be no footer at the end; the copy at 0 is good all the time.
 */

const BITMAPS_IN_MEMORY_MAX = 4096;
/** Windows keeps data on 4 KiB boundaries, with the bitmap before it. */
const DATA_ALIGN = 4096;

export class VhdMap implements BlockMap {
  readonly blockSize: number;
  readonly sectorSize = 512;
  readonly zeroedState: 'absent' | null;
  readonly #file: OpenFile;
  readonly #image: VhdImage;
  readonly #sparse: SparseParts;
  readonly #bitmaps: BitmapCache;
  /** One bit per block: its bitmap is known to be all ones. */
  readonly #full: Uint8Array;
  readonly #sectorsPerBlock: number;
  /** Blocks that no durable table entry names yet: their bitmaps may be written before a sync. */
  readonly #newBlocks = new Set<number>();
  readonly #dirtyTableSectors = new Set<number>();
  #vacated: Range[] = [];
  #space: Space | null = null;
  #footerDue: boolean;
  /** Also after a commit that failed: nothing is known then. */
  #committing = false;
  /** Where the file ends now; the tail footer, if any, is the last sector. */
  #fileSize: number;

  constructor(file: OpenFile, image: VhdImage, sparse: SparseParts, readOnly: boolean) {
    this.#file = file;
    this.#image = image;
    this.#sparse = sparse;
    this.blockSize = sparse.header.blockSize;
    this.zeroedState = image.variant === 'dynamic' ? 'absent' : null;
    this.#sectorsPerBlock = this.blockSize / 512;
    this.#full = new Uint8Array(Math.ceil(sparse.bat.length / 8));
    this.#bitmaps = new BitmapCache(BITMAPS_IN_MEMORY_MAX, (block) =>
      readExactly(file, sparse.bat[block]! * 512, sparse.bitmapBytes, `bitmap of block ${block}`),
    );
    this.#fileSize = image.fileSize;
    this.#footerDue = !image.footers.equal;
    if (!readOnly) this.#space = spaceOf(image, sparse);
  }

  readonly begun = true;

  begin(): Promise<void> {
    return Promise.resolve();
  }

  state(block: number): BlockState {
    if (this.#sparse.bat[block] === ABSENT) return 'absent';
    return (this.#full[block >> 3]! & (1 << (block & 7))) !== 0 ? 'full' : 'partial';
  }

  position(block: number): number {
    return this.#sparse.bat[block]! * 512 + this.#sparse.bitmapBytes;
  }

  bits(block: number): SectorBits | undefined {
    const bytes = this.#bitmaps.get(block);
    return bytes === undefined ? undefined : { bytes, firstBit: 0, order: 'msb-first' };
  }

  async loadBits(block: number): Promise<SectorBits> {
    const bits: SectorBits = { bytes: await this.#bitmaps.fetch(block), firstBit: 0, order: 'msb-first' };
    this.#noteFull(block, bits);
    return bits;
  }

  markPresent(block: number, from: number, end: number): void {
    const bits = this.bits(block);
    if (bits === undefined) return;
    assignBits(bits, from, end, true);
    this.#bitmaps.markDirty(block);
    this.#noteFull(block, bits);
  }

  get overfull(): boolean {
    return this.#bitmaps.overfull || this.#newBlocks.size > BITMAPS_IN_MEMORY_MAX;
  }

  get unsettled(): boolean {
    return this.#committing || this.#bitmaps.hasDirty || this.#dirtyTableSectors.size > 0;
  }

  async reserve(): Promise<BlockRoom> {
    const space = this.#space!;
    if (this.#fileSize > space.end) await this.#cutTo(space.end);
    const { position, end, fresh } = space.take(this.blockSize, DATA_ALIGN, this.#sparse.bitmapBytes);
    if ((position - this.#sparse.bitmapBytes) / 512 >= ABSENT) {
      this.abandon({ position, end, fresh });
      throw Object.assign(malformedImage(this.#file.path, 'the table cannot name places beyond 2 TiB'), { code: 'ENOSPC' });
    }
    if (!fresh) return { position, end, fresh };
    try {
      await this.#file.truncate(end);
    } catch (error) {
      this.abandon({ position, end, fresh });
      throw error;
    }
    this.#fileSize = end;
    this.#footerDue = true;
    return { position, end, fresh };
  }

  /** What lies behind the last block (the footer, or the rest of a crash) must not become part of a new block. */
  async #cutTo(end: number): Promise<void> {
    await this.#file.truncate(end);
    this.#fileSize = end;
    this.#footerDue = true;
  }

  abandon({ position, end }: BlockRoom): void {
    this.#space!.give({ start: position - this.#sparse.bitmapBytes, end });
  }

  publish(block: number, { position }: BlockRoom, state: 'full' | 'partial'): Promise<void> {
    const bytes = new Uint8Array(this.#sparse.bitmapBytes);
    if (state === 'full') assignBits({ bytes, firstBit: 0, order: 'msb-first' }, 0, this.#sectorsPerBlock, true);
    this.#bitmaps.markDirty(block);
    this.#bitmaps.put(block, bytes);
    this.#setFull(block, state === 'full');
    this.#newBlocks.add(block);
    this.#setEntry(block, (position - this.#sparse.bitmapBytes) / 512);
    return Promise.resolve();
  }

  vacate(block: number, _state: 'absent' | 'zero'): void {
    const start = this.#sparse.bat[block]! * 512;
    this.#vacated.push({ start, end: start + this.#sparse.bitmapBytes + this.blockSize });
    this.#bitmaps.drop(block);
    this.#newBlocks.delete(block);
    this.#setFull(block, false);
    this.#setEntry(block, ABSENT);
  }

  /** Room for a block that ends at or below `below`; null when no gap is large enough. */
  gapBelow(below: number): BlockRoom | null {
    return this.#space!.takeGap(this.blockSize, DATA_ALIGN, this.#sparse.bitmapBytes, below);
  }

  /** The block with its bitmap was copied to room from `gapBelow`. */
  move(block: number, position: number): void {
    const start = this.#sparse.bat[block]! * 512;
    this.#vacated.push({ start, end: start + this.#sparse.bitmapBytes + this.blockSize });
    this.#setEntry(block, (position - this.#sparse.bitmapBytes) / 512);
  }

  async commit(): Promise<void> {
    this.#committing = true;
    await this.#commit();
    this.#committing = false;
  }

  async #commit(): Promise<void> {
    const later: { position: number; bytes: Uint8Array }[] = [];
    for (const { key: block, bytes } of this.#bitmaps.dirty()) {
      const position = this.#sparse.bat[block]! * 512;
      if (this.#newBlocks.has(block)) await this.#file.write([bytes], position);
      else later.push({ position, bytes });
    }
    if (this.#footerDue) await this.#writeFooters();
    await this.#file.datasync();
    this.#newBlocks.clear();
    if (later.length === 0) this.#bitmaps.allWritten();
    if (later.length === 0 && this.#dirtyTableSectors.size === 0) return;
    const sectors = [...this.#dirtyTableSectors].sort((a, b) => a - b);
    this.#dirtyTableSectors.clear();
    const vacated = this.#vacated;
    this.#vacated = [];
    for (const { position, bytes } of later) await this.#file.write([bytes], position);
    this.#bitmaps.allWritten();
    for (const sector of sectors)
      await this.#file.write([this.#tableSector(sector)], this.#sparse.header.batOffset + sector * 512);
    await this.#file.datasync();
    for (const range of vacated) {
      this.#space!.give(range);
      // Best effort: the room is free either way, a hole only saves space.
      await this.#file.punch?.(range.start, range.end - range.start).catch(() => undefined);
    }
  }

  rest(): Promise<void> {
    return this.commit();
  }

  async #writeFooters(): Promise<void> {
    const footer = encodeFooter(this.#image.footer);
    const { end } = this.#space!;
    if (this.#fileSize !== end && this.#fileSize !== end + footer.length) await this.#cutTo(end);
    await this.#file.write([footer], end);
    this.#fileSize = end + footer.length;
    if (!this.#image.footers.equal) {
      // The tail is durable before the copy is touched: one of the two is good at any moment.
      await this.#file.datasync();
      await this.#file.write([footer], 0);
      this.#image.footers = { tail: true, head: true, equal: true };
    }
    this.#footerDue = false;
  }

  #tableSector(sector: number): Buffer {
    const bytes = Buffer.alloc(512, 0xff);
    const first = sector * 128;
    const entries = Math.min(128, this.#sparse.bat.length - first);
    for (let index = 0; index < entries; index++) bytes.writeUInt32BE(this.#sparse.bat[first + index]!, index * 4);
    return bytes;
  }

  #setEntry(block: number, sector: number): void {
    this.#sparse.bat[block] = sector;
    this.#dirtyTableSectors.add(block >> 7);
  }

  #noteFull(block: number, bits: SectorBits): void {
    if (allSet(bits, 0, this.#sectorsPerBlock)) this.#setFull(block, true);
  }

  #setFull(block: number, full: boolean): void {
    if (full) this.#full[block >> 3]! |= 1 << (block & 7);
    else this.#full[block >> 3]! &= ~(1 << (block & 7));
  }
}

function spaceOf(image: VhdImage, sparse: SparseParts): Space {
  const found = layout(usedRanges(image, sparse), 0);
  if ('overlap' in found) {
    const [a, b] = found.overlap;
    throw malformedImage(image.path, `two structures share the file's bytes: ${a.start}..${a.end} and ${b.start}..${b.end}`);
  }
  return new Space(found.free, found.end);
}
