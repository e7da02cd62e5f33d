/** A disk in memory with sparse pages: for tests and dry runs. Nothing survives the process; flush does nothing. */
import { ioError } from './disk-errors.ts';
import { assertInside, type Extent, type Seal, type VirtualDisk } from './virtual-disk.ts';

const PAGE_BYTES = 4096;

export class MemoryDisk implements VirtualDisk {
  readonly location: string;
  readonly format = 'raw';
  readonly variant = 'fixed';
  readonly virtualSize: number;
  readonly logicalSectorSize = 512;
  readonly physicalSectorSize = 4096;
  readonly geometry = null;
  readonly readOnly: boolean;
  readonly discardReadsZero = true;
  /** Page number → bytes. A page that is missing reads as zeroes. */
  readonly #pages: Map<number, Buffer>;

  /** `contentsOf` shares the pages of another memory disk, as a second opening of one file would. */
  constructor(virtualSize: number, options: { location?: string; readOnly?: boolean; contentsOf?: MemoryDisk } = {}) {
    this.virtualSize = virtualSize;
    this.location = options.location ?? 'memory';
    this.readOnly = options.readOnly ?? false;
    this.#pages = options.contentsOf === undefined ? new Map() : options.contentsOf.#pages;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    for (const part of pagesOf(offset, into.length)) {
      const target = into.subarray(part.done, part.done + part.length);
      const page = this.#pages.get(part.page);
      if (page === undefined) target.fill(0);
      else target.set(page.subarray(part.start, part.start + part.length));
    }
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    this.#assertWritable(offset, from.length);
    for (const part of pagesOf(offset, from.length)) {
      let page = this.#pages.get(part.page);
      if (page === undefined) this.#pages.set(part.page, (page = Buffer.alloc(PAGE_BYTES)));
      page.set(from.subarray(part.done, part.done + part.length), part.start);
    }
  }

  async zero(offset: number, length: number): Promise<void> {
    this.#assertWritable(offset, length);
    for (const part of pagesOf(offset, length)) {
      if (part.length === PAGE_BYTES) this.#pages.delete(part.page);
      else this.#pages.get(part.page)?.fill(0, part.start, part.start + part.length);
    }
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.zero(offset, length);
  }

  async flush(): Promise<void> {}

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertInside(this, offset, length);
    let run: Extent = { offset, length: 0, kind: 'data' };
    for (const part of pagesOf(offset, length)) {
      const kind = this.#pages.has(part.page) ? 'data' : 'zero';
      if (run.kind !== kind) {
        if (run.length > 0) yield run;
        run = { offset: offset + part.done, length: 0, kind };
      }
      run.length += part.length;
    }
    if (run.length > 0) yield run;
  }

  async seal(): Promise<Seal> {
    return { kind: 'none', reason: 'memory keeps no marks' };
  }

  async close(): Promise<void> {}

  #assertWritable(offset: number, length: number): void {
    assertInside(this, offset, length);
    if (this.readOnly) throw ioError('EPERM', `${this.location} is open read-only`);
  }
}

/** The pieces of a range, page by page: `done` bytes of the range lie before the piece. */
function* pagesOf(offset: number, length: number): Generator<{ page: number; start: number; length: number; done: number }> {
  for (let done = 0; done < length; ) {
    const page = Math.floor((offset + done) / PAGE_BYTES);
    const start = (offset + done) % PAGE_BYTES;
    const piece = Math.min(PAGE_BYTES - start, length - done);
    yield { page, start, length: piece, done };
    done += piece;
  }
}
