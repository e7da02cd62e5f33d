import { assertInside } from '../virtual-disk.ts';
import type { DiskFormat, DiskVariant, Extent, Geometry, LentRuns, Seal, VirtualDisk } from '../virtual-disk.ts';
import { messageOf, UnderstudyError } from '../../model/errors.ts';
import type { OpenFile } from '../../model/ports.ts';
import { settleAll } from '../../model/settle-all.ts';
import { ioError } from '../disk-errors.ts';
import type { BlockMap } from './block-map.ts';
import { floorTo, pieces, type Run } from './block-ranges.ts';
import { GuardedFile } from './guarded-file.ts';
import { Lane, Pins } from './lane.ts';
import { StoredBlocks } from './stored-blocks.ts';

/**
 * A virtual disk over a block map and perhaps a parent: what VHD and VHDX have in common.
 *
 * - Bytes that are stored already are read and written at once, many calls side by side. Whatever changes the map (new
 *   blocks, new sectors, zeroed blocks, commits) runs in one lane, one after another.
 * - A call that touches a block's room holds a pin on the block; room is given up only when nobody holds it.
 * - After a failed commit nothing is known about the file: every later write and flush is refused (rule R3).
 */

export interface SparseDiskParts {
  location: string;
  format: DiskFormat;
  variant: DiskVariant;
  virtualSize: number;
  logicalSectorSize: number;
  physicalSectorSize: number;
  geometry: Geometry | null;
  readOnly: boolean;
  file: OpenFile;
  map: BlockMap;
  parent: SparseDisk | null;
  /** Called when nothing waits to be written. */
  sealAtRest: () => Promise<Seal>;
  foundSeal?: Seal;
  /** Makes the file larger while nothing waits to be written; absent when it is open for reading. Blocks stay where they are. */
  grow?: (size: number) => Promise<GrownParts>;
}

/** What is another after a resize. */
export type GrownParts = Pick<SparseDiskParts, 'virtualSize' | 'geometry' | 'map' | 'sealAtRest'>;

const CHUNK_BYTES = 1 << 20;
const ZEROES = Buffer.alloc(CHUNK_BYTES);

export class SparseDisk implements VirtualDisk {
  readonly location: string;
  readonly format: DiskFormat;
  readonly variant: DiskVariant;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  readonly readOnly: boolean;
  readonly discardReadsZero = true;
  readonly parent: SparseDisk | null;
  declare readonly foundSeal?: Seal;
  readonly #growFile: SparseDiskParts['grow'];
  #virtualSize: number;
  #geometry: Geometry | null;
  readonly #blocks: StoredBlocks;
  #sealAtRest: () => Promise<Seal>;
  /** Every answer of a change waits until the tables say so too: in memory alone they would die with this process. */
  #servesGuest = false;
  readonly #lane = new Lane();
  #flushWaiting: Promise<void> | null = null;
  #broken: Error | null = null;
  #closed = false;

  constructor(parts: SparseDiskParts) {
    this.location = parts.location;
    this.format = parts.format;
    this.variant = parts.variant;
    this.#virtualSize = parts.virtualSize;
    this.logicalSectorSize = parts.logicalSectorSize;
    this.physicalSectorSize = parts.physicalSectorSize;
    this.#geometry = parts.geometry;
    this.readOnly = parts.readOnly;
    this.parent = parts.parent;
    this.#blocks = new StoredBlocks({ ...parts, pins: new Pins() });
    this.#sealAtRest = parts.sealAtRest;
    this.#growFile = parts.grow;
    if (parts.foundSeal !== undefined) this.foundSeal = parts.foundSeal;
  }

  get virtualSize(): number {
    return this.#virtualSize;
  }

