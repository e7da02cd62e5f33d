/**
 * What a sparse image holds, read: where the bytes of a range are, in the file, in a parent, or nowhere.
 *
 * Invariant: between looking up the place of a block and pinning the block nothing is awaited, so nobody gives its room to another block
 * in between.
 */
import type { OpenFile } from '../../model/ports.ts';
import { settleAll } from '../../model/settle-all.ts';
import { ioError } from '../disk-errors.ts';
import type { Extent, LentRuns } from '../virtual-disk.ts';
import type { BlockMap } from './block-map.ts';
import { pieces, type Run } from './block-ranges.ts';
import type { Pins } from './lane.ts';
import { allSet, isSet, runEnd } from './sector-bits.ts';
import type { SparseDisk } from './sparse-disk.ts';

interface StoredIn {
  location: string;
  file: OpenFile;
  map: BlockMap;
  parent: SparseDisk | null;
  pins: Pins;
}

export class StoredBlocks {
  readonly location: string;
  readonly file: OpenFile;
  readonly parent: SparseDisk | null;
  readonly pins: Pins;
  /** Another one after the disk has grown. */
  map: BlockMap;

  constructor({ location, file, map, parent, pins }: StoredIn) {
    this.location = location;
    this.file = file;
    this.map = map;
    this.parent = parent;
    this.pins = pins;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    if (into.length === 0) return;
    const { blockSize } = this.map;
    const first = Math.floor(offset / blockSize);
    if (offset + into.length <= (first + 1) * blockSize) return this.#readBlock(first, into, offset);
    const parts: Promise<void>[] = [];
    for (const [block, start, end] of pieces(offset, into.length, blockSize)) {
      parts.push(this.#readBlock(block, into.subarray(start - offset, end - offset), start));
    }
    await settleAll(parts);
  }

  async *extents(offset: number, length: number): AsyncIterable<Extent> {
    let last: Extent | null = null;
    for await (const run of this.runs(offset, length)) {
      for await (const extent of this.#extentsOf(run)) {
        if (last !== null && last.kind === extent.kind) last.length += extent.length;
        else {
          if (last !== null) yield last;
          last = { ...extent };
        }
      }
    }
    if (last !== null) yield last;
  }

  /** Where the bytes of a range are, in order and without gaps: what a merge copies and what it leaves. */
  async *runs(offset: number, length: number): AsyncIterable<Run> {
    for (const [block, start, end] of pieces(offset, length, this.map.blockSize)) {
      await this.#load(block);
      yield* [...this.#runsOf(block, start, end)]; // At once: the bits may leave memory while the caller works.
    }
  }

  /** Each block whose room the range touches is pinned until the release. */
  async lend(offset: number, length: number): Promise<LentRuns> {
    const held: number[] = [];
    const lent: LentRuns = { runs: [], release: () => held.splice(0).forEach((block) => this.pins.release(block)) };
    try {
      for (const [block, start, end] of pieces(offset, length, this.map.blockSize)) {
        await this.#load(block);
        // The pins are set in the same breath as the places are looked up, as in `#readBlock`.
        const runs = [...this.#runsOf(block, start, end)];
        for (const { from, ...place } of runs) {
          if (from !== 'file') continue;
          this.pins.hold(block);
          held.push(block);
          lent.runs.push({ ...place, file: 0 });
        }
        // A parent is open for reading only: nothing in it moves.
        for (const run of runs) if (run.from === 'parent') lent.runs.push(...await this.#lentByParent(run));
      }
    } catch (error) {
      lent.release();
      throw error;
    }
    return lent;
  }

  /** The bits of a partial block are in memory, or it has become something else meanwhile. */
  async #load(block: number): Promise<void> {
    while (this.map.state(block) === 'partial' && this.map.bits(block) === undefined) await this.map.loadBits(block);
  }

  async #lentByParent({ offset, length }: Run): Promise<LentRuns['runs']> {
    const inside = Math.max(0, Math.min(length, this.parent!.virtualSize - offset));
    if (inside === 0) return [];
    const { runs, release } = await this.parent!.lend(offset, inside);
    release();
    return runs.map((run) => ({ ...run, file: run.file + 1 }));
  }

  async #readBlock(block: number, into: Uint8Array, offset: number): Promise<void> {
    await this.#load(block);
    // From here to the end of the loop nothing is awaited: the pin is set in the same breath as the place is looked up.
    const parts: Promise<void>[] = [];
    for (const run of this.#runsOf(block, offset, offset + into.length)) {
      const piece = into.subarray(run.offset - offset, run.offset - offset + run.length);
      if (run.from === 'zero') piece.fill(0);
      else if (run.from === 'parent') parts.push(this.readParent(piece, run.offset));
      else parts.push(this.#readFile(block, piece, run.position));
    }
    await settleAll(parts);
  }

  async #readFile(block: number, into: Uint8Array, position: number): Promise<void> {
    this.pins.hold(block);
    try {
      const count = await this.file.read(into, position);
      if (count < into.length)
        throw ioError('EIO', `${this.location} ends at ${position + count}, inside of block ${block}`);
    } finally {
      this.pins.release(block);
    }
  }

  /** A child may be larger than its parent: there it reads as zeroes. */
  async readParent(into: Uint8Array, offset: number): Promise<void> {
    const inside = this.parent === null ? 0 : Math.max(0, Math.min(into.length, this.parent.virtualSize - offset));
    into.fill(0, inside);
    if (inside > 0) await this.parent!.read(into.subarray(0, inside), offset);
  }

  *#runsOf(block: number, start: number, end: number): Iterable<Run> {
    const { blockSize, sectorSize } = this.map;
    const state = this.map.state(block);
    const base = block * blockSize;
    const absent = this.parent === null ? 'zero' : 'parent';
    if (state === 'absent' || state === 'zero') {
      yield { offset: start, length: end - start, from: state === 'zero' ? 'zero' : absent, position: 0 };
      return;
    }
    const position = this.map.position(block) - base;
    if (state === 'full') {
      yield* fullRuns(start, end, position, this.map.stale);
      return;
    }
    const bits = this.map.bits(block)!;
    const lastSector = Math.ceil((end - base) / sectorSize);
    for (let at = start; at < end;) {
      const sector = Math.floor((at - base) / sectorSize);
      const runStop = Math.min(end, base + runEnd(bits, sector, lastSector) * sectorSize);
      yield { offset: at, length: runStop - at, from: isSet(bits, sector) ? 'file' : absent, position: position + at };
      at = runStop;
    }
  }

