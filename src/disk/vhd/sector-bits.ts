/**
 * Sector bitmaps: one bit per sector, 1 = the sector is stored in this file. VHD counts from the most significant bit of
 * each byte, VHDX from the least significant one.
 */

export type BitOrder = 'msb-first' | 'lsb-first';

/** The bits of one block: bit `firstBit + s` of `bytes` belongs to sector `s` of the block. */
export interface SectorBits {
  bytes: Uint8Array;
  firstBit: number;
  order: BitOrder;
}

const mask = (bit: number, order: BitOrder): number => (order === 'msb-first' ? 0x80 >> (bit & 7) : 1 << (bit & 7));

export function isSet(bits: SectorBits, sector: number): boolean {
  const bit = bits.firstBit + sector;
  return (bits.bytes[bit >> 3]! & mask(bit, bits.order)) !== 0;
}

/** The end of the run of equal bits that starts at `from`; never past `end`. */
export function runEnd(bits: SectorBits, from: number, end: number): number {
  const value = isSet(bits, from);
  const wholeByte = value ? 0xff : 0;
  let sector = from + 1;
  while (sector < end) {
    const bit = bits.firstBit + sector;
    if ((bit & 7) === 0 && sector + 8 <= end && bits.bytes[bit >> 3] === wholeByte) sector += 8;
    else if (isSet(bits, sector) === value) sector += 1;
    else break;
  }
  return sector;
}

/** Sets or clears the bits of sectors `[from, end)`. */
export function assignBits(bits: SectorBits, from: number, end: number, value: boolean): void {
  for (let sector = from; sector < end;) {
    const bit = bits.firstBit + sector;
    const at = bit >> 3;
    if ((bit & 7) === 0 && sector + 8 <= end) {
      bits.bytes[at] = value ? 0xff : 0;
      sector += 8;
      continue;
    }
    if (value) bits.bytes[at]! |= mask(bit, bits.order);
    else bits.bytes[at]! &= ~mask(bit, bits.order);
    sector += 1;
  }
}

export function allSet(bits: SectorBits, from: number, end: number): boolean {
  return from >= end || (isSet(bits, from) && runEnd(bits, from, end) === end);
}

/**
 * Bitmap bytes by key, read on demand. Clean entries are dropped, oldest first, beyond `limit`; dirty ones stay until they
 * are written, so their owner writes them out when the cache is `overfull`.
 */
export class BitmapCache {
  readonly #entries = new Map<number, Uint8Array>();
  readonly #dirty = new Set<number>();
  readonly #limit: number;
  readonly #load: (key: number) => Promise<Uint8Array>;
  readonly #loading = new Map<number, Promise<Uint8Array>>();

  constructor(limit: number, load: (key: number) => Promise<Uint8Array>) {
    this.#limit = limit;
    this.#load = load;
  }

  get(key: number): Uint8Array | undefined {
    return this.#entries.get(key);
  }

  /** Two callers at once get the same bytes: a second read of the file must not replace bits that were set meanwhile. */
  fetch(key: number): Promise<Uint8Array> {
    const known = this.#entries.get(key);
    if (known !== undefined) return Promise.resolve(known);
    const running = this.#loading.get(key);
    if (running !== undefined) return running;
    const started = this.#load(key).then(
      (bytes) => {
        this.#loading.delete(key);
        const put = this.#entries.get(key);
        if (put !== undefined) return put;
        this.put(key, bytes);
        return bytes;
      },
      (error: unknown) => {
        this.#loading.delete(key);
        throw error;
      },
    );
    this.#loading.set(key, started);
    return started;
  }

  put(key: number, bytes: Uint8Array): void {
    this.#entries.set(key, bytes);
    if (this.#entries.size <= this.#limit) return;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#limit) break;
      if (oldest !== key && !this.#dirty.has(oldest)) this.#entries.delete(oldest);
    }
  }

  markDirty(key: number): void {
    this.#dirty.add(key);
  }

  drop(key: number): void {
    this.#dirty.delete(key);
    this.#entries.delete(key);
  }

  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  get overfull(): boolean {
    return this.#dirty.size > this.#limit;
  }

  /** The dirty entries in order of their keys. They stay in memory, and dirty, until `allWritten`. */
  dirty(): { key: number; bytes: Uint8Array }[] {
    return [...this.#dirty].sort((a, b) => a - b).map((key) => ({ key, bytes: this.#entries.get(key)! }));
  }

  /** The file holds what memory holds: an entry may be dropped and read again. */
  allWritten(): void {
    this.#dirty.clear();
  }
}
