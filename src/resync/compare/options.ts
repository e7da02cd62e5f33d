/** What both sides of a compare are given, and what they report. */
import type { VirtualDisk } from '../../disk/virtual-disk.ts';
import type { Clock, Compute } from '../../model/ports.ts';
import type { Pace, ReadSpan } from './leaf-hasher.ts';
import type { ByteRange } from './selection.ts';
import type { TreeShape } from './tree-shape.ts';

/** `mend` makes the target equal; `compare-only` locates every differing page and writes nothing. */
export type CompareMode = 'mend' | 'compare-only';

/** What became known of a part of the disk: `differing` is followed by `mended` once the target has proven it. */
export type Decision = 'equal' | 'hole' | 'differing' | 'mended';

/** Fences a session (rule R18): a side that expects another token or phase refuses before anything is read. */
export interface CompareSession {
  token: string;
  phase: string;
}

export interface CompareProgress {
  phase: 'comparing' | 'mending' | 'finishing';
  /** Bytes of all that was selected. */
  totalBytes: number;
  /** Read or known to be holes on this side: moves steadily, and is ahead of `comparedBytes`. */
  scannedBytes: number;
  comparedBytes: number;
  differingBytes: number;
  sentBytes: number;
  wireBytes: number;
}

interface SideOptions {
  compute: Compute;
  session?: CompareSession;
  signal?: AbortSignal;
  /** Awaited with the bytes that are about to be read from this side's disk. */
  pace?: Pace;
  onProgress?: (progress: CompareProgress) => void;
}

export interface SourceOptions extends SideOptions {
  /**
   * The truth. May be written by a guest meanwhile, if what is written since the start is tracked elsewhere (rule
   * R17).
   */
  disk: VirtualDisk;
  mode: CompareMode;
  /** Only these parts, rounded outwards to leaves; default: the whole disk. */
  ranges?: readonly ByteRange[];
  /** Start here: an offset that `onCursor` was called with in an earlier session. */
  cursor?: number;
  shape?: TreeShape;
  /**
   * Widths of the short hashes that locate, 1 to 16 bytes. Defaults: 2; pages in compare-only 16, since nothing proves
   * them later.
   */
  nodeHashBytes?: number;
  pageHashBytes?: number;
  /** Default true. A sync of plain images compares bytes only. */
  sameSectorSize?: boolean;
  /**
   * Reads go through here, in this thread, taking turns with guest writes; default: the disk's own read, raw files on
   * a thread.
   */
  read?: ReadSpan;
  /**
   * Bytes a second that `pace` lets pass now; null: no limit. The target is told when it has changed, and reads no faster: a limit holds for
   * both disks, and the other host may have guests of its own.
   */
  readRate?: () => number | null;
  /** Awaited with the bytes of page data that are about to be sent. */
  paceWire?: Pace;
  /** Whether others wait for this thread now, so that messages should be short: each is built, sealed and encrypted in one piece. */
  othersWait?: () => boolean;
  /** Everything selected before this offset, so many bytes, is proven equal and durable on the target. Awaited; keep it durably. */
  onCursor?: (offset: number, selectedBytes: number) => Promise<void> | void;
  /** Told of every part as it is decided, for pictures; costs nothing when it is absent. */
  onDecided?: (decision: Decision, range: ByteRange) => void;
  /** Ask for a checkpoint after this many bytes decided without a gap (default 4 GiB), or mended (64 MiB). */
  checkpointBytes?: { compared: number; mended: number };
}

export interface TargetOptions extends SideOptions {
  /**
   * What is scanned. It must read as `target` does when the session starts: a diff disk's base may stand here only
   * while the diff disk is empty.
   */
  base: VirtualDisk;
  /** What is written, and read where pages are compared; may be the same disk. */
  target: VirtualDisk;
  /** What the source may ask for at most. */
  allow: CompareMode;
  /** Called before each write; throws when the resync has moved on (rule R18). */
  admit?: () => void;
  /** With it the source's pace is kept, and most writes into the page cache are made on this thread, see prompt-writes.ts. */
  clock?: Pick<Clock, 'monotonic' | 'sleep'>;
}
