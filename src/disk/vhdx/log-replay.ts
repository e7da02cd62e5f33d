import type { OpenFile } from '../../model/ports.ts';
import { MIB } from './header.ts';
import { LOG_SECTOR } from './log-entry.ts';
import type { LogEntry } from './log-entry.ts';

/** What a log changes, as the last word for each 4 KiB sector of the file. */
export class ReplayedSectors {
  readonly #sectors = new Map<number, Uint8Array | null>();
  readonly #zeroes: { start: number; end: number; order: number }[] = [];
  readonly #orders = new Map<number, number>();
  /** Replay makes the file at least this long. */
  readonly fileSize: number;

  constructor(entries: readonly LogEntry[], fileSize: number) {
    let order = 0;
    let end = fileSize;
    for (const entry of entries) {
      for (const write of entry.writes) {
        order += 1;
        if ('zeroes' in write) {
          this.#zeroes.push({ start: write.offset, end: write.offset + write.zeroes, order });
          end = Math.max(end, write.offset + write.zeroes);
          continue;
        }
        this.#sectors.set(write.offset / LOG_SECTOR, write.bytes);
        this.#orders.set(write.offset / LOG_SECTOR, order);
        end = Math.max(end, write.offset + LOG_SECTOR);
      }
    }
    this.fileSize = Math.max(end, entries[entries.length - 1]?.lastFileOffset ?? 0);
  }

  /** Puts the log's bytes over what was read from the file at `position`. */
  apply(bytes: Uint8Array, position: number): void {
    const end = position + bytes.length;
    for (const range of this.#zeroes) {
      const start = Math.max(range.start, position);
      if (start < Math.min(range.end, end)) bytes.fill(0, start - position, Math.min(range.end, end) - position);
    }
    const put = (sector: number, content: Uint8Array) => {
      // A zero descriptor that came later has the last word.
      const base = sector * LOG_SECTOR;
      const order = this.#orders.get(sector)!;
      if (this.#zeroes.some((range) => range.order > order && range.start <= base && base < range.end)) return;
      const from = Math.max(base, position);
      const to = Math.min(base + LOG_SECTOR, end);
      if (from < to) bytes.set(content.subarray(from - base, to - base), from - position);
    };
    const first = Math.floor(position / LOG_SECTOR);
    const last = Math.ceil(end / LOG_SECTOR);
    if (last - first < this.#sectors.size) {
      for (let sector = first; sector < last; sector++) {
        const content = this.#sectors.get(sector);
        if (content !== undefined && content !== null) put(sector, content);
      }
    } else for (const [sector, content] of this.#sectors) if (content !== null) put(sector, content);
  }
}

/**
 * A file as it will be after replay; for reading only. [MS-VHDX] note 5: nothing may be read before the log is
 * replayed.
 */
export function replayedInMemory(file: OpenFile, sectors: ReplayedSectors): OpenFile {
  const refuse = () => Promise.reject(Object.assign(new Error(`${file.path} is open for reading`), { code: 'EROFS' }));
  return {
    path: file.path,
    async read(into, position) {
      const count = Math.max(0, Math.min(into.length, sectors.fileSize - position));
      const piece = into.subarray(0, count);
      const stored = await file.read(piece, position);
      piece.fill(0, stored);
      sectors.apply(piece, position);
      return count;
    },
    write: refuse,
    truncate: refuse,
    datasync: () => Promise.resolve(),
    size: () => Promise.resolve(sectors.fileSize),
    close: () => file.close(),
  };
}

/** Writes what the log says to where it belongs, oldest first, and makes it durable. May be done any number of times. */
export async function replayToFile(file: OpenFile, entries: readonly LogEntry[]): Promise<void> {
  for (const entry of entries) {
    for (const write of entry.writes) {
      if ('bytes' in write) await file.write([write.bytes], write.offset);
      else await writeZeroes(file, write.offset, write.zeroes);
    }
  }
  const last = entries[entries.length - 1]?.lastFileOffset ?? 0;
  if (last > (await file.size())) await file.truncate(last);
  await file.datasync();
}

export async function writeZeroes(file: OpenFile, position: number, length: number): Promise<void> {
  const zeroes = new Uint8Array(Math.min(length, MIB));
  const inside = Math.max(0, Math.min(position + length, await file.size()) - position);
  for (let done = 0; done < inside; done += MIB) {
    await file.write([zeroes.subarray(0, Math.min(MIB, inside - done))], position + done);
  }
  if (inside < length) await file.truncate(position + length);
}