  async *#extentsOf(run: Run): AsyncIterable<Extent> {
    if (run.from !== 'parent') {
      yield { offset: run.offset, length: run.length, kind: run.from === 'file' ? 'data' : 'zero' };
      return;
    }
    const inside = Math.max(0, Math.min(run.length, this.parent!.virtualSize - run.offset));
    if (inside > 0) yield* this.parent!.extents(run.offset, inside);
    if (inside < run.length) yield { offset: run.offset + inside, length: run.length - inside, kind: 'zero' };
  }

  /** True when every sector of the range is stored, as far as memory knows. */
  stored(block: number, start: number, end: number): boolean {
    const state = this.map.state(block);
    if (state === 'full') return true;
    if (state !== 'partial') return false;
    const bits = this.map.bits(block);
    const { blockSize, sectorSize } = this.map;
    const base = block * blockSize;
    return bits !== undefined && allSet(bits, Math.floor((start - base) / sectorSize), Math.ceil((end - base) / sectorSize));
  }

  async parentReadsZero(offset: number, length: number): Promise<boolean> {
    for await (const extent of this.#extentsOf({ offset, length, from: 'parent', position: 0 })) {
      if (extent.kind === 'data') return false;
    }
    return true;
  }
}

/** Of a block that is all here, but for what is there and means nothing. */
function* fullRuns(start: number, end: number, position: number, stale: BlockMap['stale']): Iterable<Run> {
  const [from, to] = [Math.max(start, stale?.start ?? end), Math.min(end, stale?.end ?? end)];
  if (from >= to) {
    yield { offset: start, length: end - start, from: 'file', position: position + start };
    return;
  }
  if (from > start) yield { offset: start, length: from - start, from: 'file', position: position + start };
  yield { offset: from, length: to - from, from: 'zero', position: 0 };
  if (to < end) yield { offset: to, length: end - to, from: 'file', position: position + to };
}
