/**
 * What happens to a relationship by itself or at the other host: (state, event) → (next state, effects, event to
 * record). An event that no longer applies (it raced with a user's command) is null: nothing changes and nothing is
 * recorded.
 */

import { makeEvent, STATE_EVENTS } from './events.ts';
import type { ReplicationEvent } from './events.ts';
import type { Effect, Situation, Step } from './relationship.ts';
import { RESYNC_STATES } from './replication-state.ts';
import type { ReplicationState, Side } from './replication-state.ts';
import type { Rung, TriggerNumber } from './resync-trigger.ts';

export type RelationshipEvent =
  /** Replica: the primary enabled replication; this host holds the placeholder. */
  | { kind: 'enabled-by-primary'; reason: string }
  | { kind: 'initial-started'; reason: string }
  | { kind: 'initial-finished'; reason: string }
  /** A failure that does not heal by itself (backoff.ts decides), in shipping, apply or initial replication. */
  | { kind: 'failed'; code: string; reason: string }
  | { kind: 'resync-required'; trigger: TriggerNumber; reason: string }
  /** The queue admitted it and the ladder chose its rung. */
  | { kind: 'resync-started'; rung: Rung; reason: string }
  /** It cannot go on by itself. `resumable`: cursor and diff disk stay good. */
  | { kind: 'resync-failed'; code: string; reason: string; resumable: boolean }
  | { kind: 'resync-finished'; reason: string }
  /** Replica: follow what the primary says of itself. */
  | { kind: 'primary-changed'; state: ReplicationState; reason: string }
  /** Primary: the replica took over without us. */
  | { kind: 'peer-failed-over'; reason: string }
  | { kind: 'peer-cancelled-failover'; reason: string }
  /** The direction changed. `equal`: both disks are known equal, as after a planned failover. */
  | { kind: 'reversed'; becomes: Side; equal: boolean; reason: string };

const E = STATE_EVENTS;
const HAS_FAILED_OVER: readonly ReplicationState[] = ['FailedOverWaitingCompletion', 'FailedOver'];

export function onEvent(situation: Situation, event: RelationshipEvent): Step | null {
  const { state, vmName: vm } = situation;
  const { reason } = event;
  const go = (next: ReplicationState, record: (change: Change) => ReplicationEvent, ...effects: Effect[]): Step => ({
    next,
    effects,
    event: record({ from: state, to: next, reason }),
  });
  switch (event.kind) {
    case 'enabled-by-primary':
      return state === 'Disabled' ? go('WaitingForInitialReplication', (c) => makeEvent(E.enabled, vm, c)) : null;
    case 'initial-started':
      return state === 'ReadyForInitialReplication'
        ? go(
            'InitialReplicationInProgress',
            (c) => makeEvent(E.initialStarted, vm, c),
            'start-logging',
            'start-initial',
          )
        : null;
    case 'initial-finished':
      return state === 'InitialReplicationInProgress' || state === 'WaitingForInitialReplication'
        ? go('Replicating', (c) => makeEvent(E.initialFinished, vm, c), 'start-shipping')
        : null;
    case 'failed':
      return state === 'Replicating' ||
        state === 'InitialReplicationInProgress' ||
        state === 'WaitingForInitialReplication'
        ? go('Error', (c) => makeEvent(E.failed, vm, { ...c, code: event.code }), 'stop-shipping', 'pause-initial')
        : null;
    case 'resync-required':
      return required(situation, event);
    case 'resync-started':
      return state === 'WaitingForStartResynchronize'
        ? go('Resynchronizing', (c) => makeEvent(E.resyncStarted, vm, { ...c, rung: event.rung }))
        : null;
    case 'resync-failed':
      if (state !== 'Resynchronizing') return null;
      return event.resumable
        ? go('ResynchronizeSuspended', (c) => makeEvent(E.resyncFailed, vm, { ...c, code: event.code }), 'pause-resync')
        : go(
            'WaitingForStartResynchronize',
            (c) => makeEvent(E.resyncFailed, vm, { ...c, code: event.code }),
            'drop-diff',
          );
    case 'resync-finished':
      return state === 'Resynchronizing'
        ? go('Replicating', (c) => makeEvent(E.resyncFinished, vm, c), 'start-shipping')
        : null;
    case 'primary-changed':
      return followsPrimary(situation, event.state) ? go(event.state, (c) => makeEvent(E.peerChanged, vm, c)) : null;
    case 'peer-failed-over':
      return situation.side === 'primary' &&
        state !== 'Disabled' &&
        state !== 'PreparedForFailover' &&
        state !== 'Error'
        ? go('Error', (c) => makeEvent(E.peerFailedOver, vm, c), 'stop-shipping', 'drop-diff')
        : null;
    case 'peer-cancelled-failover':
      return afterPeerCancelled(situation, go);
    case 'reversed':
      return reversed(situation, event, go);
    default:
      return event satisfies never;
  }
}

