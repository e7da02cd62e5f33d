/**
 * Writes an undo log: what a set of logs is about to overwrite (rule R14).
 *
 * Invariants
 * - What was committed is never written again: a writer goes on at the `end` that is on record, and cuts what a crash has left behind it.
 * - `finish` resolves when everything is on stable storage; only then may its `end` go on record, and only then the disk be written.
 * - Memory: one segment, 8 MiB of data.
 */
import { dirname } from 'node:path';
import { UnderstudyError } from '../model/errors.ts';
import type { Compute, Files, OpenFile } from '../model/ports.ts';
import { isZero } from '../model/zero-bytes.ts';
import {
  encodeIndex, encodeSegmentHeader, encodeUndoHeader, SEGMENT_PAGES_MAX, SEGMENT_RUNS_MAX, segmentBytes, UNDO_PAGE_BYTES,
  type UndoHeader, type UndoRun,
} from './undo-codec.ts';

export interface UndoPorts {
  files: Files;
  compute: Pick<Compute, 'digest'>;
}

export class UndoWriter {
  readonly path: string;
  #ports: UndoPorts;
  #file: OpenFile;
  #epoch: number;
  #position: number;
  #isNew: boolean;
  #runs: UndoRun[] = [];
  #pages: Uint8Array[] = [];
  #digests: Uint8Array[] = [];

  private constructor(ports: UndoPorts, file: OpenFile, epoch: number, position: number, isNew: boolean) {
    this.#ports = ports;
    this.#file = file;
    this.path = file.path;
    this.#epoch = epoch;
    this.#position = position;
    this.#isNew = isNew;
  }

  /**
   * Goes on at `end`, the bytes that are on record; 0 makes the file anew. `epoch`: the set whose overwritten content comes now.
   * @throws UNDO_LOG_DAMAGED when the file is shorter than `end`, or has gone
   */
  static async open(ports: UndoPorts, path: string, header: UndoHeader, end: number, epoch: number): Promise<UndoWriter> {
    const { files } = ports;
    if (end === 0) {
      await files.remove(path);
      const file = await files.open(path, 'create');
      const writer = new UndoWriter(ports, file, epoch, UNDO_PAGE_BYTES, true);
      return closingOnError(file, async () => {
        await file.write([encodeUndoHeader(header)], 0);
        return writer;
      });
    }
    const stat = await files.stat(path);
    if (stat === null || stat.size < end) throw damagedUndo(path, stat === null ? 'it has gone' : `it has ${stat.size} bytes of ${end}`);
    const file = await files.open(path, 'write');
    return closingOnError(file, async () => {
      if (stat.size > end) await file.truncate(end);
      return new UndoWriter(ports, file, epoch, end, false);
    });
  }

  /** Whole pages of the disk as they are now, from `page` on; what is zero becomes a mark. Pages come once, in any order. */
  async add(page: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += UNDO_PAGE_BYTES) {
      const content = bytes.subarray(at, at + UNDO_PAGE_BYTES);
      const number = page + at / UNDO_PAGE_BYTES;
      if (isZero(content)) {
        await this.addZeroes(number, 1);
        continue;
      }
      if (this.#pages.length === SEGMENT_PAGES_MAX) await this.#seal();
      const last = this.#runs.at(-1);
      if (last !== undefined && last.ordinal !== null && last.page + last.pages === number) last.pages++;
      else await this.#begin({ page: number, pages: 1, ordinal: this.#pages.length });
      // The caller goes on to use its memory.
      this.#pages.push(content.slice());
      this.#digests.push(this.#ports.compute.digest(content));
    }
  }

  async addZeroes(page: number, pages: number): Promise<void> {
    const last = this.#runs.at(-1);
    if (last !== undefined && last.ordinal === null && last.page + last.pages === page && last.pages + pages < 2 ** 32) last.pages += pages;
    else await this.#begin({ page, pages, ordinal: null });
  }

  /** Makes it durable; the bytes that count from now on. */
  async finish(): Promise<number> {
    await this.#seal();
    await this.#file.datasync();
    if (this.#isNew) await this.#ports.files.syncFolder(dirname(this.path));
    return this.#position;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #begin(run: UndoRun): Promise<void> {
    if (this.#runs.length === SEGMENT_RUNS_MAX) {
      await this.#seal();
      if (run.ordinal !== null) run.ordinal = 0;
    }
    this.#runs.push(run);
  }

  async #seal(): Promise<void> {
    const runs = this.#runs.sort((a, b) => a.page - b.page);
    if (runs.length === 0) return;
    const index = encodeIndex(runs, this.#digests);
    const shape = { dataPages: this.#pages.length, runs: runs.length };
    const header = encodeSegmentHeader({ ...shape, epoch: this.#epoch, indexDigest: this.#ports.compute.digest(index) });
    const size = segmentBytes(shape);
    const padding = Buffer.alloc(size - UNDO_PAGE_BYTES * (1 + shape.dataPages) - index.length);
    await this.#file.write([header, Buffer.concat(this.#pages), index, padding], this.#position);
    this.#position += size;
    [this.#runs, this.#pages, this.#digests] = [[], [], []];
  }
}

async function closingOnError<T>(file: OpenFile, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await file.close();
    throw error;
  }
}

export const damagedUndo = (path: string, reason: string): UnderstudyError =>
  new UnderstudyError('io', 'UNDO_LOG_DAMAGED', `the undo log ${path} cannot be used: ${reason}`,
    'Choose the latest or a newer recovery point: only this point and older ones need it.');
