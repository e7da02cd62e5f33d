/** What needs a person, worst first, and the one thing that mends it. */
import type { LiveVm } from './live.ts';
import type { VmTab } from './route.ts';

/** `operation`: carried out at once. `dialog`: asks first. `tab`: begins on a page of the VM. */
export type Remedy =
  | { label: string; operation: 'resume' | 'start' | 'sync-now' | 'failover.cancel' }
  | { label: string; dialog: 'resume-resync' | 'import' }
  | { label: string; tab: VmTab };

const RANK: Record<LiveVm['health'], number> = { Critical: 0, Warning: 1, NotApplicable: 3, Normal: 2 };

const NAMES = new Intl.Collator(undefined, { numeric: true });

/** With its extended replica: what is wrong there needs a person too. */
export function worstHealth({ health, extended }: Pick<LiveVm, 'health' | 'extended'>): LiveVm['health'] {
  return extended !== null && RANK[extended.health] < RANK[health] ? extended.health : health;
}

export function byAttention(a: LiveVm, b: LiveVm): number {
  return RANK[worstHealth(a)] - RANK[worstHealth(b)] || NAMES.compare(a.vmName, b.vmName);
}

/** The other host. */
export const peerOf = (vm: LiveVm): string | null => (vm.side === 'primary' ? vm.replicaServer : vm.primaryServer);

/** Null only where nothing is wrong. */
export function remedyOf(vm: LiveVm): Remedy | null {
  const worst = worstHealth(vm);
  if (worst !== 'Critical' && worst !== 'Warning') return null;
  return remedyOfState(vm) ?? { label: 'See why', tab: 'health' };
}

function remedyOfState({ state, side, actions, health }: LiveVm): Remedy | null {
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
    case 'WaitingForInitialReplication':
      return may('import') ? { label: 'Import the first copy…', dialog: 'import' } : null;
    case 'PreparedForFailover':
      return may('cancel-failover') ? { label: 'Cancel the failover', operation: 'failover.cancel' } : null;
    case 'FailedOverWaitingCompletion':
    case 'FailedOver':
      return side === 'replica' ? { label: 'Finish the failover…', tab: 'points' } : null;
    case 'Resynchronizing':
      return side === 'primary' ? { label: 'Watch it', tab: 'resync' } : null;
    case 'Replicating':
      // What is tried again by itself: at once, for whoever has mended the cause.
      return health === 'Critical' && may('sync-now') ? { label: 'Try again now', operation: 'sync-now' } : null;
    default:
      return null;
  }
}
