/** Who has to know what is written to the disks of a replica. None of it rejects, and none of it holds the replica up for long. */
import type { InboxRecord } from '../model/records.ts';
import type { RangesOf } from './recovery-points.ts';

export interface BaseWatch {
  /** A set is about to be written; may be told more than once. */
  beforeSet(set: InboxRecord): Promise<void>;
  /**
   * Inside the transaction that says `applied`. What is returned runs after it, before the set's files are removed, and may move them
   * away; null: nothing is wanted of them.
   */
  applied(set: InboxRecord): (() => Promise<void>) | null;
  /** The replica lacks space: what waits for the extended replica goes, when there is anything; its regions stay known. */
  makeRoom(reason: string): Promise<boolean>;
  /** The extended replica has taken the VM over: nobody else may run it (R22). */
  tookOver(): boolean;
  /** Something else than a set is about to be written to these ranges. */
  beforeChange(ranges: RangesOf): Promise<void>;
  /**
   * Inside the transaction that puts on record that the disks are, or will be, another thing than the sets have made of them. `known`: all of
   * it was told to `beforeSet` and `beforeChange`.
   */
  changed(reason: string, options: { known: boolean }): void;
}
