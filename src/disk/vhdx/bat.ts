import { MIB } from './header.ts';

/*
 *  bits   field            BAT entry ([MS-VHDX] 2.5.1), 64 bits, little-endian
 *  0-2    state
 *  3-19   reserved
 *  20-63  file offset      in MiB
 *
 * After every `ratio` payload entries comes the entry of the sector bitmap block of that chunk.
 */
export const PAYLOAD = { notPresent: 0, undefined: 1, zero: 2, unmapped: 3, full: 6, partial: 7 } as const;
export const BITMAP_PRESENT = 6;
const SECTORS_PER_BITMAP_BLOCK = 2 ** 23;

/** The arithmetic of a block allocation table. */
export interface BatShape {
  blockSize: number;
  sectorSize: number;
  /** Payload blocks per sector bitmap block. */
  ratio: number;
  payloadBlocks: number;
  chunks: number;
  /** Entries that the table needs. */
  entries: number;
}

export function batShape(virtualSize: number, blockSize: number, sectorSize: number, differencing: boolean): BatShape {
  const ratio = (SECTORS_PER_BITMAP_BLOCK * sectorSize) / blockSize;
  const payloadBlocks = Math.ceil(virtualSize / blockSize);
  const chunks = Math.ceil(payloadBlocks / ratio);
  const entries = differencing ? chunks * (ratio + 1) : payloadBlocks + Math.floor((payloadBlocks - 1) / ratio);
  return { blockSize, sectorSize, ratio, payloadBlocks, chunks, entries };
}

export const payloadIndex = (shape: BatShape, block: number): number => block + Math.floor(block / shape.ratio);
export const bitmapIndex = (shape: BatShape, chunk: number): number => chunk * (shape.ratio + 1) + shape.ratio;

/** A table in memory: two 32-bit words per entry, as in the file. */
export class Bat {
  readonly words: Uint32Array;

  constructor(words: Uint32Array) {
    this.words = words;
  }

  state(index: number): number {
    return this.words[index * 2]! & 7;
  }

  /** Byte offset in the file. Exact: 44 bits of MiB would not be, so an impossible offset comes out as a huge number. */
  offset(index: number): number {
    return (this.words[index * 2 + 1]! * 4096 + (this.words[index * 2]! >>> 20)) * MIB;
  }

  set(index: number, state: number, offset: number): void {
    const mib = offset / MIB;
    this.words[index * 2] = ((mib % 4096) << 20) | state;
    this.words[index * 2 + 1] = Math.floor(mib / 4096);
  }
}
