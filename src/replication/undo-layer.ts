/** An undo log as a layer over a replica disk: what was overwritten while its point was the newest (src/disk/layered-disk.ts). */
import { withGaps, type DiskLayer, type LayerPiece } from '../disk/layered-disk.ts';
import { UNDO_PAGE_BYTES as PAGE } from '../hrl/undo-codec.ts';
import type { UndoReader } from '../hrl/undo-reader.ts';

export class UndoLayer implements DiskLayer {
  #log: UndoReader;
  #damaged: (error: unknown) => void;

  /** `damaged` is told of every read that fails: the reader gets an I/O error, the administrator an event. */
  constructor(log: UndoReader, damaged: (error: unknown) => void) {
    this.#log = log;
    this.#damaged = damaged;
  }

  pieces(offset: number, length: number): LayerPiece[] {
    return withGaps(offset, length, this.#held(offset, offset + length));
  }

  close(): Promise<void> {
    return this.#log.close();
  }

  *#held(from: number, to: number): Generator<LayerPiece> {
    const first = Math.floor(from / PAGE);
    for (const { page, pages, place } of this.#log.pieces(first, Math.ceil(to / PAGE) - first)) {
      const start = Math.max(page * PAGE, from);
      const end = Math.min((page + pages) * PAGE, to);
      yield { offset: start, length: end - start, from: place === null ? 'zero' : (into, offset) => this.#read(into, offset, page, place) };
    }
  }

  async #read(into: Uint8Array, offset: number, page: number, place: number): Promise<void> {
    const first = Math.floor(offset / PAGE);
    const skip = offset - first * PAGE;
    const whole = skip === 0 && into.length % PAGE === 0;
    const pages = whole ? into : new Uint8Array(Math.ceil((skip + into.length) / PAGE) * PAGE);
    try {
      await this.#log.read(pages, place + first - page);
    } catch (error) {
      this.#damaged(error);
      throw error;
    }
    if (!whole) into.set(pages.subarray(skip, skip + into.length));
  }
}
