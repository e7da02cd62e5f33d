/**
 * A disk of a resynchronization as a bounded row of cells, for people: each says how its part of the disk stands. Pure.
 *
 * `.` not read yet · `e` equal · `h` hole or zeroes on both sides · `d` differs, not yet mended · `m` was mended · `-` known equal and not
 * compared. A cell with several shows what a person would look for first: differing, not read, mended, equal, hole.
 */
import type { Decision } from './compare/options.ts';
import type { ByteRange } from './compare/selection.ts';

export const MAP_CELLS_MAX = 256;
/** The unit of a compare: smaller cells would say nothing more. */
const CELL_BYTES_MIN = 256 * 1024;

interface Cell {
  /** To be decided, in bytes. */
  left: number;
  differing: number;
  equal: boolean;
  hole: boolean;
  mended: boolean;
}

export class DiskMap {
  readonly #cellBytes: number;
  readonly #cells: Cell[];

  /** `before`: the text of an earlier stretch, which counts up to `cursor`. */
  constructor(size: number, ranges: readonly ByteRange[], before: { text: string; cursor: number } | null) {
    const count = Math.max(1, Math.min(MAP_CELLS_MAX, Math.ceil(size / CELL_BYTES_MIN)));
    this.#cellBytes = Math.ceil(size / count);
    this.#cells = Array.from({ length: count }, () => ({ left: 0, differing: 0, equal: false, hole: false, mended: false }));
    const cursor = before?.cursor ?? 0;
    for (const { offset, length } of ranges) {
      const from = Math.max(offset, cursor);
      if (from < offset + length) this.#each({ offset: from, length: offset + length - from }, (cell, bytes) => (cell.left += bytes));
    }
    for (const [at, letter] of [...(before?.text ?? '')].slice(0, count).entries()) {
      if (at * this.#cellBytes >= cursor) break;
      const cell = this.#cells[at]!;
      // What differed has been mended where the cursor has passed.
      cell.mended = letter === 'm' || letter === 'd';
      cell.equal = letter === 'e' || letter === '.';
      cell.hole = letter === 'h';
    }
  }

  decided(decision: Decision, range: ByteRange): void {
    this.#each(range, (cell, bytes) => {
      switch (decision) {
        case 'differing':
          cell.differing += bytes;
          return;
        case 'mended':
          cell.differing = Math.max(0, cell.differing - bytes);
          cell.mended = true;
          break;
        case 'equal':
          cell.equal = true;
          break;
        case 'hole':
          cell.hole = true;
          break;
        default:
          decision satisfies never;
      }
      cell.left = Math.max(0, cell.left - bytes);
    });
  }

  toString(): string {
    return this.#cells.map(letterOf).join('');
  }

  #each({ offset, length }: ByteRange, visit: (cell: Cell, bytes: number) => void): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const index = Math.min(this.#cells.length - 1, Math.floor(at / this.#cellBytes));
      const next = index === this.#cells.length - 1 ? end : Math.min(end, (index + 1) * this.#cellBytes);
      visit(this.#cells[index]!, next - at);
      at = next;
    }
  }
}

function letterOf({ left, differing, equal, hole, mended }: Cell): string {
  if (differing > 0) return 'd';
  if (left > 0) return '.';
  if (mended) return 'm';
  if (equal) return 'e';
  return hole ? 'h' : '-';
}
