/**
 * The one table of what a relationship may do: (state, operation) → allowed with the next state, or refused with a
 * reason and what to do instead. What happens by itself is in relationship-events.ts; nothing else in the product
 * decides about states. docs/operating/states.md shows the same table (a test compares).
 *
 * A step's `next` is committed together with its event once the operation has been carried out; if that fails, nothing changes.
 */

import { UnderstudyError } from './errors.ts';
import { makeEvent, STATE_EVENTS } from './events.ts';
import type { EventDefinition, ReplicationEvent, StateChange } from './events.ts';
import { remedyFor } from './refusals.ts';
import type { ReplicationState, Side } from './replication-state.ts';

export const OPERATIONS = {
  'enable': { side: 'primary', label: 'enable' },
  'start-initial': { side: 'primary', label: 'start' },
  'stop-initial': { side: 'primary', label: 'stop-initial' },
  'import': { side: 'replica', label: 'import' },
  'suspend': { side: 'primary', label: 'suspend' },
  'resume': { side: 'primary', label: 'resume' },
  'resynchronize': { side: 'primary', label: 'resume --resynchronize' },
  'cancel-resync': { side: 'primary', label: 'cancel-resync' },
  'sync-now': { side: 'primary', label: 'sync-now' },
  'verify': { side: 'primary', label: 'verify' },
  'set': { side: 'primary', label: 'set' },
  'prepare-failover': { side: 'primary', label: 'failover --prepare' },
  'test-failover': { side: 'replica', label: 'failover --test' },
  'planned-failover': { side: 'replica', label: 'failover --planned' },
  'failover': { side: 'replica', label: 'failover' },
  'cancel-failover': { side: 'both', label: 'failover cancel' },
  'complete-failover': { side: 'replica', label: 'failover complete' },
  'reverse': { side: 'replica', label: 'reverse' },
  'remove': { side: 'both', label: 'remove' },
} as const satisfies Record<string, { side: Side | 'both'; label: string }>;
export type Operation = keyof typeof OPERATIONS;

/** What the table needs to know. An absent flag means false. */
export type Situation = {
  vmName: string;
  state: ReplicationState;
  side: Side;
  /** `HOST:PORT` or name of the other host; shown when an operation belongs there. */
  otherHost?: string;
  /** The replica has a baseline: initial replication has finished once. */
  hasBaseline?: boolean;
  /** A start time of the pending resync or initial replication is set. */
  startPending?: boolean;
  /** The asked operation begins at this time (ISO 8601) instead of now. */
  startAt?: string;
  /** A resync is required although the state does not say so: a failover cancelled one. */
  resyncRequired?: boolean;
  /** The merge of the resync has begun: there is no way back. */
  merging?: boolean;
  testFailoverRunning?: boolean;
  /** Replica: the primary has said that a planned failover is prepared. */
  primaryPrepared?: boolean;
  /** Primary: the other host has taken over (R21, R22). */
  tookOver?: boolean;
};

/** What the host does for a step, in the order given, after the new state is durable. */
export type Effect =
  | 'start-logging' //    open fresh tracking logs; the change map never stops
  | 'stop-logging' //     drop the tracking logs; the change map goes on
  | 'start-shipping'
  | 'stop-shipping'
  | 'start-initial' //    begin or continue the initial copy
  | 'restart-initial' //  begin it again, onto what is already there
  | 'pause-initial' //    keep its cursors
  | 'stop-initial' //     forget its cursors
  | 'plan-resync' //      compute the next automatic start
  | 'set-start-time' //   of a resync or initial replication, as asked
  | 'drop-start-time'
  | 'queue-resync' //     begin, or continue at the cursor, as soon as the host's queue admits it
  | 'pause-resync' //     keep cursor and diff disk
  | 'drop-diff' //        delete diff disk and cursor; the base is untouched. Not once the merge has begun: then base + diff count
  | 'serve-failover' //   make the chosen point writable, served over NBD
  | 'discard-failover' // delete what was written since the failover
  | 'delete-points'
  | 'forget'; //          delete the relationship's records and logs

export type Step = { next: ReplicationState; effects: readonly Effect[]; event: ReplicationEvent | null };

type Recorded = EventDefinition<StateChange> | null;
type Outcome = { next: ReplicationState; record: Recorded; effects: readonly Effect[] };
type Refusal = { refused: string };
type Cell = Outcome | ((situation: Situation) => Outcome | Refusal);
type Row = Partial<Record<Operation, Cell>>;

const E = STATE_EVENTS;
const go = (next: ReplicationState, record: Recorded, ...effects: Effect[]): Outcome => ({ next, record, effects });
const stay = (next: ReplicationState, ...effects: Effect[]): Outcome => go(next, null, ...effects);
const refuse = (refused: string): Refusal => ({ refused });

const REMOVE = go('Disabled', E.removed, 'forget');
const SUSPEND = go('Suspended', E.suspended, 'stop-shipping');
const FAIL_OVER = go('FailedOverWaitingCompletion', E.failoverStarted, 'serve-failover');
/** Unplanned failover cancels a resync and uses the untouched base. */
const FAIL_OVER_CANCELS_RESYNC = go('FailedOverWaitingCompletion', E.failoverStarted, 'drop-diff', 'serve-failover');

