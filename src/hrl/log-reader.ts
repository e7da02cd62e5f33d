/**
 * Reads closed tracking logs: ours, and those of Windows as far as MS-HRL describes them. All bytes are from outside:
 * every length and position is checked against the file and the disk before it is used.
 */
import { addBytes, complement } from './byte-sum.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { Files, OpenFile } from '../model/ports.ts';
import {
  dataBytesOf, decodeBlockHeader, decodeEntry, decodeHeader, HEADER_BYTES, SLOT_BYTES, slotsOf,
  type LogHeader, type Malformed, type RawEntry,
} from './codec.ts';
import { WindowedFile } from './windowed-file.ts';

export type { LogHeader, RawEntry } from './codec.ts';

export interface LogEntry extends RawEntry {
  /** Where the data begins in the log; 0 for `zero`. */
  position: number;
}

export interface LogLimits {
  /** Guest size of the disk the log is for: an entry outside of it is LOG_OUT_OF_BOUNDS (R26). */
  diskSize: number;
  /** One reader that goes through the log in order, waiting for each answer: memory is used again. */
  onePass?: boolean;
}

export interface LogTotals {
  entries: number;
  /** Sum of the lengths of `write` entries. */
  dataBytes: number;
  zeroBytes: number;
}

const VERIFY_BYTES = 1 << 20;
/** Metadata that is read at once, by `entriesApart`. */
const METADATA_READ_BYTES = 64 << 10;

/** Rejects only when the file cannot be read. */
export async function readLogHeader(file: OpenFile): Promise<LogHeader | Malformed> {
  const bytes = Buffer.alloc(HEADER_BYTES);
  return decodeHeader(bytes.subarray(0, await file.read(bytes, 0)));
}

/**
 * Opens a closed log and checks its header and the chain of its blocks. Rejects with LOG_NOT_CLOSED, with LOG_INVALID
 * and the reason, or with the error of the system. Memory: 8 bytes per metadata block (127 entries) and a window of 1
 * MiB.
 */
