/** What needs a person, worst first, and the one thing that mends it. */
import type { LiveVm } from './live.ts';
import type { VmTab } from './route.ts';

/** `operation`: carried out at once. `dialog`: asks first. `tab`: begins on a page of the VM. */
export type Remedy =
  | { label: string; operation: 'resume' | 'start' | 'failover.cancel' }
  | { label: string; dialog: 'resume-resync' }
  | { label: string; tab: VmTab };

const RANK: Record<LiveVm['health'], number> = { Critical: 0, Warning: 1, NotApplicable: 3, Normal: 2 };

const NAMES = new Intl.Collator(undefined, { numeric: true });

export function byAttention(a: LiveVm, b: LiveVm): number {
  return RANK[a.health] - RANK[b.health] || NAMES.compare(a.vmName, b.vmName);
}

export function remedyOf({ state, side, actions, health }: LiveVm): Remedy | null {
  const may = (action: LiveVm['actions'][number]) => actions.includes(action);
  switch (state) {
    case 'WaitingForStartResynchronize':
    case 'ResynchronizeSuspended':
      return may('resume') ? { label: 'Resume replication…', dialog: 'resume-resync' } : null;
    case 'Suspended':
    case 'Error':
      return may('resume') ? { label: 'Resume replication', operation: 'resume' } : null;
    case 'ReadyForInitialReplication':
      return may('start-initial') ? { label: 'Start initial replication', operation: 'start' } : null;
    case 'PreparedForFailover':
      return may('cancel-failover') ? { label: 'Cancel the failover', operation: 'failover.cancel' } : null;
    case 'FailedOverWaitingCompletion':
    case 'FailedOver':
      return side === 'replica' ? { label: 'Finish the failover…', tab: 'points' } : null;
    case 'Resynchronizing':
      return { label: 'Watch it', tab: 'resync' };
    default:
      return health === 'Critical' ? { label: 'See why', tab: 'health' } : null;
  }
}