type Change = { from: ReplicationState; to: ReplicationState; reason: string };
type Go = (next: ReplicationState, record: (change: Change) => ReplicationEvent, ...effects: Effect[]) => Step;

/** A trigger. Where there is no baseline yet, initial replication covers it instead. */
function required(situation: Situation, event: { trigger: TriggerNumber; reason: string }): Step | null {
  const { state, vmName: vm, hasBaseline } = situation;
  const { trigger, reason } = event;
  const record = (next: ReplicationState): ReplicationEvent =>
    makeEvent(E.resyncRequired, vm, { from: state, to: next, reason, trigger });
  const stopped: Step = {
    next: 'WaitingForStartResynchronize',
    event: record('WaitingForStartResynchronize'),
    effects: ['stop-shipping', 'stop-logging', 'plan-resync'],
  };
  switch (state) {
    case 'Disabled':
    case 'ReadyForInitialReplication':
    case 'WaitingForInitialReplication':
      return null;
    case 'InitialReplicationInProgress':
      return initialBroken(situation, event);
    case 'Replicating':
      return stopped;
    case 'Suspended':
    case 'Error':
      return hasBaseline === true ? stopped : { next: state, event: record(state), effects: ['stop-logging'] };
    case 'WaitingForStartResynchronize':
      return { next: state, event: record(state), effects: ['plan-resync'] };
    case 'Resynchronizing':
    case 'ResynchronizeSuspended':
      return { ...stopped, effects: ['drop-diff', 'stop-logging', 'plan-resync'] };
    // The failover goes its own way; the reason is recorded and counts when it is cancelled or reversed.
    case 'PreparedForFailover':
    case 'FailedOverWaitingCompletion':
    case 'FailedOver':
      return { next: state, event: record(state), effects: [] };
    default:
      return state satisfies never;
  }
}

/** Starting over by itself ends well for every trigger but the log limit: there it would fill the logs again, for ever. */
function initialBroken(situation: Situation, { trigger, reason }: { trigger: TriggerNumber; reason: string }): Step {
  const { state: from, vmName: vm } = situation;
  if (trigger === 2) {
    const event = makeEvent(E.failed, vm, { from, to: 'Error', reason, code: 'LOG_LIMIT_EXCEEDED' });
    return { next: 'Error', event, effects: ['pause-initial', 'stop-logging'] };
  }
  return {
    next: from,
    event: makeEvent(E.initialRestarted, vm, { from, to: from, reason }),
    effects: ['restart-initial'],
  };
}

/** The replica mirrors a resync, so that its own commands are refused in it; other states of the primary are its own matter. */
function followsPrimary({ side, state, hasBaseline }: Situation, next: ReplicationState): boolean {
  if (side !== 'replica' || next === state || hasBaseline !== true) return false;
  if (state === 'Disabled' || HAS_FAILED_OVER.includes(state)) return false;
  return (
    RESYNC_STATES.includes(next) || (next === 'Replicating' && (RESYNC_STATES.includes(state) || state === 'Error'))
  );
}

function afterPeerCancelled({ side, state, vmName: vm, resyncRequired }: Situation, go: Go): Step | null {
  if (side !== 'primary' || state !== 'Error') return null;
  return resyncRequired === true
    ? go('WaitingForStartResynchronize', (c) => makeEvent(E.failoverCancelled, vm, c), 'stop-logging', 'plan-resync')
    : go('Replicating', (c) => makeEvent(E.failoverCancelled, vm, c), 'start-shipping');
}

/** The new primary comes out of a failover; the old one may be in any state, as it may have heard of nothing. */
function reversed({ state, vmName: vm }: Situation, event: { becomes: Side; equal: boolean }, go: Go): Step | null {
  if (state === 'Disabled' || (event.becomes === 'primary' && !HAS_FAILED_OVER.includes(state))) return null;
  const isPrimary = event.becomes === 'primary';
  return event.equal
    ? go(
        'Replicating',
        (c) => makeEvent(E.reversed, vm, c),
        ...(isPrimary ? (['start-logging', 'start-shipping'] as const) : []),
      )
    : go(
        'WaitingForStartResynchronize',
        (c) => makeEvent(E.reversed, vm, c),
        ...(isPrimary ? (['plan-resync'] as const) : []),
      );
}
