/** What to do instead of an operation that the state refuses. One sentence that names a command, for every cell of the table. */

import type { Operation, Situation } from './relationship.ts';
import type { ReplicationState } from './replication-state.ts';

type Remedy = (vm: string) => string;

/** What leads out of a state: right for most operations that it refuses. */
const BY_STATE: Record<ReplicationState, Remedy> = {
  Disabled: (vm) => `Enable replication first: understudy enable ${vm} --replica HOST:PORT --fingerprint F.`,
  ReadyForInitialReplication: (vm) => `Start initial replication first: understudy start ${vm}.`,
  InitialReplicationInProgress: (vm) =>
    `Wait until initial replication has finished; understudy status ${vm} shows how far it is.`,
  WaitingForInitialReplication: (vm) =>
    `Start initial replication on the primary (understudy start ${vm}), or import it here ` +
    `(understudy import ${vm} --from DIR).`,
  Replicating: (vm) => `Nothing needs to be done; see understudy status ${vm}.`,
  Suspended: (vm) => `Resume replication first: understudy resume ${vm}.`,
  Error: (vm) => `Correct the error that understudy status ${vm} shows, then: understudy resume ${vm}.`,
  WaitingForStartResynchronize: (vm) => `Start the resynchronization that is required: understudy resume ${vm}.`,
  Resynchronizing: (vm) =>
    `Wait until the resynchronization has finished (understudy resync status ${vm}), or cancel it: ` +
    `understudy cancel-resync ${vm}.`,
  ResynchronizeSuspended: (vm) =>
    `Continue the resynchronization (understudy resume ${vm}), or cancel it: understudy cancel-resync ${vm}.`,
  PreparedForFailover: (vm) =>
    `Finish the planned failover on the replica (understudy failover ${vm} --planned), or take it back ` +
    `here: understudy failover cancel ${vm}.`,
  FailedOverWaitingCompletion: (vm) =>
    `Reverse replication (understudy reverse ${vm}), complete the failover (understudy failover ` +
    `complete ${vm}) or cancel it (understudy failover cancel ${vm}).`,
  FailedOver: (vm) => `Reverse replication: understudy reverse ${vm}.`,
};

const FAILOVER_DURING_RESYNC: Remedy = (vm) =>
  'Wait until the replica is in sync again. If the primary is lost, an unplanned ' +
  `failover is possible and cancels the resynchronization: understudy failover ${vm}.`;
const DURING_RESYNC = {
  'test-failover': FAILOVER_DURING_RESYNC,
  'planned-failover': FAILOVER_DURING_RESYNC,
  'prepare-failover': FAILOVER_DURING_RESYNC,
};
const NO_FAILOVER: Remedy = (vm) => `Start a failover on the replica first: understudy failover ${vm}.`;
const NOT_RUNNING: Remedy = (vm) =>
  `See understudy resync status ${vm}; a resynchronization is started with: understudy resume ${vm} ` +
  '--resynchronize.';

/** Where the way out of the state is not what the user wants. */
const BY_OPERATION: Partial<Record<ReplicationState, Partial<Record<Operation, Remedy>>>> = {
  Replicating: {
    'resynchronize': (vm) =>
      `Suspend replication first: understudy suspend ${vm}; then: understudy resume ${vm} --resynchronize.`,
    'start-initial': (vm) => `Initial replication has finished; to compare the disks again: understudy verify ${vm}.`,
    'planned-failover': (vm) => `Prepare it on the primary first: understudy failover ${vm} --prepare.`,
    'cancel-resync': NOT_RUNNING,
    'cancel-failover': NO_FAILOVER,
    'complete-failover': NO_FAILOVER,
    'reverse': NO_FAILOVER,
  },
  Suspended: { 'cancel-resync': NOT_RUNNING, 'complete-failover': NO_FAILOVER, 'reverse': NO_FAILOVER },
  Error: { 'cancel-resync': NOT_RUNNING, 'complete-failover': NO_FAILOVER, 'reverse': NO_FAILOVER },
  WaitingForStartResynchronize: DURING_RESYNC,
  Resynchronizing: DURING_RESYNC,
  ResynchronizeSuspended: DURING_RESYNC,
};

/** The remedy of a refusal by `decide`. */
export function remedyFor(situation: Situation, operation: Operation): string {
  const { state, hasBaseline, merging, testFailoverRunning, tookOver } = situation;
  const vm = quoted(situation.vmName);
  if (tookOver === true) return tookOverRemedy(situation.vmName, situation.otherHost);
  if (merging === true) return `Wait until the merge has finished: understudy resync status ${vm}.`;
  if (operation === 'enable' && state !== 'Disabled') {
    return `Replication is enabled already; to begin anew, remove it first: understudy remove ${vm}.`;
  }
  if (operation === 'test-failover' && testFailoverRunning === true)
    return `End it first: understudy failover cancel ${vm}.`;
  const needsBaseline = operation === 'resynchronize' || operation === 'test-failover' || operation === 'failover';
  if (
    needsBaseline &&
    hasBaseline !== true &&
    (state === 'Suspended' || state === 'Error' || state === 'Replicating')
  ) {
    return `Finish initial replication first: understudy resume ${vm} on the primary.`;
  }
  return (BY_OPERATION[state]?.[operation] ?? BY_STATE[state])(vm);
}

/** The three ways out when the other host has taken over: each names the side whose changes are lost. */
export function tookOverRemedy(vmName: string, otherHost = 'the other host'): string {
  const vm = quoted(vmName);
  return (
    `Choose a direction. On ${otherHost}: understudy reverse ${vm} keeps what runs there and drops what only this host has; ` +
    `understudy failover cancel ${vm} keeps this host and drops what was written there. ` +
    `If ${otherHost} is gone for good, here: understudy remove ${vm}.`
  );
}

/** A VM name as a shell takes it. */
function quoted(name: string): string {
  return /^[\w.@%+:,-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`;
}
