/**
 * Keeps what is about to be overwritten (rule R14): reads the disk where the ranges touch it for the first time since the newest point,
 * and writes that into the point's undo log.
 *
 * Memory: one window of 4 MiB, one segment of the undo log, and the set of pages (src/disk/page-set.ts).
 */
import { PageSet } from '../disk/page-set.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UNDO_PAGE_BYTES as PAGE } from '../hrl/undo-codec.ts';
import type { UndoWriter } from '../hrl/undo-writer.ts';
import { messageOf } from '../model/errors.ts';

const WINDOW_BYTES = 4 << 20;
const READS_MAX = 256;
/** Longer stretches are asked for their holes first. */
const ASK_FOR_HOLES_BYTES = 256 << 10;

/** The undo log could not be written: its volume is full, say. The disk is as it was. */
export class UndoNotKept extends Error {
  readonly code: string | null;
  constructor(cause: unknown) {
    super(messageOf(cause), { cause });
    this.code = (cause as { code?: string } | null)?.code ?? null;
  }
}

export interface Range {
  offset: number;
  length: number;
}

/**
 * Rejects with UndoNotKept, or with what reading the disk or the ranges threw; then `touched` says too much and must be dropped.
 * Nothing is durable until the writer has finished.
 */
export async function captureUndo(
  disk: VirtualDisk, ranges: AsyncIterable<Range>, touched: PageSet, writer: UndoWriter, signal: AbortSignal,
): Promise<void> {
  const window = new CaptureWindow(disk, writer);
  const pagesOfDisk = Math.ceil(disk.virtualSize / PAGE);
  for await (const { offset, length } of ranges) {
    signal.throwIfAborted();
    const first = Math.floor(offset / PAGE);
    const end = Math.min(pagesOfDisk, Math.ceil((offset + length) / PAGE));
    if (end <= first) continue;
    for (const { page, pages } of touched.add(first, end - first)) await window.take(page, pages);
  }
  await window.write();
}

class CaptureWindow {
  #disk: VirtualDisk;
  #writer: UndoWriter;
  #runs: { page: number; pages: number }[] = [];
  #bytes = 0;

  constructor(disk: VirtualDisk, writer: UndoWriter) {
    this.#disk = disk;
    this.#writer = writer;
  }

  async take(page: number, pages: number): Promise<void> {
    if (pages * PAGE < ASK_FOR_HOLES_BYTES) return this.#takeData(page, pages);
    const end = Math.min((page + pages) * PAGE, this.#disk.virtualSize);
    let next = page;
    for await (const extent of this.#disk.extents(page * PAGE, end - page * PAGE)) {
      if (extent.kind !== 'zero') continue;
      const stop = extent.offset + extent.length;
      // Only pages that are holes as a whole.
      const from = Math.ceil(extent.offset / PAGE);
      const until = stop >= end ? page + pages : Math.floor(stop / PAGE);
      if (until <= from) continue;
      await this.#takeData(next, from - next);
      await kept(() => this.#writer.addZeroes(from, until - from));
      next = until;
    }
    await this.#takeData(next, page + pages - next);
  }

  async write(): Promise<void> {
    const slab = new Uint8Array(this.#bytes);
    const parts: { page: number; bytes: Uint8Array }[] = [];
    let at = 0;
    for (const { page, pages } of this.#runs) {
      parts.push({ page, bytes: slab.subarray(at, at + pages * PAGE) });
      at += pages * PAGE;
    }
    await Promise.all(parts.map(({ page, bytes }) => this.#disk.read(
      bytes.subarray(0, Math.min(bytes.length, this.#disk.virtualSize - page * PAGE)), page * PAGE)));
    for (const { page, bytes } of parts) await kept(() => this.#writer.add(page, bytes));
    this.#runs = [];
    this.#bytes = 0;
  }

  async #takeData(page: number, pages: number): Promise<void> {
    for (let done = 0; done < pages; ) {
      if (this.#bytes >= WINDOW_BYTES || this.#runs.length >= READS_MAX) await this.write();
      const part = Math.min(pages - done, (WINDOW_BYTES - this.#bytes) / PAGE);
      this.#runs.push({ page: page + done, pages: part });
      this.#bytes += part * PAGE;
      done += part;
    }
  }
}

/** Tells a failure of the undo log from one of the disk. */
export async function kept<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new UndoNotKept(error);
  }
}
