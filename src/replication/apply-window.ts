/**
 * A stretch of a log, turned into the writes that have the same effect: pure. What a later entry overwrites is not written, and
 * neighbours are joined, so that a disk is written once, forwards, in few and long writes.
 *
 * Invariant: the writes of one window do not overlap, so they may be done in any order and side by side. That the disk is meanwhile at
 * no instant of the log is nothing new: applying is redo (R13).
 */

/** Data held at once, and how many entries. */
export const WINDOW = { bytes: 16 << 20, entries: 4096 };
/** Longer writes gain nothing more. */
const JOINED_BYTES_MAX = 1 << 20;

export interface Range {
  offset: number;
  length: number;
}

/** `data`: null for zeroes. */
export interface Stroke extends Range {
  data: Uint8Array | null;
}

export class ApplyWindow {
  #writes: Stroke[] = [];
  #zeroes: Stroke[] = [];
  #bytes = 0;

  get isEmpty(): boolean {
    return this.#writes.length + this.#zeroes.length === 0;
  }

  /** False: take the strokes first, then add it. Zeroes share a window with nothing that they overlap, so that holes stay holes. */
  fits(next: Range, isZero: boolean): boolean {
    if (this.isEmpty) return true;
    if (this.#writes.length + this.#zeroes.length >= WINDOW.entries) return false;
    if (!isZero && this.#bytes + next.length > WINDOW.bytes) return false;
    if (this.#zeroes.some((other) => overlap(other, next))) return false;
    return !isZero || !this.#writes.some((other) => overlap(other, next));
  }

  add(stroke: Stroke): void {
    (stroke.data === null ? this.#zeroes : this.#writes).push(stroke);
    if (stroke.data !== null) this.#bytes += stroke.length;
  }

  /** What is to be done, in the order of the disk; the window is empty then. */
  take(): Stroke[] {
    const strokes = [...joined(this.#writes), ...this.#zeroes].sort((a, b) => a.offset - b.offset);
    [this.#writes, this.#zeroes, this.#bytes] = [[], [], 0];
    return strokes;
  }
}

const overlap = (a: Range, b: Range): boolean => a.offset < b.offset + b.length && b.offset < a.offset + a.length;

/** Writes that overlap become one, also when it is long; those that touch become one up to a length. `writes` are in log order. */
function* joined(writes: Stroke[]): Generator<Stroke> {
  const order = writes.map((_, index) => index).sort((a, b) => writes[a]!.offset - writes[b]!.offset || a - b);
  let run: number[] = [];
  let [start, end] = [0, 0];
  for (const index of order) {
    const { offset, length } = writes[index]!;
    const isJoined = run.length > 0 && (offset < end || (offset === end && offset + length - start <= JOINED_BYTES_MAX));
    if (!isJoined) {
      if (run.length > 0) yield painted(writes, run, start, end);
      [run, start, end] = [[], offset, offset];
    }
    run.push(index);
    end = Math.max(end, offset + length);
  }
  if (run.length > 0) yield painted(writes, run, start, end);
}

/** The run as one write: later entries over earlier ones. */
function painted(writes: Stroke[], run: number[], start: number, end: number): Stroke {
  const last = writes[Math.max(...run)]!;
  if (last.offset === start && last.length === end - start) return last;
  const data = new Uint8Array(end - start);
  for (const index of run.sort((a, b) => a - b)) data.set(writes[index]!.data!, writes[index]!.offset - start);
  return { offset: start, length: end - start, data };
}
