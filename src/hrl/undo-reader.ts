/**
 * Reads an undo log. All its indexes are checked when it is opened, its data page by page when they are read: so a point is served
 * at once however large it is, and no damage goes unseen.
 *
 * Memory: 20 bytes for each run of pages, of which there is at most one for each page that was overwritten while the point was the
 * newest.
 */
import { UnderstudyError } from '../model/errors.ts';
import type { Files, OpenFile } from '../model/ports.ts';
import type { Malformed } from './codec.ts';
import {
  decodeRuns, decodeSegmentHeader, decodeUndoHeader, indexBytes, SEGMENT_PAGES_MAX, segmentBytes, UNDO_DIGEST_BYTES, UNDO_PAGE_BYTES,
  UNDO_RUN_BYTES, type UndoHeader, type UndoRun,
} from './undo-codec.ts';
import { damagedUndo, type UndoPorts } from './undo-writer.ts';

/** Data pages read and checked at once. */
const READ_PAGES = 256;

/** A stretch of the disk that the log holds: `place` of its first page, or null for zeroes. */
export interface UndoPiece {
  page: number;
  pages: number;
  place: number | null;
}

interface Segment {
  dataAt: number;
  digestsAt: number;
}

export class UndoReader {
  readonly path: string;
  readonly header: UndoHeader;
  #file: OpenFile;
  #digest: (data: Uint8Array) => Uint8Array;
  #segments: Segment[];
  /** First pages, sorted; the other columns belong to them. */
  #first: Float64Array;
  #pages: Uint32Array;
  /** Segment number × SEGMENT_PAGES_MAX + ordinal; -1: zeroes. */
  #place: Float64Array;

