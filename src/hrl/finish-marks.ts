/**
 * Which records' disk writes have finished: pure. All below `finishedBelow`, and some above. Memory grows with the
 * distance between the oldest unfinished record and the newest, that is with the writes in flight.
 */
export class FinishMarks {
  #below: number;
  readonly #above = new Set<number>();
  #unsaved: number[] = [];
  #savedBelow: number;

  constructor(finishedBelow = 0, above: Iterable<number> = []) {
    this.#below = finishedBelow;
    this.#savedBelow = finishedBelow;
    for (const number of above) this.#above.add(number);
    this.#advance();
  }

  /** Finished records in all. */
  get count(): number {
    return this.#below + this.#above.size;
  }

  /** True when `drain` would have news. */
  get dirty(): boolean {
    return this.#unsaved.length > 0 || this.#below > this.#savedBelow;
  }

  /** Marking twice is the same as once. */
  mark(number: number): void {
    if (number < this.#below || this.#above.has(number)) return;
    this.#above.add(number);
    this.#unsaved.push(number);
    this.#advance();
  }

  /** What a frame must carry to make all marks so far readable, given that the frames before it are. */
  drain(): { finishedBelow: number; marks: number[] } {
    const marks = this.#unsaved.filter((number) => number >= this.#below);
    this.#unsaved = [];
    this.#savedBelow = this.#below;
    return { finishedBelow: this.#below, marks };
  }

  #advance(): void {
    while (this.#above.delete(this.#below)) this.#below += 1;
  }
}
