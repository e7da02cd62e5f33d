/**
 * A stretch of a log as numbers, and which of its writes need not be applied, because later ones of the same stretch overwrite all of them:
 * pure. A guest that writes a page many times in a cycle costs one write.
 *
 * Invariants
 * - What is left out is covered page by page by later writes, each of which is applied, or itself covered by later ones. Zeroes cover
 *   nothing and are never left out.
 * - Memory is bounded whatever the log and the disk: what there is no room to remember is applied.
 */
import type { LogEntry } from '../hrl/log-reader.ts';

/** Numbers of one stretch take 3 MiB. */
export const STRETCH_ENTRIES = 1 << 17;
const PAGE_BYTES = 4096;
/** Of a longer write no page is remembered: many would be, and few of such are written twice. */
const REMEMBERED_PAGES_MAX = 16;

export class Stretch {
  readonly #offsets: Float64Array;
  readonly #positions: Float64Array;
  readonly #lengths: Uint32Array;
  length = 0;

  constructor(capacity: number) {
    this.#offsets = new Float64Array(capacity);
    this.#positions = new Float64Array(capacity);
    this.#lengths = new Uint32Array(capacity);
  }

  /** False, with nothing taken, when they do not fit any more. */
  add(entries: readonly LogEntry[]): boolean {
    if (this.length + entries.length > this.#offsets.length) return false;
    for (const { offset, position, length } of entries) {
      this.#offsets[this.length] = offset;
      this.#positions[this.length] = position;
      this.#lengths[this.length++] = length;
    }
    return true;
  }

  /** What is to be applied, in log order. `position`: where the data begins in the log, 0 for zeroes. */
  *needed(): Generator<{ offset: number; length: number; position: number }> {
    const superseded = this.#superseded();
    for (let index = 0; index < this.length; index++) {
      if (superseded[index] === 1) continue;
      yield { offset: this.#offsets[index]!, length: this.#lengths[index]!, position: this.#positions[index]! };
    }
  }

  #superseded(): Uint8Array {
    const superseded = new Uint8Array(this.length);
    const later = new PageTable(this.length);
    for (let index = this.length - 1; index >= 0; index--) {
      if (this.#positions[index] === 0) continue;
      const [start, end] = [this.#offsets[index]!, this.#offsets[index]! + this.#lengths[index]!];
      const [first, last] = [Math.floor(start / PAGE_BYTES), Math.ceil(end / PAGE_BYTES)];
      if (last - first > REMEMBERED_PAGES_MAX) continue;
      let covered = last > first;
      for (let page = first; page < last && covered; page++) covered = later.has(page);
      if (covered) superseded[index] = 1;
      else for (let page = Math.ceil(start / PAGE_BYTES); page < Math.floor(end / PAGE_BYTES); page++) later.add(page);
    }
    return superseded;
  }
}

/** A set of page numbers with room for a fixed count; when it is full it takes no more. Open addressing. */
class PageTable {
  readonly #slots: Float64Array;
  #room: number;

  /** For a stretch of so many entries: room for two pages of each. */
  constructor(entries: number) {
    const size = 2 ** Math.max(10, Math.ceil(Math.log2(entries * 2)));
    this.#slots = new Float64Array(size).fill(-1);
    this.#room = size / 2;
  }

  has(page: number): boolean {
    return this.#slots[this.#find(page)] === page;
  }

  add(page: number): void {
    const slot = this.#find(page);
    if (this.#slots[slot] === page || this.#room === 0) return;
    this.#slots[slot] = page;
    this.#room--;
  }

  /** Its slot, or the free one where it would be: there always is one, as half of them stay free. */
  #find(page: number): number {
    const mask = this.#slots.length - 1;
    const mixed = Math.imul((page ^ (page / 2 ** 32)) | 0, 0x9e3779b1);
    let slot = (mixed ^ (mixed >>> 15)) & mask;
    while (this.#slots[slot] !== -1 && this.#slots[slot] !== page) slot = (slot + 1) & mask;
    return slot;
  }
}
