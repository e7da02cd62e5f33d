/**
 * A failed-over disk on its way to a plain file: what the guest wrote is moved from the diff disk into the replica disk while the guest
 * goes on.
 *
 * Invariants
 * - The diff disk's map does not change from here on: a page that it holds is read from it and written to it, any other one is read and
 *   written in the base. So after a crash at any line the two together are the disk, and moving may begin again.
 * - A held page that is written while it is moved, or after it, is moved again.
 * - `finish` returns with everything moved, flushed, and nothing written meanwhile: its caller keeps requests away (ServedDisk.changeTo)
 *   and then puts on record that the base alone is the disk.
 */
import { PAGE_BYTES, type MergeTarget, type PageDiffDisk } from '../disk/diff-disk.ts';
import { DiskOverBase } from '../disk/disk-over-base.ts';
import { LayeredDisk } from '../disk/layered-disk.ts';
import { PageSet } from '../disk/page-set.ts';
import type { Extent, Seal, VirtualDisk } from '../disk/virtual-disk.ts';
import { isZero } from '../model/zero-bytes.ts';

const COPY_BYTES = 1 << 20;
/** Few enough to be moved while requests wait: 16 MiB. */
const LEFT_PAGES_MAX = 4096;
/** A guest that rewrites pages faster than they are moved is made to wait after so many rounds. */
const ROUNDS_MAX = 16;

export class SettlingDisk extends DiskOverBase implements VirtualDisk {
  readonly readOnly = false;
  readonly discardReadsZero = true;
  movedBytes = 0;
  #base: VirtualDisk;
  #diff: PageDiffDisk;
  /** Held pages that were written since the round began. */
  #again = new PageSet();

  /** `diff` reads through to `base`, and both belong to it from here on. */
  constructor(base: VirtualDisk, diff: PageDiffDisk) {
    super(base, { size: diff.virtualSize });
    this.#base = base;
    this.#diff = diff;
  }

  get heldBytes(): number {
    return this.#diff.heldBytes;
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#diff.read(into, offset);
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    await this.#apart(offset, from.length, (disk, at, length) => disk.write(from.subarray(at - offset, at - offset + length), at));
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#apart(offset, length, (disk, at, part) => disk.zero(at, part));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.zero(offset, length);
  }

  async flush(): Promise<void> {
    await Promise.all([this.#diff.flush(), this.#base.flush()]);
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    return this.#diff.extents(offset, length);
  }

  async seal(): Promise<Seal> {
    return { kind: 'none', reason: 'it is being put together' };
  }

  async close(): Promise<void> {
    // Closes the base too.
    await this.#diff.close();
  }

  /** Moves what the diff disk holds while requests go on, until little enough is left for `finish`. */
  async move(signal: AbortSignal): Promise<void> {
    this.#again = new PageSet();
    for (const run of this.#diff.runs(0, this.virtualSize)) {
      if (run.held) await this.#copy(run.offset, run.length, signal);
    }
    for (let round = 1; round < ROUNDS_MAX && this.#again.size > LEFT_PAGES_MAX; round++) await this.#moveAgain(signal);
  }

  /** The rest, with requests kept away; the base, flushed. */
  async finish(): Promise<VirtualDisk> {
    while (this.#again.size > 0) await this.#moveAgain(null);
    await this.#base.flush();
    return this.#base;
  }

  async #moveAgain(signal: AbortSignal | null): Promise<void> {
    const pages = this.#again;
    this.#again = new PageSet();
    for (const run of pages.runs()) {
      await this.#copy(run.page * PAGE_BYTES, Math.min(run.pages * PAGE_BYTES, this.virtualSize - run.page * PAGE_BYTES), signal);
    }
  }

  async #copy(offset: number, length: number, signal: AbortSignal | null): Promise<void> {
    const buffer = new Uint8Array(Math.min(length, COPY_BYTES));
    for (let done = 0; done < length; done += COPY_BYTES) {
      signal?.throwIfAborted();
      const part = buffer.subarray(0, Math.min(COPY_BYTES, length - done));
      await this.#diff.read(part, offset + done);
      if (isZero(part)) await this.#base.zero(offset + done, part.length);
      else await this.#base.write(part, offset + done);
      this.movedBytes += part.length;
    }
  }

  async #apart(offset: number, length: number, work: (disk: VirtualDisk, at: number, length: number) => Promise<void>): Promise<void> {
    for (const run of this.#diff.runs(offset, length)) {
      if (!run.held) {
        await work(this.#base, run.offset, run.length);
        continue;
      }
      // Before and after: a copy that runs in between may have read either.
      this.#written(run.offset, run.length);
      await work(this.#diff, run.offset, run.length);
      this.#written(run.offset, run.length);
    }
  }

  #written(offset: number, length: number): void {
    const first = Math.floor(offset / PAGE_BYTES);
    this.#again.add(first, Math.ceil((offset + length) / PAGE_BYTES) - first);
  }
}

/** Writes what the layers of a view hold into the disk below. Repeatable, and invisible through the view. */
export async function settleLayers(view: LayeredDisk, base: MergeTarget, signal: AbortSignal): Promise<void> {
  const buffer = new Uint8Array(COPY_BYTES);
  for await (const piece of view.held()) {
    signal.throwIfAborted();
    if (piece.from === 'zero') {
      await base.zero(piece.offset, piece.length);
      continue;
    }
    for (let done = 0; done < piece.length; done += COPY_BYTES) {
      signal.throwIfAborted();
      const part = buffer.subarray(0, Math.min(COPY_BYTES, piece.length - done));
      const offset = piece.offset + done;
      await piece.from(part, offset);
      await base.write(part, offset);
    }
  }
  await base.flush();
}