export async function openLog(files: Files, path: string, limits: LogLimits): Promise<LogReader> {
  const file = await files.open(path, 'read');
  try {
    const header = await readLogHeader(file);
    if ('malformed' in header) throw invalid(path, header.malformed);
    if (header.endOfLog === 0) {
      const remedy = 'Recover it with its index, or resynchronize: writes may be missing from it.';
      throw new UnderstudyError('io', 'LOG_NOT_CLOSED', `${path} was not closed`, remedy);
    }
    const size = await file.size();
    if (header.endOfLog > size) throw invalid(path, `it ends at ${header.endOfLog}, the file has ${size} bytes`);
    const blocks = await readChain(file, header);
    if ('malformed' in blocks) throw invalid(path, blocks.malformed);
    return new LogReader(path, file, header, blocks, limits);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Positions of the metadata blocks, first to last. The chain runs strictly backwards, so it ends. */
async function readChain(file: OpenFile, header: LogHeader): Promise<number[] | Malformed> {
  const bytes = Buffer.alloc(SLOT_BYTES);
  const positions: number[] = [];
  let entries = 0;
  for (let position = header.endOfLog - header.metadataSize; ;) {
    if (position < HEADER_BYTES) return { malformed: `a metadata block at ${position}, inside the header` };
    const block = decodeBlockHeader(bytes.subarray(0, await file.read(bytes, position)), header.metadataSize);
    if ('malformed' in block) return { malformed: `metadata block at ${position}: ${block.malformed}` };
    positions.push(position);
    entries += block.entries;
    if (block.distance === 0) break;
    if (block.distance < header.metadataSize) {
      return { malformed: `metadata block at ${position}: the block before it is ${block.distance} bytes back` };
    }
    position -= block.distance;
  }
  if (entries !== header.totalEntries && header.totalEntries !== 0) {
    return { malformed: `the header counts ${header.totalEntries} entries, the blocks ${entries}` };
  }
  return positions.reverse();
}

export class LogReader {
  readonly path: string;
  readonly header: LogHeader;
  readonly #file: OpenFile;
  readonly #blocks: readonly number[];
  readonly #limits: LogLimits;
  readonly #window: WindowedFile;

  /** For `openLog` only. */
  constructor(path: string, file: OpenFile, header: LogHeader, blocks: readonly number[], limits: LogLimits) {
    this.path = path;
    this.header = header;
    this.#file = file;
    this.#blocks = blocks;
    this.#limits = limits;
    this.#window = new WindowedFile(file, header.endOfLog, limits.onePass);
  }

  /**
   * In log order, which is the order of the guest's writes. A block's entries are checked before the first of them is
   * given out. Throws LOG_INVALID or LOG_OUT_OF_BOUNDS.
   */
  async *entries(): AsyncGenerator<LogEntry, void, void> {
    for (const index of this.#blocks.keys()) yield* await this.#entriesOf(index);
  }

  /** At least as many as there are entries. */
  get entriesMax(): number {
    return this.#blocks.length * slotsOf(this.header.metadataSize);
  }

  /** As `entries`, a few blocks at once, and without reading the data between them. */
  async *entriesApart(): AsyncGenerator<LogEntry[], void, void> {
    const step = Math.max(1, Math.floor(METADATA_READ_BYTES / this.header.metadataSize));
    for (let first = 0; first < this.#blocks.length; first += step) {
      const indexes = Array.from({ length: Math.min(step, this.#blocks.length - first) }, (_, more) => first + more);
      yield (await Promise.all(indexes.map((index) => this.#entriesOf(index)))).flat();
    }
  }

  /** Fills `into` with bytes of the log, which must be below its end. */
  async readBytes(into: Uint8Array, position: number): Promise<void> {
    await this.#window.copy(into, position);
  }

  /** Fills `into` with the data of a `write` entry, from byte `skip` of it on. `verify` is what checks it. */
  async readData(entry: LogEntry, into: Uint8Array, skip = 0): Promise<void> {
    if (entry.op !== 'write' || skip < 0 || skip + into.length > entry.length) {
      throw new RangeError(`bytes ${skip}+${into.length} of a ${entry.op} entry of ${entry.length}`);
    }
    await this.#window.copy(into, entry.position + skip);
  }

  /**
   * Reads the whole log once: bounds, entries, data (R13: before the first write of an apply). Throws as `entries`
   * does.
   */
  async verify(): Promise<LogTotals> {
    const totals: LogTotals = { entries: 0, dataBytes: 0, zeroBytes: 0 };
    for (const index of this.#blocks.keys()) {
      for (const entry of await this.#entriesOf(index)) {
        totals.entries += 1;
        if (entry.op === 'zero') totals.zeroBytes += entry.length;
        else {
          totals.dataBytes += entry.length;
          // Nothing is waited for where the data is at hand, as it is for most: a wait costs more than the sum of a page.
          const held = this.#window.held(entry.position, entry.length);
          if (held === null) await this.#verifyData(entry);
          else this.#checkSum(entry, addBytes(0, held));
        }
      }
    }
    return totals;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #verifyData(entry: LogEntry): Promise<void> {
    if (entry.dataChecksum === 0) return;
    let sum = 0;
    for (let from = 0; from < entry.length; from += VERIFY_BYTES) {
      sum = addBytes(sum, await this.#window.bytes(entry.position + from, Math.min(VERIFY_BYTES, entry.length - from)));
    }
    this.#checkSum(entry, sum);
  }

  #checkSum(entry: LogEntry, sum: number): void {
    const computed = complement(sum);
    if (entry.dataChecksum !== 0 && computed !== entry.dataChecksum) {
      throw invalid(this.path, `data at ${entry.position}: checksum ${entry.dataChecksum}, but the data give ${computed}`);
    }
  }

  async #entriesOf(index: number): Promise<LogEntry[]> {
    const block = this.#blocks[index]!;
    const dataFrom = index === 0 ? HEADER_BYTES : this.#blocks[index - 1]! + this.header.metadataSize;
    const bytes = await this.#window.apart(block, this.header.metadataSize);
    const about = decodeBlockHeader(bytes, this.header.metadataSize);
    const broken = (reason: string): UnderstudyError => invalid(this.path, `metadata block at ${block}: ${reason}`);
    if ('malformed' in about) throw broken(about.malformed);
    const entries: LogEntry[] = [];
    let position = dataFrom;
    for (let slot = 0; slot < about.entries; slot++) {
      const entry = decodeEntry(bytes, slot);
      if ('malformed' in entry) throw broken(`entry ${slot}: ${entry.malformed}`);
      if (entry.offset + entry.length > this.#limits.diskSize) throw this.#outOfBounds(entry);
      entries.push({ ...entry, position: entry.op === 'write' ? position : 0 });
      position += dataBytesOf(entry);
    }
    if (position !== block) {
      throw broken(`${block - dataFrom} bytes of data before it, its entries have ${position - dataFrom}`);
    }
    return entries;
  }

  #outOfBounds(entry: RawEntry): UnderstudyError {
    const message = `${this.path} writes up to byte ${entry.offset + entry.length}, the disk has ${this.#limits.diskSize} bytes`;
    const remedy = 'Check the sizes of both disks; enlarge the smaller one, then resume replication.';
    return new UnderstudyError('io', 'LOG_OUT_OF_BOUNDS', message, remedy);
  }
}

function invalid(path: string, reason: string): UnderstudyError {
  const message = `${path} is not a valid tracking log: ${reason}`;
  return new UnderstudyError('io', 'LOG_INVALID', message, 'Have it sent again, or resynchronize.');
}
