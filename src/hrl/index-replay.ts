/** Rebuilds the state of an open log from the frames of its index, in order: pure. */
import { METADATA_BYTES } from './codec.ts';
import { FinishMarks } from './finish-marks.ts';
import { recordsIn, type ScannedFrame } from './index-scan.ts';
import { INDEX_HEADER_BYTES, type Frame } from './log-index.ts';
import { LogLayout } from './log-layout.ts';

/**
 * A logged write whose disk write may not have happened: read the range back from the disk and append what it holds
 * (R2).
 */
export interface UnfinishedRecord {
  number: number;
  op: 'write' | 'zero';
  offset: number;
  length: number;
}

export interface PlacedBlock {
  position: number;
  bytes: Buffer;
}

export interface Contradiction {
  contradiction: string;
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
   * The metadata blocks that this frame must have put into the log, or why a whole frame contradicts those before it: no
   * crash does that.
   */
  expect(frame: Frame): { blocks: PlacedBlock[] } | Contradiction {
    const trial = this.#layout.clone();
    const contradiction = this.#headContradiction(frame);
    if (contradiction !== null) return { contradiction };
    const blocks: PlacedBlock[] = [];
    for (const entry of frame.entries) {
      if (entry.length === 0 || entry.offset + entry.length > this.#diskSize) {
        return { contradiction: `an entry ${entry.offset}+${entry.length} on a disk of ${this.#diskSize} bytes` };
      }
      const { position, block } = trial.place(entry);
      if (position !== entry.position) return { contradiction: `an entry at ${entry.position}, expected at ${position}` };
      if (block !== null) blocks.push({ position: trial.position - METADATA_BYTES, bytes: block });
    }
    const length = trial.position - frame.position;
    return length === frame.length ? { blocks } : { contradiction: `a batch of ${frame.length} bytes, expected ${length}` };
  }

  #headContradiction(frame: Frame): string | null {
    const { firstRecord, acknowledged, finishedBelow, position, marks, entries } = frame;
    if (firstRecord !== this.#recordCount) return `record ${firstRecord} follows ${this.#recordCount} records`;
    if (position !== this.#layout.position) return `a batch at ${position}, expected at ${this.#layout.position}`;
    if (acknowledged > firstRecord || finishedBelow > acknowledged || marks.some((mark) => mark >= acknowledged)) {
      return `before record ${firstRecord} others finished that had not been written`;
    }
    return entries.length > 0 && !entries[0]!.startsRecord ? `record ${firstRecord} has no beginning` : null;
  }

  /** Takes a frame that `expect` found right and that is known to be whole in the log too. */
  accept({ frame, end }: ScannedFrame): void {
    let number = frame.firstRecord - 1;
    for (const entry of frame.entries) {
      this.#layout.place(entry);
      const { op, offset, length, startsRecord } = entry;
      if (startsRecord) this.#unfinished.set(++number, { number, op, offset, length });
      else this.#unfinished.get(number)!.length += length;
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
