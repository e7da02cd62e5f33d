/**
 * A set of pages of 4 KiB of one disk, sparse: a bitmap of 4 KiB for each 128 MiB that is touched in part, one mark for each that is
 * touched as a whole. So at most 32 MiB for 1 TiB.
 */
const PAGES_IN_CHUNK = 32_768;
const WHOLE = new Uint8Array(0);

export interface PageRun {
  page: number;
  pages: number;
}

export class PageSet {
  #chunks = new Map<number, Uint8Array>();
  #size = 0;

  /** Pages in the set. */
  get size(): number {
    return this.#size;
  }

  has(page: number): boolean {
    const bits = this.#chunks.get(Math.floor(page / PAGES_IN_CHUNK));
    if (bits === undefined) return false;
    const at = page % PAGES_IN_CHUNK;
    return bits === WHOLE || (bits[at >> 3]! & (1 << (at & 7))) !== 0;
  }

  /** Adds the run; what of it was not in the set before, as runs in order. */
  add(page: number, pages: number): PageRun[] {
    const added: PageRun[] = [];
    const end = page + pages;
    for (let at = page; at < end; ) {
      const chunk = Math.floor(at / PAGES_IN_CHUNK);
      const until = Math.min(end, (chunk + 1) * PAGES_IN_CHUNK);
      this.#addInChunk(chunk, at, until, added);
      at = until;
    }
    return added;
  }

  /** All pages in order, as runs. The set may change meanwhile: what is added behind the reader is not seen. */
  *runs(): Generator<PageRun> {
    let run: PageRun | null = null;
    for (const chunk of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const bits = this.#chunks.get(chunk)!;
      const first = chunk * PAGES_IN_CHUNK;
      for (let at = 0; at < PAGES_IN_CHUNK; ) {
        const step: number = bits === WHOLE ? PAGES_IN_CHUNK : (at & 7) === 0 && bits[at >> 3] === 0 ? 8 : 1;
        const held: boolean = bits === WHOLE || (step === 1 && (bits[at >> 3]! & (1 << (at & 7))) !== 0);
        if (held && run !== null && run.page + run.pages === first + at) run.pages += step;
        else if (held) {
          if (run !== null) yield run;
          run = { page: first + at, pages: step };
        }
        at += step;
      }
    }
    if (run !== null) yield run;
  }

  #addInChunk(chunk: number, from: number, until: number, added: PageRun[]): void {
    let bits = this.#chunks.get(chunk);
    if (bits === WHOLE) return;
    if (bits === undefined) {
      this.#chunks.set(chunk, (bits = until - from === PAGES_IN_CHUNK ? WHOLE : new Uint8Array(PAGES_IN_CHUNK / 8)));
      if (bits === WHOLE) return this.#took(from, until - from, added);
    }
    for (let page = from; page < until; page++) {
      const at = page % PAGES_IN_CHUNK;
      if ((bits[at >> 3]! & (1 << (at & 7))) !== 0) continue;
      bits[at >> 3]! |= 1 << (at & 7);
      this.#took(page, 1, added);
    }
  }

  #took(page: number, pages: number, added: PageRun[]): void {
    this.#size += pages;
    const last = added.at(-1);
    if (last !== undefined && last.page + last.pages === page) last.pages += pages;
    else added.push({ page, pages });
  }
}