  /** Guest bytes of the blocks that are not left to the parent, as far as they lie in the disk. */
  get storedBytes(): number {
    const { blockSize } = this.#map;
    let bytes = 0;
    for (let block = 0; block * blockSize < this.virtualSize; block++) {
      if (this.#map.state(block) !== 'absent') bytes += Math.min(blockSize, this.virtualSize - block * blockSize);
    }
    return bytes;
  }

  get geometry(): Geometry | null {
    return this.#geometry;
  }

  serveGuest(leave: () => Promise<void> | null): void {
    this.#servesGuest = true;
    if (this.#blocks.file instanceof GuardedFile) this.#blocks.file.leave = leave;
  }

  get #map(): BlockMap {
    return this.#blocks.map;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    await this.#blocks.read(into, offset);
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, from.length);
    this.#assertWritable();
    if (!this.#map.begun) await this.#lane.run(() => this.#begin());
    const parts: Promise<void>[] = [];
    for (const [block, start, end] of pieces(offset, from.length, this.#map.blockSize)) {
      parts.push(this.#writeBlock(block, from.subarray(start - offset, end - offset), start));
    }
    await settleAll(parts);
    await this.#answered();
  }

  async zero(offset: number, length: number): Promise<void> {
    assertInside(this, offset, length);
    this.#assertWritable();
    if (!this.#map.begun) await this.#lane.run(() => this.#begin());
    for (const [block, start, end] of pieces(offset, length, this.#map.blockSize)) {
      const blockStart = block * this.#map.blockSize;
      const blockEnd = Math.min(blockStart + this.#map.blockSize, this.virtualSize);
      if (start === blockStart && end === blockEnd && this.#map.zeroedState !== null) await this.#zeroWholeBlock(block);
      else await this.#zeroPart(block, start, end);
    }
    await this.#answered();
  }

  discard(offset: number, length: number): Promise<void> {
    return this.zero(offset, length);
  }

  async #answered(): Promise<void> {
    if (this.#map.overfull || (this.#servesGuest && this.#map.unsettled)) await this.flush();
  }

  /** @throws DISK_SHRINK_REFUSED, DISK_SIZE_REFUSED */
  async grow(size: number): Promise<void> {
    this.#assertWritable();
    const growFile = this.#growFile;
    if (growFile === undefined) throw ioError('EPERM', `${this.location} is open read-only`);
    await this.#lane.run(async () => {
      await this.#settle(() => this.#map.rest());
      let grown: GrownParts;
      try {
        grown = await growFile(size);
      } catch (error) {
        // Refused before anything was done, or half done: then nothing is known about the file.
        if (!(error instanceof UnderstudyError)) await this.#settle(() => Promise.reject(error as Error));
        throw error;
      }
      this.#blocks.map = grown.map;
      this.#sealAtRest = grown.sealAtRest;
      this.#virtualSize = grown.virtualSize;
      this.#geometry = grown.geometry;
    });
  }

  /** Callers that come while a flush waits for its turn share it: it starts after all their writes. */
  async flush(): Promise<void> {
    if (this.readOnly) return;
    this.#flushWaiting ??= this.#lane.run(() => {
      this.#flushWaiting = null;
      return this.#settle(() => this.#map.commit());
    });
    await this.#flushWaiting;
  }

  async *extents(offset: number, length: number): AsyncIterable<Extent> {
    assertInside(this, offset, length);
    yield* this.#blocks.extents(offset, length);
  }

  /** Where the bytes of a range are, in order and without gaps: what a merge copies and what it leaves. */
  runs(offset: number, length: number): AsyncIterable<Run> {
    return this.#blocks.runs(offset, length);
  }

  get lentFiles(): readonly string[] {
    return [this.location, ...(this.parent?.lentFiles ?? [])];
  }

  /** Each block whose room the range touches is pinned until the release. */
  lend(offset: number, length: number): Promise<LentRuns> {
    return this.#blocks.lend(offset, length);
  }

  async seal({ goesOn = false }: { goesOn?: boolean } = {}): Promise<Seal> {
    if (goesOn && this.#map.unsettled) await this.flush();
    if (!goesOn && !this.readOnly) await this.#lane.run(() => this.#settle(() => this.#map.rest()));
    return this.#sealAtRest();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      if (!this.readOnly && this.#broken === null) await this.#lane.run(() => this.#settle(() => this.#map.rest()));
    } finally {
      try {
        await this.#blocks.file.close();
      } finally {
        await this.parent?.close();
      }
    }
  }

  #assertWritable(): void {
    if (this.readOnly) throw ioError('EPERM', `${this.location} is open read-only`);
    if (this.#broken !== null) throw this.#broken;
  }

  /** For a merge, before its first write: the child has been told what its parent's identity will be. */
  async beginAs(identity: string): Promise<void> {
    this.#assertWritable();
    if (this.#map.begun && this.format === 'vhdx') throw new TypeError(`${this.location} was written in this session already`);
    await this.#lane.run(() => this.#settle(() => this.#map.begin(identity)));
  }

  async #begin(): Promise<void> {
    if (!this.#map.begun) await this.#settle(() => this.#map.begin());
  }

  /** Runs what writes the image's own structures; its failure is for good. */
  async #settle(task: () => Promise<void>): Promise<void> {
    if (this.#broken !== null) throw this.#broken;
    try {
      await task();
    } catch (cause) {
      this.#broken = ioError('EIO', `${this.location} cannot be written any more: ${messageOf(cause)}`, cause);
      throw cause;
    }
  }

  async #writeBlock(block: number, from: Uint8Array, offset: number): Promise<void> {
    if (this.#blocks.stored(block, offset, offset + from.length)) return this.#writeStored(block, from, offset);
    await this.#lane.run(() => this.#writeMapped(block, from, offset));
  }

  async #writeStored(block: number, from: Uint8Array, offset: number): Promise<void> {
    this.#blocks.pins.hold(block);
    try {
      await this.#blocks.file.write([from], this.#map.position(block) + offset - block * this.#map.blockSize);
    } finally {
      this.#blocks.pins.release(block);
    }
  }

  /** In the lane: a write that makes a block or a sector present. */
  async #writeMapped(block: number, from: Uint8Array, offset: number): Promise<void> {
    if (this.#broken !== null) throw this.#broken;
    const end = offset + from.length;
    if (this.#map.state(block) === 'partial') await this.#map.loadBits(block);
    if (this.#blocks.stored(block, offset, end)) return this.#writeStored(block, from, offset);
    const state = this.#map.state(block);
    if (state === 'partial') return this.#writeSectors(block, from, offset);
    const base = block * this.#map.blockSize;
    const whole = offset === base && end >= Math.min(base + this.#map.blockSize, this.virtualSize);
    const hidesParent = state === 'zero' || this.parent === null || whole;
    const room = await this.#map.reserve(block);
    try {
      if (hidesParent) await this.#fillRoom(room, from, offset - base);
      else
        await this.#blocks.file.write(
          await this.#withEdges(block, from, offset),
          room.position + floorTo(offset - base, this.#map.sectorSize),
        );
    } catch (error) {
      this.#map.abandon(room);
      throw error;
    }
    await this.#settle(() => this.#map.publish(block, room, hidesParent ? 'full' : 'partial'));
    if (!hidesParent) await this.#markWritten(block, offset, end);
  }

  /** Writes into new room, with zeroes around. */
  async #fillRoom(room: { position: number; fresh: boolean }, from: Uint8Array, start: number): Promise<void> {
    if (!room.fresh) {
      await this.#writeZeroes(room.position, start);
      await this.#writeZeroes(room.position + start + from.length, this.#map.blockSize - start - from.length);
    }
    await this.#blocks.file.write([from], room.position + start);
  }

  async #writeZeroes(position: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += CHUNK_BYTES) {
      await this.#blocks.file.write([ZEROES.subarray(0, Math.min(CHUNK_BYTES, length - done))], position + done);
    }
  }

  /** In the lane: a write to a partial block whose bits are in memory. */
  async #writeSectors(block: number, from: Uint8Array, offset: number): Promise<void> {
    const base = block * this.#map.blockSize;
    const buffers = await this.#withEdges(block, from, offset);
    const lead = buffers.length > 0 && buffers[0] !== from ? buffers[0]!.length : 0;
    this.#blocks.pins.hold(block);
    try {
      await this.#blocks.file.write(buffers, this.#map.position(block) + offset - base - lead);
    } finally {
      this.#blocks.pins.release(block);
    }
    await this.#markWritten(block, offset, offset + from.length);
  }

  async #markWritten(block: number, start: number, end: number): Promise<void> {
    const { blockSize, sectorSize } = this.#map;
    const base = block * blockSize;
    while (this.#map.state(block) === 'partial' && this.#map.bits(block) === undefined) await this.#map.loadBits(block);
    this.#map.markPresent(block, Math.floor((start - base) / sectorSize), Math.ceil((end - base) / sectorSize));
  }

  /**
   * The data with the rest of its first and last sector around it, as those sectors read now. A sector that is stored
   * already gets no rest: another write may be changing the other bytes of that sector at this moment.
   */
  async #withEdges(block: number, from: Uint8Array, offset: number): Promise<Uint8Array[]> {
    const { sectorSize } = this.#map;
    const stored = (at: number) => this.#blocks.stored(block, at, at + 1);
    const end = offset + from.length;
    const head = offset % sectorSize;
    const tail = (sectorSize - (end % sectorSize)) % sectorSize;
    const buffers: Uint8Array[] = [from];
    if (head > 0 && !stored(offset)) buffers.unshift(await this.#around(offset - head, head));
    if (tail > 0 && !stored(end - 1)) buffers.push(await this.#around(end, tail));
    return buffers;
  }

  async #around(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const inside = Math.max(0, Math.min(length, this.virtualSize - offset));
    await this.#blocks.readParent(bytes.subarray(0, inside), offset);
    return bytes;
  }

  async #zeroWholeBlock(block: number): Promise<void> {
    const zeroed = this.#map.zeroedState!;
    if (this.#map.state(block) === zeroed) return;
    await this.#lane.run(async () => {
      if (this.#broken !== null) throw this.#broken;
      if (this.#map.state(block) === zeroed) return;
      this.#map.vacate(block, zeroed);
      await this.#blocks.pins.drained(block);
    });
  }

  async #zeroPart(block: number, start: number, end: number): Promise<void> {
    const state = this.#map.state(block);
    if (state === 'zero' || (state === 'absent' && this.parent === null)) return;
    if (state === 'absent' && (await this.#blocks.parentReadsZero(start, end - start))) return;
    for (let at = start; at < end; at += CHUNK_BYTES) {
      await this.#writeBlock(block, ZEROES.subarray(0, Math.min(CHUNK_BYTES, end - at)), at);
    }
  }
}
