/** Whether the disks of a replica are one past instant of its VM, and nothing but sets of logs will change them. Pure. */
import type { RelationshipRecord } from '../../model/records.ts';
import { RESYNC_STATES } from '../../model/replication-state.ts';
import { hasBaseline } from '../relationships.ts';

/** Completes "… because"; null when they are. */
export function unrest(replica: RelationshipRecord): string | null {
  const { state, lost, resync, applying, failover = null, lastAppliedEpoch, consistentFrom } = replica;
  if (failover !== null) return 'the VM has failed over to this host';
  if (!hasBaseline(replica)) return 'its own first copy has not ended';
  if (lost !== null || resync !== null || RESYNC_STATES.includes(state)) return 'it awaits a resynchronization with its own primary';
  if (lastAppliedEpoch < consistentFrom) return 'the logs of its own first copy have not been applied yet';
  return applying === null ? null : `the logs of epoch ${applying} are half applied`;
}
