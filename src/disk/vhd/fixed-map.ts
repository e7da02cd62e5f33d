import type { OpenFile } from '../../model/ports.ts';
import type { BlockMap, BlockRoom } from './block-map.ts';
import type { SectorBits } from './sector-bits.ts';
import type { Range } from './space.ts';

/** A fixed VHD: the disk is the file, and nothing ever moves. */
export class FixedMap implements BlockMap {
  readonly blockSize = 1 << 26;
  readonly sectorSize = 512;
  readonly zeroedState = null;
  readonly begun = true;
  readonly overfull = false;
  readonly unsettled = false;
  readonly stale: Range | undefined;
  readonly #file: OpenFile;

  constructor(file: OpenFile, stale?: Range) {
    this.stale = stale;
    this.#file = file;
  }

  state(): 'full' {
    return 'full';
  }

  position(block: number): number {
    return block * this.blockSize;
  }

  begin(): Promise<void> {
    return Promise.resolve();
  }

  commit(): Promise<void> {
    return this.#file.datasync();
  }

  rest(): Promise<void> {
    return this.#file.datasync();
  }

  bits(): undefined {
    return undefined;
  }

  loadBits(): Promise<SectorBits> {
    return never();
  }

  reserve(): Promise<BlockRoom> {
    return never();
  }

  markPresent(): void {
    never();
  }

  abandon(): void {
    never();
  }

  publish(): Promise<void> {
    return never();
  }

  vacate(): void {
    never();
  }
}

/** Every block is stored, so the disk above never asks. */
function never(): never {
  throw new TypeError('a fixed disk has no block table');
}
