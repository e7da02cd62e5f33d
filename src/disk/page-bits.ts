/**
 * Which pages of 4 KiB of a disk are in a diff disk: a bit for each, in blocks of 4 KiB as they lie in its map, and no memory for blocks
 * without one. So a diff disk over 1 TiB that holds a little costs a little. Bits are only ever set.
 */
export const BLOCK_BYTES = 4096;
const PAGES_IN_BLOCK = 8 * BLOCK_BYTES;

export class PageBits {
  readonly #blocks = new Map<number, Uint8Array>();
  /** Pages that have their bit. */
  held = 0;

  has(page: number): boolean {
    const at = page % PAGES_IN_BLOCK;
    const bits = this.#blocks.get(Math.floor(page / PAGES_IN_BLOCK));
    return bits !== undefined && (bits[at >> 3]! & (1 << (at & 7))) !== 0;
  }

  /** False when it was set before. */
  add(page: number): boolean {
    const bits = this.#made(Math.floor(page / PAGES_IN_BLOCK));
    const at = page % PAGES_IN_BLOCK;
    const bit = 1 << (at & 7);
    if ((bits[at >> 3]! & bit) !== 0) return false;
    bits[at >> 3]! |= bit;
    this.held++;
    return true;
  }

  /** Sets what is set in `bytes`, a block or the start of one; true when any of it is new. */
  join(block: number, bytes: Uint8Array): boolean {
    const before = this.held;
    for (let at = 0; at < bytes.length; at++) {
      if (bytes[at] === 0) continue;
      const bits = this.#made(block);
      for (let fresh = bytes[at]! & ~bits[at]!; fresh !== 0; fresh &= fresh - 1) this.held++;
      bits[at]! |= bytes[at]!;
    }
    return this.held > before;
  }

  /** Copies of all blocks that have a bit, in order. */
  *blocks(): Generator<[block: number, bits: Uint8Array]> {
    for (const block of [...this.#blocks.keys()].sort((a, b) => a - b)) yield [block, this.copy(block)];
  }

  copy(block: number): Uint8Array {
    return this.#blocks.get(block)?.slice() ?? new Uint8Array(BLOCK_BYTES);
  }

  /** The first page behind `page`, `end` at most, that is not as it is. */
  until(page: number, end: number): number {
    const held = this.has(page);
    const full = held ? 0xff : 0;
    for (let at = page; at < end; ) {
      const bits = this.#blocks.get(Math.floor(at / PAGES_IN_BLOCK));
      const blockEnd = Math.min(end, (Math.floor(at / PAGES_IN_BLOCK) + 1) * PAGES_IN_BLOCK);
      if (bits === undefined) {
        if (held) return at;
        at = blockEnd;
        continue;
      }
      while (at < blockEnd) {
        const inside = at % PAGES_IN_BLOCK;
        const byte = bits[inside >> 3]!;
        if (byte === full && (inside & 7) === 0) at += 8;
        else if (((byte >> (inside & 7)) & 1) === (held ? 1 : 0)) at++;
        else return at;
      }
    }
    return end;
  }

  #made(block: number): Uint8Array {
    let bits = this.#blocks.get(block);
    if (bits === undefined) this.#blocks.set(block, (bits = new Uint8Array(BLOCK_BYTES)));
    return bits;
  }
}
