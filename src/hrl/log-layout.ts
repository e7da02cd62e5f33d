/**
 * Where the bytes of an open log go: pure. Data as it comes; after every 127 entries a metadata block that describes
 * them. An empty block follows the header at once, as in the published example: so every log has a block, and a log
 * without writes is whole.
 *
 * A record is split where its length would not fit: a `write` at 16 MiB, because up to there a byte sum finds every
 * torn write (see log-recovery.ts), a `zero` at 1 GiB.
 */
import { addBytes, complement } from './byte-sum.ts';
import { dataBytesOf, encodeBlock, HEADER_BYTES, METADATA_BYTES, slotsOf, type RawEntry } from './codec.ts';

export const ENTRY_BYTES_MAX = { write: 16 << 20, zero: 1 << 30 } as const;
export const ENTRIES_PER_BLOCK = slotsOf(METADATA_BYTES);

/** One guest write, or one zeroed range. `data` must stay untouched until the append has settled. */
export type LogRecord =
  | { op: 'write'; offset: number; data: Uint8Array }
  | { op: 'zero'; offset: number; length: number };

export interface PlacedEntry extends RawEntry {
  /** Where its data begins in the log; for `zero`, where data would begin. */
  position: number;
  /** False for the second and later pieces of a split record. */
  startsRecord: boolean;
}

/** What comes next and what the next block must hold. Positions are bytes in the log file. */
export class LogLayout {
  #position = HEADER_BYTES + METADATA_BYTES;
  #lastBlock = HEADER_BYTES;
  #pending: RawEntry[] = [];
  #entries = 0;

  /** The bytes between the file's start and the first data: room for the header, then the empty block. */
  static firstBlock(): Buffer {
    return encodeBlock(0, []);
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#position;
  }

  get entries(): number {
    return this.#entries;
  }

  clone(): LogLayout {
    const copy = new LogLayout();
    copy.#position = this.#position;
    copy.#lastBlock = this.#lastBlock;
    copy.#pending = [...this.#pending];
    copy.#entries = this.#entries;
    return copy;
  }

  /**
   * Takes the position for one entry. Returns the metadata block that must follow its data, when that entry filled
   * one.
   */
  place(entry: RawEntry): { position: number; block: Buffer | null } {
    const position = this.#position;
    this.#position += dataBytesOf(entry);
    this.#pending.push(entry);
    this.#entries += 1;
    return { position, block: this.#pending.length === ENTRIES_PER_BLOCK ? this.endBlock() : null };
  }

  /** The block for what is pending, at `position`; null when nothing is. */
  endBlock(): Buffer | null {
    if (this.#pending.length === 0) return null;
    const block = encodeBlock(this.#position - this.#lastBlock, this.#pending);
    this.#lastBlock = this.#position;
    this.#position += METADATA_BYTES;
    this.#pending = [];
    return block;
  }
}

/** Bytes of the virtual disk. */
export function lengthOf(record: LogRecord): number {
  return record.op === 'write' ? record.data.length : record.length;
}

/** Lays out one batch: what to write to the log at `position`, and what its index must say. */
export function placeBatch(
  layout: LogLayout, records: readonly LogRecord[], timestamp: number,
): { position: number; buffers: Uint8Array[]; length: number; entries: PlacedEntry[] } {
  const start = layout.position;
  const buffers: Uint8Array[] = [];
  const entries: PlacedEntry[] = [];
  for (const record of records) {
    const [length, longest] = [lengthOf(record), ENTRY_BYTES_MAX[record.op]];
    for (let from = 0; from < length; from += longest) {
      const size = Math.min(longest, length - from);
      const data = record.op === 'write' ? (size === length ? record.data : record.data.subarray(from, from + size)) : null;
      const entry: PlacedEntry = {
        op: record.op, offset: record.offset + from, length: size, timestamp, dataChecksum: data === null ? 0 : complement(addBytes(0, data)),
        position: layout.position, startsRecord: from === 0,
      };
      entries.push(entry);
      const { block } = layout.place(entry);
      if (data !== null) buffers.push(data);
      if (block !== null) buffers.push(block);
    }
  }
  return { position: start, buffers, length: layout.position - start, entries };
}
