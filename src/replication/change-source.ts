/**
 * Where the changes of a replicated VM come from, as far as shipping and resynchronization are concerned: sets of logs, each of which
 * ends at an instant of all disks, and the regions that may differ from the replica. The first one is what a guest writes (`TrackedVm`).
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { EpochRecord, TrackingRecord } from '../model/records.ts';
import type { Range } from '../tracking/change-map.ts';
import type { TrackingLoss } from '../tracking/tracking-ports.ts';
import type { Owed } from '../tracking/unrecorded-loss.ts';

export interface SourceDisk {
  /** For reading: what the changes are changes of. */
  readonly disk: VirtualDisk;
  /** What a reader should give way to: requests of the guest so far, and those not answered yet. */
  readonly requests: number;
  readonly openOperations: number;
}

export interface ChangeSource {
  /** Changes go to logs; else only their regions are remembered. */
  readonly logging: boolean;
  /** The open set holds something. */
  readonly hasWrites: boolean;
  /** Bytes of the set that is open or being closed. */
  readonly openLogBytes: number;
  /** What tracking says now; ahead of the catalog while that cannot be written. */
  readonly tracking?: TrackingRecord | null;
  /** What happened and could not be put on record yet. */
  readonly owed?: Owed | null;
  /** Puts it on record now. @throws CATALOG_NOT_WRITABLE while that is not possible */
  recordOwed?(): void;
  disk(diskId: string): SourceDisk;
  /**
   * Sets from nothing, from this instant on: a reader who begins now, and has all sets up to a later `switchLog`, has one instant.
   * Resolves with the number of the first one. `keepMap`: what differs already stays suspect.
   */
  begin(options: { keepMap: boolean }): Promise<number>;
  /** Ends the open set and opens the next; resolves when the ended one is durable. `atInstant` is called at the instant between the two. */
  switchLog(atInstant?: () => void): Promise<EpochRecord>;
  /** The replica has applied everything up to this set (R8). */
  release(epoch: number): Promise<void>;
  /** By disk id; null where what is remembered is not to be trusted. */
  suspects(): Map<string, Range[]> | null;
  touchedSince(epoch: number, diskId: string): Range[];
  /** What was suspect when this chain of sets began is repaired, and that is on record (R9). */
  repaired(): Promise<void>;
  /** No logs from here on, for this reason; it is put on record with that. */
  stopLogging(loss: TrackingLoss): void;
  /** As `stopLogging`, where the record knows already why. */
  goMapOnly(): void;
  /** Ends for good; `alsoRecord` runs in the transaction that says so. */
  forget(alsoRecord: () => void): Promise<void>;
  close(): Promise<void>;
}
