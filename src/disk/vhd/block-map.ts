import type { SectorBits } from './sector-bits.ts';
import type { Range } from './space.ts';

/**
 * How one image file (VHD, VHDX) maps blocks of the disk to places in the file. The looking up is synchronous and in
 * memory; the order of what reaches the file is the map's own business, so that a crash at any moment leaves a consistent
 * image: nothing points to a block before the block's bytes are durable, and no place is used again before nothing durable
 * points to it.
 *
 * `absent`: not in this file (zeroes, or the parent's). `zero`: reads as zeroes and hides the parent. `full`: all here.
 * `partial`: sectors whose bit is set are here, the others are as in `absent`.
 */
export type BlockState = 'absent' | 'zero' | 'full' | 'partial';

/** Room in the file for one block that nothing points to yet. */
export interface BlockRoom {
  /** Byte offset of the block's data in the file. */
  position: number;
  end: number;
  /** True when the room reads as zeroes already. */
  fresh: boolean;
}

export interface BlockMap {
  readonly blockSize: number;
  readonly sectorSize: number;
  /** What a whole block of zeroes becomes; null when it has to be stored (fixed disks, differencing VHD). */
  readonly zeroedState: 'absent' | 'zero' | null;
  /** Bytes of full blocks that read as zeroes whatever the file holds there. Only of a map that is read and never written. */
  readonly stale?: Range | undefined;
  state(block: number): BlockState;
  /** Of a full or partial block. */
  position(block: number): number;
  /** The bits of a partial block when they are in memory. */
  bits(block: number): SectorBits | undefined;
  loadBits(block: number): Promise<SectorBits>;
  /** The bits of sectors `[from, end)` of a partial block whose bits are in memory; the sectors' data has been written. */
  markPresent(block: number, from: number, end: number): void;

  /** False until `begin` has run in this session. */
  readonly begun: boolean;
  /** Before the first change that a guest can see. `identity`: the one that a VHDX gets, when somebody was told it before. */
  begin(identity?: string): Promise<void>;
  reserve(block: number): Promise<BlockRoom>;
  /** Gives back room that was never published. */
  abandon(room: BlockRoom): void;
  /** From now on the block is at `room`; for `partial` with no sector present. */
  publish(block: number, room: BlockRoom, state: 'full' | 'partial'): Promise<void>;
  /** The block is not stored any more; its old room is used again only after a commit. */
  vacate(block: number, state: 'absent' | 'zero'): void;
  /** True while something changed that the file does not say yet. */
  readonly unsettled: boolean;
  /** True when so much waits in memory that it should be committed now. */
  readonly overfull: boolean;
  /** Makes everything that was written and changed so far durable. */
  commit(): Promise<void>;
  /** Commits and leaves the file as a clean stop does. A later write calls `begin` again. */
  rest(): Promise<void>;
}
