/**
 * Tracking logs that wait in the inbox as a layer over a replica disk (src/disk/layered-disk.ts): the newest entry that holds a byte
 * answers for it, read from the log where it lies. So the latest instant is served without applying anything first, and a log that
 * was applied in part is no mixture: what of it is in the disk already is read from the log all the same (R13).
 *
 * Memory: 26 bytes for each entry and 4 for each 1 MiB of the disk it touches; whoever opens it bounds the entries.
 */
import type { Files, OpenFile } from '../model/ports.ts';
import { withGaps, type DiskLayer, type LayerPiece } from '../disk/layered-disk.ts';
import { openLog } from '../hrl/log-reader.ts';

const BUCKET_BYTES = 1 << 20;
/** Longer entries (a discarded disk) are few, and looked at for every read. */
const WIDE_BYTES = 64 * BUCKET_BYTES;

export interface LayeredLog {
  path: string;
  /** Of the disk in that epoch. */
  diskSize: number;
  entries: number;
}

export class LogLayer implements DiskLayer {
  #files: OpenFile[];
  #offset: Float64Array;
  #length: Float64Array;
  /** Where the data begins in its file; -1: zeroes. */
  #position: Float64Array;
  #file: Uint16Array;
  /** Numbers of entries by bucket, in log order; those of bucket `b` lie from `start(b)` on. */
  #buckets = new Map<number, { from: number; count: number }>();
  #inBuckets: Uint32Array;
  #wide: number[] = [];

  private constructor(files: OpenFile[], count: number) {
    this.#files = files;
    this.#offset = new Float64Array(count);
    this.#length = new Float64Array(count);
    this.#position = new Float64Array(count);
    this.#file = new Uint16Array(count);
    this.#inBuckets = new Uint32Array(0);
  }

  /** Opens verified logs of one disk, oldest first. Rejects as `openLog` and its entries do. */
  static async open(files: Files, logs: readonly LayeredLog[]): Promise<LogLayer> {
    const opened: OpenFile[] = [];
    const layer = new LogLayer(opened, logs.reduce((sum, { entries }) => sum + entries, 0));
    try {
      let count = 0;
      for (const { path, diskSize } of logs) {
        count = await layer.#take(files, path, diskSize, count, opened.length);
        opened.push(await files.open(path, 'read'));
      }
      layer.#index(count);
      return layer;
    } catch (error) {
      await layer.close();
      throw error;
    }
  }

  pieces(offset: number, length: number): LayerPiece[] {
    const held: LayerPiece[] = [];
    const end = offset + length;
    for (let bucket = Math.floor(offset / BUCKET_BYTES); bucket * BUCKET_BYTES < end; bucket++) {
      this.#inBucket(bucket, Math.max(offset, bucket * BUCKET_BYTES), Math.min(end, (bucket + 1) * BUCKET_BYTES), held);
    }
    return withGaps(offset, length, held);
  }

  async close(): Promise<void> {
    for (const file of this.#files.splice(0)) await file.close();
  }

  async #take(files: Files, path: string, diskSize: number, from: number, file: number): Promise<number> {
    const reader = await openLog(files, path, { diskSize });
    let count = from;
    try {
      for await (const { op, offset, length, position } of reader.entries()) {
        this.#offset[count] = offset;
        this.#length[count] = length;
        this.#position[count] = op === 'zero' ? -1 : position;
        this.#file[count++] = file;
      }
    } finally {
      await reader.close();
    }
    return count;
  }

  #index(count: number): void {
    let places = 0;
    const each = (work: (bucket: number, entry: number) => void) => {
      for (let entry = 0; entry < count; entry++) {
        if (this.#length[entry]! > WIDE_BYTES) continue;
        const last = Math.floor((this.#offset[entry]! + this.#length[entry]! - 1) / BUCKET_BYTES);
        for (let bucket = Math.floor(this.#offset[entry]! / BUCKET_BYTES); bucket <= last; bucket++) work(bucket, entry);
      }
    };
    each((bucket) => {
      const known = this.#buckets.get(bucket);
      if (known === undefined) this.#buckets.set(bucket, { from: 0, count: 1 });
      else known.count++;
    });
    for (const bucket of this.#buckets.values()) {
      bucket.from = places;
      places += bucket.count;
      bucket.count = 0;
    }
    this.#inBuckets = new Uint32Array(places);
    each((bucket, entry) => {
      const known = this.#buckets.get(bucket)!;
      this.#inBuckets[known.from + known.count++] = entry;
    });
    for (let entry = 0; entry < count; entry++) if (this.#length[entry]! > WIDE_BYTES) this.#wide.push(entry);
  }

  /** Newest first; what an entry holds of the gaps that are left is its own. */
  #inBucket(bucket: number, start: number, end: number, held: LayerPiece[]): void {
    const found: LayerPiece[] = [];
    let gaps = [{ from: start, to: end }];
    for (const entry of this.#entriesOf(bucket)) {
      const [from, to] = [this.#offset[entry]!, this.#offset[entry]! + this.#length[entry]!];
      if (to <= start || end <= from) continue;
      gaps = gaps.flatMap((gap) => {
        const [first, last] = [Math.max(gap.from, from), Math.min(gap.to, to)];
        if (first >= last) return [gap];
        found.push(this.#piece(entry, first, last));
        return [{ from: gap.from, to: first }, { from: last, to: gap.to }].filter((rest) => rest.from < rest.to);
      });
      if (gaps.length === 0) break;
    }
    held.push(...found.sort((a, b) => a.offset - b.offset));
  }

  #entriesOf(bucket: number): Iterable<number> {
    const known = this.#buckets.get(bucket);
    const own = known === undefined ? [] : [...this.#inBuckets.subarray(known.from, known.from + known.count)];
    return (this.#wide.length === 0 ? own : [...own, ...this.#wide].sort((a, b) => a - b)).reverse();
  }

  #piece(entry: number, from: number, to: number): LayerPiece {
    const position = this.#position[entry]!;
    if (position < 0) return { offset: from, length: to - from, from: 'zero' };
    const file = this.#files[this.#file[entry]!]!;
    const shift = position - this.#offset[entry]!;
    return { offset: from, length: to - from, from: async (into, offset) => {
      if ((await file.read(into, offset + shift)) === into.length) return;
      throw Object.assign(new Error(`${file.path} ended before ${offset + shift + into.length}`), { code: 'EIO' });
    } };
  }
}
