/**
 * One interface for every virtual disk: raw files, block devices, VHD, VHDX, and whatever an NBD server serves.
 *
 * Offsets and lengths are bytes, inside `[0, virtualSize)`, and need no alignment: an implementation reads, modifies and writes
 * partial sectors itself. Calls may overlap in time; two calls whose ranges overlap have no defined order (the caller orders
 * them). A rejected operation carries an errno in `code` and may have done any part of its work.
 */

export type DiskFormat = 'raw' | 'vhd' | 'vhdx' | 'qcow2' | 'nbd';
export type DiskVariant = 'fixed' | 'dynamic' | 'differencing';

/** CHS geometry as a VHD footer states it; null for formats that have none. */
export interface Geometry {
  cylinders: number;
  heads: number;
  sectorsPerTrack: number;
}

/** A run of the disk. `zero` reads as zeroes without being stored; `data` may hold anything. */
export interface Extent {
  offset: number;
  length: number;
  kind: 'data' | 'zero';
}

/**
 * What identifies the contents at rest (rule R24): taken at a clean stop, compared at the next start (`changedMarks` in seal.ts). Two equal seals of kind
 * `file` or `vhdx` prove that nobody wrote in between; `block` proves it within one boot only; `none` proves nothing.
 * Plain JSON, because it is kept in the catalog.
 */
export type Seal =
  | { kind: 'file'; size: number; mtimeNs: string; ctimeNs: string; inode: string; device: string }
  | { kind: 'vhdx'; fileWriteGuid: string; dataWriteGuid: string; file: Extract<Seal, { kind: 'file' }> }
  | {
      kind: 'block'; size: number; bootId: string; sectorsWritten: string; major: number; minor: number;
      /** Which device the numbers meant (Linux 5.15): they, and the counters with them, may be given to another one. */
      diskSequence?: string;
    }
  | { kind: 'none'; reason: string };

/** Where bytes of a disk lie in its files, for a reader on another thread. They stay there until `release`; others read as zeroes. */
export interface LentRuns {
  /** `file`: index in `lentFiles`; `position`: in that file; `offset`: of the disk. In no order. */
  runs: { offset: number; length: number; file: number; position: number }[];
  release(): void;
}

export interface VirtualDisk {
  /** The path or URI it was opened by. */
  readonly location: string;
  readonly format: DiskFormat;
  readonly variant: DiskVariant;
  readonly virtualSize: number;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  readonly geometry: Geometry | null;
  readonly readOnly: boolean;
  /** True when `discard` promises that the range reads as zeroes afterwards (rule R6). */
  readonly discardReadsZero: boolean;

  /** `read` on this thread when that needs no waiting; false when it would have to wait: then use `read`. */
  readNow?(into: Uint8Array, offset: number): boolean;
  /**
   * `write` on this thread; throws what `write` rejects with. False, with nothing done, where it might wait for more than a
   * device of this machine. Use `promptWrites` (prompt-writes.ts), which bounds what a slow device costs the others.
   */
  writeNow?(from: Uint8Array, offset: number): boolean;

  /** Fills `into` completely or rejects. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Resolves when later reads see `from`; durable only after the next `flush`. */
  write(from: Uint8Array, offset: number): Promise<void>;
  /** The range reads as zeroes afterwards; it becomes a hole where the format can. */
  zero(offset: number, length: number): Promise<void>;
  /** Gives the space back. Does nothing at all unless `discardReadsZero`; then it is `zero` with a hole wanted. */
  discard(offset: number, length: number): Promise<void>;
  /** Makes every write that resolved before this call durable. A rejected flush is never retried as if it had worked (R3). */
  flush(): Promise<void>;
  /** Has the kernel begin to write what of the range is dirty, so that a flush finds less to do. False, or absent: that cannot be asked for. */
  startWriteBack?(offset: number, length: number): Promise<boolean>;
  /** Extents that cover the range from start to end without gaps or overlaps, in order. `data` where it cannot be known. */
  extents(offset: number, length: number): AsyncIterable<Extent>;
  /** `goesOn`: it is written on soon, so that nothing has to be tidied up. Without it, closing the disk does not change the seal. */
  seal(options?: { goesOn?: boolean }): Promise<Seal>;
  /**
   * The disk has this size from now on, durable when it resolves; what is new reads as zeroes (R26). Never makes it smaller. Absent:
   * a disk of this kind cannot be grown in place.
   */
  grow?(size: number): Promise<void>;
  /**
   * A guest writes to it from now on, and lives on when this process dies: what a write, zero or discard has answered is there for the
   * next process of this boot, flush or no flush. `leave` is asked before each change of the file, also those that a flush or seal
   * makes, and waited for unless it gives null. Absent: the disk is like that anyway.
   */
  serveGuest?(leave: () => Promise<void> | null): void;
  /**
   * Where the bytes of a range are now, as `read` would find them; absent where that is for `read` alone to know. Until they are released
   * what would move them waits, so hold them for one read only.
   */
  lend?(offset: number, length: number): Promise<LentRuns>;
  /** The files that `lend` speaks of. */
  readonly lentFiles?: readonly string[];
  /** The seal that the file had before it was opened. Absent: opening it changes nothing, so `seal` tells the same. */
  readonly foundSeal?: Seal;
  close(): Promise<void>;
}

/** Throws a RangeError unless the range lies inside the disk: the caller's bug, since outside input is validated before. */
export function assertInside(disk: Pick<VirtualDisk, 'virtualSize' | 'location'>, offset: number, length: number): void {
  const counts = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!counts || offset + length > disk.virtualSize) {
    throw new RangeError(`range ${offset}+${length} is outside of ${disk.location} (${disk.virtualSize} bytes)`);
  }
}