  private constructor(ports: UndoPorts, file: OpenFile, header: UndoHeader, segments: Segment[], runs: SortedRuns) {
    this.path = file.path;
    this.header = header;
    this.#file = file;
    this.#digest = (data) => ports.compute.digest(data);
    this.#segments = segments;
    [this.#first, this.#pages, this.#place] = [runs.first, runs.pages, runs.place];
  }

  /** Opens what is on record: the first `end` bytes. @throws UNDO_LOG_DAMAGED */
  static async open(ports: UndoPorts, path: string, end: number): Promise<UndoReader> {
    const file = await openExisting(ports.files, path);
    try {
      const header = decodeUndoHeader(await block(file, 0));
      if ('malformed' in header) throw damagedUndo(path, header.malformed);
      const segments: Segment[] = [];
      const runs = new RunColumns();
      for (let at = UNDO_PAGE_BYTES; at < end; ) {
        const read = await readSegment(ports, file, at, end);
        if ('malformed' in read) throw damagedUndo(path, `the segment at ${at}: ${read.malformed}`);
        const number = segments.push({ dataAt: at + UNDO_PAGE_BYTES, digestsAt: read.digestsAt }) - 1;
        for (const { page, pages, ordinal } of read.runs) {
          runs.push(page, pages, ordinal === null ? -1 : number * SEGMENT_PAGES_MAX + ordinal);
        }
        at += read.size;
      }
      const sorted = runs.sorted();
      if (sorted === null) throw damagedUndo(path, 'two of its runs overlap');
      return new UndoReader(ports, file, header, segments, sorted);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get runs(): number {
    return this.#first.length;
  }

  /** What it holds of these pages, in order; gaps are left out. */
  *pieces(page: number, pages: number): Generator<UndoPiece> {
    const end = page + pages;
    for (let run = this.#runAt(page); run < this.#first.length && this.#first[run]! < end; run++) {
      const first = this.#first[run]!;
      const from = Math.max(first, page);
      const until = Math.min(first + this.#pages[run]!, end);
      const place = this.#place[run]!;
      if (until > from) yield { page: from, pages: until - from, place: place < 0 ? null : place + (from - first) };
    }
  }

  /** Fills `into`, whole pages, from `place` of a piece on. @throws UNDO_LOG_DAMAGED when a digest does not match */
  async read(into: Uint8Array, place: number): Promise<void> {
    const segment = this.#segments[Math.floor(place / SEGMENT_PAGES_MAX)]!;
    const ordinal = place % SEGMENT_PAGES_MAX;
    for (let done = 0; done < into.length; done += READ_PAGES * UNDO_PAGE_BYTES) {
      const data = into.subarray(done, done + READ_PAGES * UNDO_PAGE_BYTES);
      const first = ordinal + done / UNDO_PAGE_BYTES;
      const digests = Buffer.alloc((data.length / UNDO_PAGE_BYTES) * UNDO_DIGEST_BYTES);
      const at = segment.dataAt + first * UNDO_PAGE_BYTES;
      const counts = await Promise.all([
        this.#file.read(data, at), this.#file.read(digests, segment.digestsAt + first * UNDO_DIGEST_BYTES)]);
      if (counts[0] !== data.length || counts[1] !== digests.length) throw damagedUndo(this.path, `it is cut at ${at}`);
      this.#check(data, digests, at);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #check(data: Uint8Array, digests: Buffer, at: number): void {
    for (let page = 0; page * UNDO_PAGE_BYTES < data.length; page++) {
      const found = this.#digest(data.subarray(page * UNDO_PAGE_BYTES, (page + 1) * UNDO_PAGE_BYTES));
      const kept = digests.subarray(page * UNDO_DIGEST_BYTES, (page + 1) * UNDO_DIGEST_BYTES);
      if (kept.compare(found, 0, UNDO_DIGEST_BYTES) !== 0) {
        throw damagedUndo(this.path, `the page at ${at + page * UNDO_PAGE_BYTES} does not have its digest`);
      }
    }
  }

  /** The run that holds the page, else the first one after it. */
  #runAt(page: number): number {
    let [low, high] = [0, this.#first.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#first[middle]! + this.#pages[middle]! <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface SortedRuns {
  first: Float64Array;
  pages: Uint32Array;
  place: Float64Array;
}

/** Grows by doubling; arrays of numbers, since objects would cost five times as much. */
class RunColumns {
  #count = 0;
  #first = new Float64Array(1024);
  #pages = new Uint32Array(1024);
  #place = new Float64Array(1024);

  push(page: number, pages: number, place: number): void {
    if (this.#count === this.#first.length) {
      this.#first = grown(this.#first, new Float64Array(this.#count * 2));
      this.#pages = grown(this.#pages, new Uint32Array(this.#count * 2));
      this.#place = grown(this.#place, new Float64Array(this.#count * 2));
    }
    this.#first[this.#count] = page;
    this.#pages[this.#count] = pages;
    this.#place[this.#count++] = place;
  }

  /** By first page; null when two runs overlap. */
  sorted(): SortedRuns | null {
    // Keys are sorted alone, which is fast, and then say where each run goes: they are unique unless two runs overlap.
    const first = this.#first.slice(0, this.#count).sort();
    const pages = new Uint32Array(this.#count);
    const place = new Float64Array(this.#count);
    for (let run = 0; run < this.#count; run++) {
      const to = indexOf(first, this.#first[run]!);
      pages[to] = this.#pages[run]!;
      place[to] = this.#place[run]!;
    }
    for (let run = 1; run < this.#count; run++) if (first[run - 1]! + pages[run - 1]! > first[run]! || pages[run] === 0) return null;
    return { first, pages, place };
  }
}

function grown<T extends Float64Array | Uint32Array>(from: T, into: T): T {
  into.set(from);
  return into;
}

function indexOf(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function openExisting(files: Files, path: string): Promise<OpenFile> {
  try {
    return await files.open(path, 'read');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw damagedUndo(path, 'it has gone');
    throw new UnderstudyError('io', 'UNDO_LOG_DAMAGED', `the undo log ${path} cannot be opened: ${String(code)}`,
      'Choose the latest or a newer recovery point, or give the file its rights back.', { cause });
  }
}

async function block(file: OpenFile, at: number): Promise<Buffer> {
  const bytes = Buffer.alloc(UNDO_PAGE_BYTES);
  return bytes.subarray(0, await file.read(bytes, at));
}

async function readSegment(
  ports: UndoPorts, file: OpenFile, at: number, end: number,
): Promise<{ size: number; digestsAt: number; runs: UndoRun[] } | Malformed> {
  const header = decodeSegmentHeader(await block(file, at));
  if ('malformed' in header) return header;
  const size = segmentBytes(header);
  if (at + size > end) return { malformed: `it ends at ${at + size}, the log at ${end}` };
  const indexAt = at + UNDO_PAGE_BYTES * (1 + header.dataPages);
  const index = Buffer.alloc(indexBytes(header.runs, header.dataPages));
  if ((await file.read(index, indexAt)) !== index.length) return { malformed: 'it is cut' };
  if (Buffer.compare(ports.compute.digest(index), header.indexDigest) !== 0) return { malformed: 'its index does not have its digest' };
  const runs = decodeRuns(index, header);
  return 'malformed' in runs ? runs : { size, digestsAt: indexAt + header.runs * UNDO_RUN_BYTES, runs };
}
