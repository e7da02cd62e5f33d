/**
 * A disk seen through layers: each holds some stretches of it, the first layer that holds a byte answers for it, the base for the
 * rest. Read-only. So an older recovery point is the replica disk seen through undo logs, and the latest one is the replica disk seen
 * through the logs that are not applied yet.
 *
 * Invariant: what a layer holds is never read from below. So the base may be written there meanwhile, as long as it is
 * written with what the layers hold.
 */
import { ioError } from './disk-errors.ts';
import { DiskOverBase } from './disk-over-base.ts';
import { assertInside, type Extent, type Seal, type VirtualDisk } from './virtual-disk.ts';

export interface LayerPiece {
  offset: number;
  length: number;
  /** Null: not held. `zero`: reads as zeroes. Else fills `into` from this byte of the disk on. */
  from: null | 'zero' | ((into: Uint8Array, offset: number) => Promise<void>);
}

export interface DiskLayer {
  /** Pieces that cover the range from start to end, in order. */
  pieces(offset: number, length: number): LayerPiece[];
  close(): Promise<void>;
}

/** How much of a disk is looked at in one step where all of it is. */
export const STRIDE_BYTES = 64 << 20;

export class LayeredDisk extends DiskOverBase implements VirtualDisk {
  readonly readOnly = true;
  readonly discardReadsZero = false;
  #base: VirtualDisk;
  #layers: readonly DiskLayer[];

  /** All belong to it from here on. `size`: the disk's at that instant; beyond the base's end are zeroes. */
  constructor(base: VirtualDisk, layers: readonly DiskLayer[], size: number) {
    super(base, { size });
    this.#base = base;
    this.#layers = layers;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    await this.#read(into, offset, 0);
  }

  async write(): Promise<void> {
    throw readOnly(this.location);
  }

  async zero(): Promise<void> {
    throw readOnly(this.location);
  }

  async discard(): Promise<void> {}

  async flush(): Promise<void> {}

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertInside(this, offset, length);
    for (let at = offset; at < offset + length; at += STRIDE_BYTES) {
      yield* this.#extents(at, Math.min(STRIDE_BYTES, offset + length - at), 0);
    }
  }

  async seal(): Promise<Seal> {
    return { kind: 'none', reason: 'a past instant has no marks of its own' };
  }

  async close(): Promise<void> {
    for (const layer of this.#layers) await layer.close();
    await this.#base.close();
  }

  /** What the layers hold, in order of the disk: what makes a disk of the base once it is written there. */
  async *held(): AsyncGenerator<LayerPiece & { from: NonNullable<LayerPiece['from']> }> {
    for (let at = 0; at < this.virtualSize; at += STRIDE_BYTES) {
      yield* this.#held(at, Math.min(STRIDE_BYTES, this.virtualSize - at), 0);
    }
  }

  async #read(into: Uint8Array, offset: number, level: number): Promise<void> {
    const layer = this.#layers[level];
    if (layer === undefined) return this.#readBase(into, offset);
    await Promise.all(layer.pieces(offset, into.length).map(async (piece) => {
      const part = into.subarray(piece.offset - offset, piece.offset - offset + piece.length);
      if (piece.from === null) await this.#read(part, piece.offset, level + 1);
      else if (piece.from === 'zero') part.fill(0);
      else await piece.from(part, piece.offset);
    }));
  }

  async #readBase(into: Uint8Array, offset: number): Promise<void> {
    const there = Math.max(0, Math.min(into.length, this.#base.virtualSize - offset));
    into.fill(0, there);
    if (there > 0) await this.#base.read(into.subarray(0, there), offset);
  }

  async *#extents(offset: number, length: number, level: number): AsyncGenerator<Extent> {
    const layer = this.#layers[level];
    if (layer === undefined) {
      const there = Math.max(0, Math.min(length, this.#base.virtualSize - offset));
      if (there > 0) yield* this.#base.extents(offset, there);
      if (there < length) yield { offset: offset + there, length: length - there, kind: 'zero' };
      return;
    }
    for (const piece of layer.pieces(offset, length)) {
      if (piece.from === null) yield* this.#extents(piece.offset, piece.length, level + 1);
      else yield { offset: piece.offset, length: piece.length, kind: piece.from === 'zero' ? 'zero' : 'data' };
    }
  }

  *#held(offset: number, length: number, level: number): Generator<LayerPiece & { from: NonNullable<LayerPiece['from']> }> {
    const layer = this.#layers[level];
    if (layer === undefined) return;
    for (const piece of layer.pieces(offset, length)) {
      if (piece.from === null) yield* this.#held(piece.offset, piece.length, level + 1);
      else yield { ...piece, from: piece.from };
    }
  }
}

const readOnly = (location: string): Error => ioError('EPERM', `${location} is seen at a past instant and cannot be written`);

/** Pieces with their gaps filled: what layers hold comes in order, and says nothing of the rest. */
export function withGaps(offset: number, length: number, held: Iterable<LayerPiece>): LayerPiece[] {
  const all: LayerPiece[] = [];
  let at = offset;
  for (const piece of held) {
    if (piece.offset > at) all.push({ offset: at, length: piece.offset - at, from: null });
    all.push(piece);
    at = piece.offset + piece.length;
  }
  if (at < offset + length) all.push({ offset: at, length: offset + length - at, from: null });
  return all;
}
