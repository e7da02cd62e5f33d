/** Rebuilds the state of an open log from the frames of its index, in order: pure. */
import { METADATA_BYTES } from './codec.ts';
import { FinishMarks } from './finish-marks.ts';
import { recordsIn, type ScannedFrame } from './index-scan.ts';
import { INDEX_HEADER_BYTES, type Frame } from './log-index.ts';
import { LogLayout } from './log-layout.ts';

/** A logged write whose disk write may not have happened: read the range back from the disk and append what it holds (R2). */
export interface UnfinishedRecord {
  number: number;
  op: 'write' | 'zero';
  offset: number;
  length: number;
}

export class IndexReplay {
  readonly #diskSize: number;
  #layout = new LogLayout();
  #indexEnd = INDEX_HEADER_BYTES;
  #recordCount = 0;
  #lastTimestamp: number | null = null;
  #finishedBelow = 0;
  readonly #finishedAbove = new Set<number>();
  readonly #unfinished = new Map<number, UnfinishedRecord>();

  constructor(diskSize: number) {
    this.#diskSize = diskSize;
  }

  get layout(): LogLayout {
    return this.#layout;
  }

  get indexEnd(): number {
    return this.#indexEnd;
  }

  get recordCount(): number {
    return this.#recordCount;
  }

  /** Null when nothing was appended. */
  get lastTimestamp(): number | null {
    return this.#lastTimestamp;
  }

  /** In log order. */
  unfinished(): UnfinishedRecord[] {
    return [...this.#unfinished.values()];
  }

  marks(): FinishMarks {
    return new FinishMarks(this.#finishedBelow, this.#finishedAbove);
  }

  /**
   * The metadata blocks that this frame must have put into the log, or why a whole frame contradicts those before it: no crash
   * does that.
   */
  expect(frame: Frame): { blocks: { position: number; bytes: Buffer }[] } | { contradiction: string } {
    const trial = this.#layout.clone();
    const blocks: { position: number; bytes: Buffer }[] = [];
    if (frame.firstRecord !== this.#recordCount) return { contradiction: `record ${frame.firstRecord} follows ${this.#recordCount} records` };
    if (frame.position !== trial.position) return { contradiction: `a batch at ${frame.position}, expected at ${trial.position}` };
    if (frame.acknowledged > frame.firstRecord || frame.finishedBelow > frame.acknowledged || frame.marks.some((mark) => mark >= frame.acknowledged)) {
      return { contradiction: `record ${frame.firstRecord} finished before it was written` };
    }
    if (frame.entries.length > 0 && !frame.entries[0]!.startsRecord) return { contradiction: `record ${frame.firstRecord} has no beginning` };
    for (const entry of frame.entries) {
      if (entry.length === 0 || entry.offset + entry.length > this.#diskSize) {
        return { contradiction: `an entry ${entry.offset}+${entry.length} on a disk of ${this.#diskSize} bytes` };
      }
      const { position, block } = trial.place(entry);
      if (position !== entry.position) return { contradiction: `an entry at ${entry.position}, expected at ${position}` };
      if (block !== null) blocks.push({ position: trial.position - METADATA_BYTES, bytes: block });
    }
    if (trial.position - frame.position !== frame.length) return { contradiction: `a batch of ${frame.length} bytes, expected ${trial.position - frame.position}` };
    return { blocks };
  }

  /** Takes a frame that `expect` found right and that is known to be whole in the log too. */
  accept({ frame, end }: ScannedFrame): void {
    let number = frame.firstRecord - 1;
    for (const entry of frame.entries) {
      this.#layout.place(entry);
      if (entry.startsRecord) this.#unfinished.set(++number, { number, op: entry.op, offset: entry.offset, length: entry.length });
      else this.#unfinished.get(number)!.length += entry.length;
    }
    this.#recordCount += recordsIn(frame);
    this.#indexEnd = end;
    if (frame.entries.length > 0) this.#lastTimestamp = frame.timestamp;
    for (const mark of frame.marks) {
      this.#finishedAbove.add(mark);
      this.#unfinished.delete(mark);
    }
    for (; this.#finishedBelow < frame.finishedBelow; this.#finishedBelow++) {
      this.#finishedAbove.delete(this.#finishedBelow);
      this.#unfinished.delete(this.#finishedBelow);
    }
  }
}