/** Goes on where the relationship was before it was paused or failed. */
const RESUME: Cell = ({ hasBaseline }) =>
  hasBaseline === true
    ? go('Replicating', E.resumed, 'start-shipping')
    : go('InitialReplicationInProgress', E.resumed, 'start-initial');

/** A resync always passes through "required": the queue starts it, at once if it may, and only then is its rung known. */
function resynchronize(...effects: Effect[]): Cell {
  return ({ hasBaseline, startAt }) => {
    if (hasBaseline !== true)
      return refuse('initial replication has not finished yet, so there is nothing to compare with');
    return startAt === undefined
      ? go('WaitingForStartResynchronize', E.resyncRequested, ...effects, 'queue-resync')
      : go('WaitingForStartResynchronize', E.resyncScheduled as Recorded, ...effects, 'set-start-time');
  };
}

const STOP_UNFINISHED_INITIAL: Cell = ({ hasBaseline }) =>
  hasBaseline === true
    ? refuse('initial replication has finished')
    : go('ReadyForInitialReplication', E.initialStopped, 'stop-initial', 'stop-logging');

/** Where the other host has taken over, only a choice of direction leads on, and that is made there. */
function whileStillPrimary(cell: Cell): Cell {
  return (situation) => {
    if (situation.tookOver === true) return refuse('the other host has taken over');
    return typeof cell === 'function' ? cell(situation) : cell;
  };
}

const withBaseline =
  (outcome: Outcome): Cell =>
  ({ hasBaseline }) =>
    hasBaseline === true ? outcome : refuse('the replica has no baseline yet');

const testFailover =
  (state: ReplicationState): Cell =>
  (situation) => {
    if (situation.hasBaseline !== true) return refuse('the replica has no baseline yet');
    if (situation.testFailoverRunning === true) return refuse('a test failover is running already');
    return stay(state);
  };

function whileNotMerging(cell: Cell): Cell {
  return (situation) => {
    if (situation.merging === true)
      return refuse('the resynchronized data is being merged into the replica, which has no way back');
    return typeof cell === 'function' ? cell(situation) : cell;
  };
}

/** Outside a failover there may still be a test failover to end. */
const endTestFailover =
  (state: ReplicationState): Cell =>
  ({ testFailoverRunning }) =>
    testFailoverRunning === true ? stay(state) : refuse('no failover is in progress');

const CANCEL_FAILOVER: Cell = ({ resyncRequired }) =>
  resyncRequired === true
    ? go('WaitingForStartResynchronize', E.failoverCancelled, 'discard-failover', 'plan-resync')
    : go('Replicating', E.failoverCancelled, 'discard-failover');

