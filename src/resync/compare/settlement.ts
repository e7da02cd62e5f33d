/** What is decided so far: which segments are proven equal, how many bytes, and up to where without a gap. Pure. */
import type { Decision } from './options.ts';
import type { ByteRange, Selection } from './selection.ts';
import { segmentCount, segmentPositions } from './segment-scan.ts';
import { type TreeShape, segmentLeaves } from './tree-shape.ts';

export class Settlement {
  readonly #selection: Selection;
  readonly #shape: TreeShape;
  readonly #segments: number;
  readonly #onDecided: ((decision: Decision, range: ByteRange) => void) | undefined;
  /** Positions not yet proven, ascending, per segment that is located but not complete. */
  readonly #pending = new Map<number, Set<number>>();
  readonly #complete = new Set<number>();
  #through = 0;
  #bytes = 0;

  constructor(selection: Selection, shape: TreeShape, onDecided?: (decision: Decision, range: ByteRange) => void) {
    this.#onDecided = onDecided;
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

  /** Everything selected before this offset of the disk is proven; inside a segment up to the first leaf that is not. */
  get cursor(): number {
    return this.#selection.cursorAfter(this.#withoutGap());
  }

  /** Bytes selected before the cursor. */
  get cursorBytes(): number {
    return this.#selection.bytesOf(0, this.#withoutGap());
  }

  /** How many positions are proven without a gap. */
  #withoutGap(): number {
    const [first] = this.#pending.get(this.#through) ?? [];
    return first ?? Math.min(this.#selection.count, this.#through * segmentLeaves(this.#shape));
  }

  /** All leaves of the segment but the listed positions, ascending, are proven equal. `isZero` is asked only where somebody looks on. */
  located(segment: number, differing: readonly number[], isZero: (position: number) => boolean = () => false): void {
    const { first, count } = segmentPositions(segment, this.#selection, this.#shape);
    const pending = new Set(differing);
    if (this.#onDecided !== undefined) this.#tell(first, count, pending, isZero);
    this.#bytes += this.#selection.bytesOf(first, count);
    for (const position of differing) this.#bytes -= this.#selection.rangeAt(position).length;
    this.#pending.set(segment, pending);
    this.#completeIfDone(segment);
  }

  /** One leaf that differed is proven. */
  proven(position: number): void {
    const segment = Math.floor(position / segmentLeaves(this.#shape));
    if (this.#pending.get(segment)?.delete(position) !== true) throw new RangeError(`leaf ${position} was not pending`);
    const range = this.#selection.rangeAt(position);
    this.#bytes += range.length;
    this.#onDecided?.('mended', range);
    this.#completeIfDone(segment);
  }

  /** Neighbours of one kind are told together. A segment has thousands of leaves, and a guest waits meanwhile: numbers only, no objects. */
  #tell(first: number, count: number, differing: ReadonlySet<number>, isZero: (position: number) => boolean): void {
    const decisionAt = (position: number): Decision => (differing.has(position) ? 'differing' : isZero(position) ? 'hole' : 'equal');
    for (const run of this.#selection.runsOf(first, count)) {
      const end = run.position + run.count;
      for (let from = run.position; from < end;) {
        const decision = decisionAt(from);
        let to = from + 1;
        while (to < end && decisionAt(to) === decision) to++;
        const { offset } = this.#selection.rangeAt(from);
        this.#onDecided!(decision, { offset, length: this.#selection.bytesOf(from, to - from) });
        from = to;
      }
    }
  }

  #completeIfDone(segment: number): void {
    if (this.#pending.get(segment)?.size !== 0) return;
    this.#pending.delete(segment);
    this.#complete.add(segment);
    while (this.#complete.delete(this.#through)) this.#through++;
  }
}
