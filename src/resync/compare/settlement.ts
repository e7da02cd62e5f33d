/** What is decided so far: which segments are proven equal, how many bytes, and up to where without a gap. Pure. */
import type { Selection } from './selection.ts';
import { segmentCount, segmentPositions } from './segment-scan.ts';
import { type TreeShape, segmentLeaves } from './tree-shape.ts';

export class Settlement {
  readonly #selection: Selection;
  readonly #shape: TreeShape;
  readonly #segments: number;
  /** Leaves not yet proven, per segment that is located but not complete. */
  readonly #pending = new Map<number, number>();
  readonly #complete = new Set<number>();
  #through = 0;
  #bytes = 0;

  constructor(selection: Selection, shape: TreeShape) {
    this.#selection = selection;
    this.#shape = shape;
    this.#segments = segmentCount(selection, shape);
  }

  /** Segments complete without a gap. */
  get through(): number {
    return this.#through;
  }

  get done(): boolean {
    return this.#through === this.#segments;
  }

  get comparedBytes(): number {
    return this.#bytes;
  }

  /** Everything selected before this offset of the disk is proven. */
  get cursor(): number {
    return this.#selection.cursorAfter(Math.min(this.#selection.count, this.#through * segmentLeaves(this.#shape)));
  }

  /** All leaves of the segment but the listed positions are proven equal. */
  located(segment: number, differing: readonly number[]): void {
    const { first, count } = segmentPositions(segment, this.#selection, this.#shape);
    this.#bytes += this.#selection.bytesOf(first, count);
    for (const position of differing) this.#bytes -= this.#selection.rangeAt(position).length;
    this.#pending.set(segment, differing.length);
    this.#completeIfDone(segment);
  }

  /** One leaf that differed is proven. */
  proven(position: number): void {
    const segment = Math.floor(position / segmentLeaves(this.#shape));
    const left = this.#pending.get(segment);
    if (left === undefined || left === 0) throw new RangeError(`leaf ${position} was not pending`);
    this.#pending.set(segment, left - 1);
    this.#bytes += this.#selection.rangeAt(position).length;
    this.#completeIfDone(segment);
  }

  #completeIfDone(segment: number): void {
    if (this.#pending.get(segment) !== 0) return;
    this.#pending.delete(segment);
    this.#complete.add(segment);
    while (this.#complete.delete(this.#through)) this.#through++;
  }
}
