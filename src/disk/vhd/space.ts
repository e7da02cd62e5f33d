/** Which bytes of an image file are in use: hands out room for new blocks, from gaps first and then past the end. Pure. */

export interface Range {
  start: number;
  end: number;
}

export interface Room {
  /** Where the aligned part starts; `lead` bytes before it belong to the room too. */
  position: number;
  /** The room ends here. */
  end: number;
  /** True when the room lies past everything that was ever in use, so that a longer file reads as zeroes there. */
  fresh: boolean;
}

export class Space {
  readonly #free: Range[];
  #end: number;

  /** `free` and `end` as `layout` returns them. */
  constructor(free: Range[], end: number) {
    this.#free = free;
    this.#end = end;
  }

  /** The end of everything in use. */
  get end(): number {
    return this.#end;
  }

  get freeBytes(): number {
    return this.#free.reduce((sum, range) => sum + range.end - range.start, 0);
  }

  /** Room for `length` bytes at a multiple of `align`, with `lead` bytes before it. First fit, so that files stay short. */
  take(length: number, align: number, lead = 0): Room {
    const gap = this.takeGap(length, align, lead);
    if (gap !== null) return gap;
    const position = alignUp(this.#end + lead, align);
    const skipped = { start: this.#end, end: position - lead };
    this.#end = position + length;
    if (skipped.end > skipped.start) this.#insert(skipped);
    return { position, end: this.#end, fresh: true };
  }

  /** The first gap that is large enough and ends at or below `below`; null when there is none. */
  takeGap(length: number, align: number, lead = 0, below = Infinity): Room | null {
    for (let index = 0; index < this.#free.length; index++) {
      const range = this.#free[index]!;
      const position = alignUp(range.start + lead, align);
      const end = position + length;
      if (end > below) return null;
      if (end > range.end) continue;
      const rest: Range[] = [];
      if (position - lead > range.start) rest.push({ start: range.start, end: position - lead });
      if (end < range.end) rest.push({ start: end, end: range.end });
      this.#free.splice(index, 1, ...rest);
      return { position, end, fresh: false };
    }
    return null;
  }

  /** Gives a range back. It may be handed out again at once: the caller waits until nothing on disk points to it. */
  give(range: Range): void {
    this.#insert(range);
  }

  #insert(range: Range): void {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#free[middle]!.start < range.start) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const start = before !== undefined && before.end === range.start ? before.start : range.start;
    const end = after !== undefined && after.start === range.end ? after.end : range.end;
    const first = start === range.start ? low : low - 1;
    const count = (start === range.start ? 0 : 1) + (end === range.end ? 0 : 1);
    this.#free.splice(first, count, { start, end });
  }
}

export const alignUp = (value: number, align: number): number => Math.ceil(value / align) * align;

/**
 * The gaps between used ranges (sorted here) above `first`, or the two that overlap.
 */
export function layout(used: Range[], first: number): { free: Range[]; end: number } | { overlap: [Range, Range] } {
  used.sort((a, b) => a.start - b.start);
  const free: Range[] = [];
  let last: Range = { start: 0, end: first };
  for (const range of used) {
    if (range.end <= range.start) continue;
    if (range.start < last.end) return { overlap: [last, range] };
    if (range.start > last.end) free.push({ start: last.end, end: range.start });
    last = range;
  }
  return { free, end: last.end };
}