const TABLE: Record<ReplicationState, Row> = {
  Disabled: { enable: go('ReadyForInitialReplication', E.enabled) },
  ReadyForInitialReplication: {
    'start-initial': ({ startAt }) =>
      startAt === undefined
        ? go('InitialReplicationInProgress', E.initialStarted, 'start-logging', 'start-initial')
        : go('ReadyForInitialReplication', E.initialScheduled as Recorded, 'set-start-time'),
    'stop-initial': ({ startPending }) =>
      startPending === true
        ? go('ReadyForInitialReplication', E.initialStopped, 'drop-start-time')
        : refuse('initial replication has not been started'),
    'set': stay('ReadyForInitialReplication'),
    'remove': REMOVE,
  },
  InitialReplicationInProgress: {
    'stop-initial': go('ReadyForInitialReplication', E.initialStopped, 'stop-initial', 'stop-logging'),
    'suspend': go('Suspended', E.suspended, 'pause-initial'),
    'set': stay('InitialReplicationInProgress'),
    'remove': REMOVE,
  },
  WaitingForInitialReplication: { import: go('Replicating', E.initialFinished), remove: REMOVE },
  Replicating: {
    'suspend': SUSPEND,
    'sync-now': stay('Replicating'),
    'verify': stay('Replicating'),
    'set': stay('Replicating'),
    'prepare-failover': go('PreparedForFailover', E.failoverPrepared, 'stop-shipping'),
    'test-failover': testFailover('Replicating'),
    'planned-failover': ({ primaryPrepared }) =>
      primaryPrepared === true ? FAIL_OVER : refuse('the primary has not prepared a planned failover'),
    'failover': withBaseline(FAIL_OVER),
    'cancel-failover': endTestFailover('Replicating'),
    'remove': REMOVE,
  },
  Suspended: {
    'stop-initial': STOP_UNFINISHED_INITIAL,
    'resume': RESUME,
    'resynchronize': resynchronize('stop-logging'),
    'set': stay('Suspended'),
    'test-failover': testFailover('Suspended'),
    'failover': withBaseline(FAIL_OVER),
    'cancel-failover': endTestFailover('Suspended'),
    'remove': REMOVE,
  },
  Error: {
    'stop-initial': STOP_UNFINISHED_INITIAL,
    'suspend': whileStillPrimary(SUSPEND),
    'resume': whileStillPrimary(RESUME),
    'resynchronize': whileStillPrimary(resynchronize('stop-logging')),
    'set': stay('Error'),
    'test-failover': testFailover('Error'),
    'failover': withBaseline(FAIL_OVER),
    'cancel-failover': endTestFailover('Error'),
    'remove': REMOVE,
  },
  WaitingForStartResynchronize: {
    'resume': ({ startAt }) =>
      startAt === undefined
        ? stay('WaitingForStartResynchronize', 'queue-resync')
        : go('WaitingForStartResynchronize', E.resyncScheduled as Recorded, 'set-start-time'),
    'resynchronize': resynchronize(),
    'cancel-resync': ({ startPending }) =>
      startPending === true
        ? go('WaitingForStartResynchronize', E.resyncScheduleDropped, 'drop-start-time')
        : refuse('no resynchronization is running or scheduled'),
    'set': stay('WaitingForStartResynchronize', 'plan-resync'),
    'failover': FAIL_OVER,
    'cancel-failover': endTestFailover('WaitingForStartResynchronize'),
    'remove': REMOVE,
  },
  Resynchronizing: {
    'suspend': whileNotMerging(go('ResynchronizeSuspended', E.resyncSuspended, 'pause-resync')),
    'cancel-resync': whileNotMerging(go('WaitingForStartResynchronize', E.resyncCancelled, 'drop-diff')),
    'set': stay('Resynchronizing'),
    'failover': FAIL_OVER_CANCELS_RESYNC,
    'cancel-failover': endTestFailover('Resynchronizing'),
    'remove': REMOVE,
  },
  ResynchronizeSuspended: {
    'resume': go('Resynchronizing', E.resyncContinued, 'queue-resync'),
    'resynchronize': whileNotMerging(resynchronize('drop-diff')),
    'cancel-resync': whileNotMerging(go('WaitingForStartResynchronize', E.resyncCancelled, 'drop-diff')),
    'set': stay('ResynchronizeSuspended'),
    'failover': FAIL_OVER_CANCELS_RESYNC,
    'cancel-failover': endTestFailover('ResynchronizeSuspended'),
    'remove': REMOVE,
  },
  PreparedForFailover: {
    'cancel-failover': ({ resyncRequired }) =>
      resyncRequired === true
        ? go('WaitingForStartResynchronize', E.failoverCancelled, 'plan-resync')
        : go('Replicating', E.failoverCancelled, 'start-shipping'),
    'remove': REMOVE,
  },
  FailedOverWaitingCompletion: {
    'cancel-failover': CANCEL_FAILOVER,
    'complete-failover': go('FailedOver', E.failoverCompleted, 'delete-points'),
    'reverse': stay('FailedOverWaitingCompletion'),
    'remove': REMOVE,
  },
  FailedOver: { reverse: stay('FailedOver'), remove: REMOVE },
};

/**
 * May this operation run, and where does it lead? Returns the error instead of throwing it, for pages that show what is possible:
 * state INVALID_STATE, or state WRONG_SIDE naming the host where the operation belongs. `reason` is what the event will say.
 */
export function decide(
  situation: Situation,
  operation: Operation,
  reason = 'asked by the user',
): Step | UnderstudyError {
  const { state, vmName } = situation;
  const { side, label } = OPERATIONS[operation];
  if (state !== 'Disabled' && side !== 'both' && side !== situation.side) return wrongSide(situation, side, label);
  const cell = TABLE[state][operation];
  const outcome = typeof cell === 'function' ? cell(situation) : cell;
  if (outcome !== undefined && 'next' in outcome) return stepOf(situation, outcome, reason);
  const why = outcome === undefined ? '' : `: ${outcome.refused}`;
  return new UnderstudyError(
    'state',
    'INVALID_STATE',
    `VM '${vmName}' is in state ${state}: operation '${label}' is not possible${why}`,
    remedyFor(situation, operation),
  );
}

/** As `decide`, for whoever carries the operation out: throws the refusal. */
export function requireAllowed(situation: Situation, operation: Operation, reason?: string): Step {
  const step = decide(situation, operation, reason);
  if (step instanceof UnderstudyError) throw step;
  return step;
}

function stepOf(situation: Situation, { next, record, effects }: Outcome, reason: string): Step {
  if (record === null) return { next, effects, event: null };
  const change = {
    from: situation.state,
    to: next,
    reason,
    ...(situation.startAt === undefined ? {} : { at: situation.startAt }),
  };
  return { next, effects, event: makeEvent(record, situation.vmName, change) };
}

function wrongSide(situation: Situation, side: Side, label: string): UnderstudyError {
  const { vmName, otherHost } = situation;
  const there = otherHost === undefined ? `the ${side}` : `the ${side}, host ${otherHost}`;
  return new UnderstudyError(
    'state',
    'WRONG_SIDE',
    `VM '${vmName}' is on this host as ${situation.side}: operation '${label}' belongs on ${there}`,
    `Run it on ${there}.`,
  );
}
