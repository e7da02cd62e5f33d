/** What a live page is told of a VM: small, and without numbers that move by themselves, so that a quiet VM costs nothing. */
import type { Operation } from '../../model/relationship.ts';
import type { Status } from '../api/contract.ts';

export interface LiveVm {
  vmId: string;
  vmName: string;
  side: 'primary' | 'replica';
  attached: boolean;
  guests: number;
  diskCount: number;
  totalBytes: number;
  state: Status['state'];
  stateText: string;
  health: Status['health'];
  healthDetails: string[];
  mode: Status['mode'];
  primaryServer: string | null;
  replicaServer: string | null;
  frequencySec: number | null;
  lastReplicationTime: string | null;
  lastAppliedLogTime: string | null;
  pendingBytes: number;
  logBytes: number | null;
  logLimitBytes: number | null;
  /** When the limit is reached at the present rate, to the nearest few minutes; null = not in sight. */
  logLimitTime: string | null;
  resynchronizeStartTime: string | null;
  /** Of the first copy or of a resynchronization. */
  percent: number | null;
  resync: { phase: string; rung: string | null; reason: string | null } | null;
  /** Bytes of the last cycles, oldest first. */
  churn: number[];
  /** What may be done now, by the one table of states. */
  actions: Operation[];
  /** The extended replica that this host feeds; `reason`: the first of what is wrong with it. */
  extended: { replicaServer: string | null; stateText: string; health: Status['health']; reason: string | null } | null;
}
