/**
 * Which leaves of a disk are compared, as an ascending list of runs. A *position* numbers the selected leaves without
 * gaps, so that a compare of a few suspect regions and of a whole disk are the same program. Pure.
 */

export interface ByteRange {
  offset: number;
  length: number;
}

/** Consecutive leaves of the disk that are selected; `position` is that of the first one. */
export interface LeafRun {
  leaf: number;
  count: number;
  position: number;
}

export class Selection {
  readonly #runs: readonly LeafRun[];
  readonly #virtualSize: number;
  readonly #leafBytes: number;
  /** How many leaves are selected. */
  readonly count: number;
  /** Bytes of the selected leaves; the last leaf of a disk may be short. */
  readonly totalBytes: number;

  private constructor(runs: readonly LeafRun[], virtualSize: number, leafBytes: number) {
    this.#runs = runs;
    this.#virtualSize = virtualSize;
    this.#leafBytes = leafBytes;
    const last = runs.at(-1);
    this.count = last === undefined ? 0 : last.position + last.count;
    this.totalBytes = this.bytesOf(0, this.count);
  }

  /** Ranges may overlap and come in any order; they are rounded outwards to whole leaves and cut to the disk. */
  static ofRanges(ranges: readonly ByteRange[], virtualSize: number, leafBytes: number): Selection {
    const bounds = ranges
      .filter(({ offset, length }) => length > 0 && offset < virtualSize)
      .map(({ offset, length }) => ({
        first: Math.floor(Math.max(0, offset) / leafBytes),
        end: Math.ceil(Math.min(virtualSize, offset + length) / leafBytes),
      }))
      .filter(({ first, end }) => end > first)
      .sort((a, b) => a.first - b.first);
    const merged: { first: number; end: number }[] = [];
    for (const { first, end } of bounds) {
      const last = merged.at(-1);
      if (last !== undefined && first <= last.end) last.end = Math.max(last.end, end);
      else merged.push({ first, end });
    }
    return Selection.ofRuns(
      merged.map(({ first, end }) => [first, end - first]),
      virtualSize,
      leafBytes,
    );
  }

  static whole(virtualSize: number, leafBytes: number): Selection {
    return Selection.ofRanges([{ offset: 0, length: virtualSize }], virtualSize, leafBytes);
  }

  /**
   * Pairs of first leaf and count, ascending, disjoint and inside the disk: the caller has checked what came from
   * outside.
   */
  static ofRuns(
    pairs: readonly (readonly [leaf: number, count: number])[],
    virtualSize: number,
    leafBytes: number,
  ): Selection {
    let position = 0;
    const runs = pairs.map(([leaf, count]) => {
      const run = { leaf, count, position };
      position += count;
      return run;
    });
    return new Selection(runs, virtualSize, leafBytes);
  }

  get runs(): readonly LeafRun[] {
    return this.#runs;
  }

  /** True when every leaf of the disk is selected. */
  get isWhole(): boolean {
    return this.count === Math.ceil(this.#virtualSize / this.#leafBytes);
  }

  leafAt(position: number): number {
    const run = this.#runs[this.#runIndex(position)]!;
    return run.leaf + (position - run.position);
  }

  /** Where the leaf at a position lies; `length` is short only at the end of the disk. */
  rangeAt(position: number): ByteRange {
    const offset = this.leafAt(position) * this.#leafBytes;
    return { offset, length: Math.min(this.#leafBytes, this.#virtualSize - offset) };
  }

  /** The pieces of disk that the positions `[first, first + count)` cover, in order. */
  runsOf(first: number, count: number): LeafRun[] {
    const pieces: LeafRun[] = [];
    let position = first;
    for (let index = count > 0 ? this.#runIndex(first) : 0; position < first + count; index++) {
      const run = this.#runs[index]!;
      const length = Math.min(run.position + run.count, first + count) - position;
      pieces.push({ leaf: run.leaf + (position - run.position), count: length, position });
      position += length;
    }
    return pieces;
  }

  /** Bytes of the positions `[first, first + count)`. */
  bytesOf(first: number, count: number): number {
    if (count === 0) return 0;
    const end = this.rangeAt(first + count - 1);
    return (count - 1) * this.#leafBytes + end.length;
  }

  /**
   * The offset before which everything selected lies in the first `count` positions; the end of the disk when that is
   * all.
   */
  cursorAfter(count: number): number {
    if (count === this.count) return this.#virtualSize;
    if (count === 0) return 0;
    const { offset, length } = this.rangeAt(count - 1);
    return offset + length;
  }

  #runIndex(position: number): number {
    if (position < 0 || position >= this.count) throw new RangeError(`position ${position} of ${this.count}`);
    let low = 0;
    let high = this.#runs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#runs[middle]!.position <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
