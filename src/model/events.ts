/**
 * The catalogue of events: what a host tells its administrator, with Hyper-V's number where Hyper-V has one and a name of our own
 * elsewhere. Scripts match on `id` and read `data`; messages stay free to improve. docs/operating/events.md lists the same
 * events (a test compares).
 */

import type { ReplicationState } from './replication-state.ts';
import type { Rung, TriggerNumber } from './resync-trigger.ts';
import { RESYNC_TRIGGERS } from './resync-trigger.ts';
import { define, type EventDefinition, type EventLevel, type Failure, type ReplicationEvent } from './event-definition.ts';
import { GUEST_EVENTS } from './guest-events.ts';

export type { EventDefinition, EventId, EventLevel, Failure, ReplicationEvent } from './event-definition.ts';

/** Makes an event of the catalogue. `vmName` is null for an event of the host. */
export function makeEvent<Data extends object>(
  definition: EventDefinition<Data>,
  vmName: string | null,
  data: NoInfer<Data>,
): ReplicationEvent {
  return {
    id: definition.id,
    level: definition.level,
    vmName,
    message: definition.message(vmName ?? '', data),
    data: { ...data } as Record<string, unknown>,
  };
}

/** In every event of a state change. */
export type StateChange = { from: ReplicationState; to: ReplicationState; reason: string };
/** Blocks of 4096 bytes, both ends inside; at rung 1 the first and the last, with the count of ranges between them. */
export type CompareRange = { path: string; startBlock: number; endBlock: number; ranges: number };
export type ResyncCause = StateChange & { trigger: TriggerNumber };
export type Finding = { path: string; offset: number; length: number };

const changed = (id: string, level: EventLevel, summary: string, words: string): EventDefinition<StateChange> =>
  define(id, level, summary, (vm, { reason }) => `${words} for VM '${vm}'${reason === '' ? '' : `: ${reason}`}.`);

const count = (n: number, one: string): string => `${n} ${one}${n === 1 ? '' : 's'}`;
const minutes = (seconds: number): string =>
  seconds < 120 ? count(seconds, 'second') : count(Math.round(seconds / 60), 'minute');

/** Changes of the relationship's state: each transition of relationship.ts records exactly one of these. */
export const STATE_EVENTS = {
  enabled: changed('ReplicationEnabled', 'Information', 'Replication was enabled', 'Replication was enabled'),
  removed: changed('ReplicationRemoved', 'Warning', 'Replication was removed', 'Replication was removed'),
  initialScheduled: define<StateChange & { at: string }>(
    'InitialReplicationScheduled',
    'Information',
    'Initial replication has a start time',
    (vm, { at }) => `Initial replication of VM '${vm}' starts at ${at}.`,
  ),
  initialStarted: changed(
    'InitialReplicationStarted',
    'Information',
    'Initial replication started',
    'Initial replication started',
  ),
  initialStopped: changed(
    'InitialReplicationStopped',
    'Warning',
    'Initial replication was stopped by the user',
    'Initial replication was stopped',
  ),
  initialFinished: changed(
    'InitialReplicationFinished',
    'Information',
    'The replica has its baseline',
    'Initial replication finished',
  ),
  suspended: changed('ReplicationSuspended', 'Warning', 'Replication was paused', 'Replication was paused'),
  resumed: changed('ReplicationResumed', 'Information', 'Replication was resumed', 'Replication was resumed'),
  failed: define<StateChange & Failure>(
    32086,
    'Error',
    'Replication stopped: a failure that does not heal by itself',
    (vm, { reason }) =>
      `Replication of VM '${vm}' was suspended because of a failure that does not heal by itself: ${reason}. ` +
      'Correct it, then resume replication.',
  ),
  resyncRequired: define<ResyncCause>(
    'ResynchronizationRequired',
    'Error',
    'The disks can no longer be known equal',
    (vm, { trigger, reason }) =>
      `VM '${vm}' requires resynchronization because ${RESYNC_TRIGGERS[trigger].because} ` +
      `(trigger ${trigger}): ${reason}. Resume replication to start it.`,
  ),
  resyncScheduled: define<StateChange & { at: string }>(
    'ResynchronizationScheduled',
    'Information',
    'A resynchronization has a start time',
    (vm, { at, reason }) => `Resynchronization of VM '${vm}' starts at ${at}: ${reason}.`,
  ),
  resyncRequested: changed(
    'ResynchronizationRequested',
    'Warning',
    'The user asked for a resynchronization (trigger 8)',
    'Resynchronization was requested',
  ),
  initialRestarted: changed(
    'InitialReplicationRestarted',
    'Warning',
    'Initial replication starts over onto what is there',
    'Initial replication starts over',
  ),
  resyncScheduleDropped: changed(
    'ResynchronizationScheduleDropped',
    'Warning',
    'The start time of a resynchronization was dropped',
    'The start time of the resynchronization was dropped',
  ),
  resyncStarted: define<StateChange & { rung: Rung }>(
    'ResynchronizationStarted',
    'Information',
    'A resynchronization started; rung and reason',
    (vm, { rung, reason }) => `Resynchronization of VM '${vm}' started at rung ${rung}: ${reason}.`,
  ),
  resyncSuspended: changed(
    'ResynchronizationSuspended',
    'Warning',
    'A resynchronization was paused and keeps its progress',
    'Resynchronization was paused',
  ),
  resyncContinued: changed(
    'ResynchronizationContinued',
    'Information',
    'A resynchronization goes on from where it was',
    'Resynchronization continues',
  ),
  resyncCancelled: changed(
    'ResynchronizationCancelled',
    'Warning',
    'A resynchronization was cancelled; it is still required',
    'Resynchronization was cancelled',
  ),
  resyncFailed: define<StateChange & Failure>(
    'ResynchronizationFailed',
    'Error',
    'A resynchronization stopped with an error',
    (vm, { reason }) => `Resynchronization of VM '${vm}' failed: ${reason}.`,
  ),
  resyncFinished: changed(
    'ResynchronizationFinished',
    'Information',
    'The disks are equal again and replication goes on',
    'Resynchronization finished',
  ),
  failoverPrepared: changed(
    'FailoverPrepared',
    'Information',
    'A planned failover is prepared: the VM may not start here',
    'A planned failover was prepared',
  ),
  failoverStarted: changed('FailoverStarted', 'Warning', 'The replica took over', 'Failover started'),
  failoverCancelled: changed('FailoverCancelled', 'Warning', 'A failover was taken back', 'Failover was cancelled'),
  failoverCompleted: changed(
    'FailoverCompleted',
    'Information',
    'The failover is final; its recovery points are gone',
    'Failover was completed',
  ),
  peerFailedOver: changed(
    'PeerFailedOver',
    'Error',
    'The replica took over while this host was the primary',
    'The replica took over',
  ),
  reversed: changed(
    'ReplicationReversed',
    'Information',
    'The direction of replication was reversed',
    'Replication was reversed',
  ),
  peerChanged: changed(
    'PeerStateChanged',
    'Information',
    'The replica follows a change that the primary made',
    'The primary changed the state',
  ),
} as const;

/** What happens inside a state. */
export const ACTIVITY_EVENTS = {
  intervalStatistics: define<{
    from: string;
    to: string;
    successfulCycles: number;
    missedCycles: number;
    errors: number;
    averageBytes: number;
    maximumBytes: number;
    averageLatencySeconds: number;
    maximumLatencySeconds: number;
  }>(
    29174,
    'Information',
    'Statistics of the monitoring interval that ended',
    (vm, data) =>
      `Replication statistics of VM '${vm}' from ${data.from} to ${data.to}: ${data.successfulCycles} out of ` +
      `${data.successfulCycles + data.missedCycles} cycles successful, ${count(data.errors, 'error')}, average size ` +
      `${count(data.averageBytes, 'byte')}, maximum ${data.maximumBytes}, average latency ${data.averageLatencySeconds} s, ` +
      `maximum ${data.maximumLatencySeconds} s.`,
  ),
  compareStarted: define<{ disks: CompareRange[] }>(
    29242,
    'Information',
    'Resynchronization started comparing: disks and blocks',
    (vm, { disks }) => `Resynchronization of VM '${vm}' compares ${disks.map(rangeText).join('; ')}.`,
  ),
  compareFinished: define<{ disks: { path: string; blocksSent: number }[]; seconds: number; result: string }>(
    29244,
    'Information',
    'Resynchronization finished comparing: blocks sent, time, result',
    (vm, { disks, seconds, result }) =>
      `Resynchronization of VM '${vm}' finished comparing after ${minutes(seconds)} ` +
      `(${result}): ${disks.map(({ path, blocksSent }) => `${path}: ${count(blocksSent, 'block')} sent`).join('; ')}.`,
  ),
  shipFailed: define<Failure>(
    32022,
    'Error',
    'Changes could not be replicated',
    (vm, { reason }) => `Understudy could not replicate changes for VM '${vm}': ${reason}.`,
  ),
  applyIncomplete: define<Failure>(
    32032,
    'Error',
    'The replica could not finish applying a log',
    (vm, { reason }) => `Understudy failed to complete applying changes to the replica of VM '${vm}': ${reason}.`,
  ),
  applyFailed: define<Failure>(
    32056,
    'Error',
    'The replica could not apply a log',
    (vm, { reason }) => `Understudy failed to apply a replication log to the replica of VM '${vm}': ${reason}.`,
  ),
  willRetry: define<Failure & { attempt: number; delaySeconds: number }>(
    32315,
    'Warning',
    'A cycle failed and is tried again',
    (vm, { reason, attempt, delaySeconds }) =>
      `Understudy failed to replicate changes for VM '${vm}' (attempt ${attempt}): ${reason}. ` +
      `It tries again in ${minutes(delaySeconds)}.`,
  ),
  operationFailed: define<Failure & { operation: string; primaryServer: string; replicaServer: string }>(
    33680,
    'Error',
    'An operation failed',
    (vm, { operation, reason, primaryServer, replicaServer }) =>
      `Replication operation '${operation}' for VM '${vm}' failed ` +
      `(primary server '${primaryServer}', replica server '${replicaServer}'): ${reason}.`,
  ),
  settingsChanged: define<{ changes: Record<string, unknown> }>(
    'ReplicationSettingsChanged',
    'Information',
    'Settings were changed',
    (vm, { changes }) =>
      `Settings of VM '${vm}' changed: ` +
      `${Object.entries(changes)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => `${name} = ${JSON.stringify(value)}`)
        .join(', ')}.`,
  ),
  initialExported: define<{ folder: string; bytes: number }>(
    'InitialReplicationExported',
    'Information',
    'The initial copy is exported: carry it to the replica and import it there',
    (vm, { folder, bytes }) =>
      `The initial copy of VM '${vm}' is in ${folder} (${count(bytes, 'byte')}). Carry it to the replica host and import it there: ` +
      `understudy import '${vm}' --from DIR.`,
  ),
  oldPrimaryMet: define<{ primaryServer: string; primaryHolds: boolean }>(
    'OldPrimaryMet',
    'Warning',
    'After a failover the old primary can be reached again; a person must choose the direction',
    (vm, { primaryServer, primaryHolds }) =>
      `The old primary ${primaryServer} of VM '${vm}' can be reached again and ` +
      `${primaryHolds ? 'holds changes that never came here' : 'holds nothing that never came here'}. Reverse replication to keep this ` +
      'side, or cancel the failover to keep the other one.',
  ),
  statisticsReset: define<Record<never, never>>(
    'ReplicationStatisticsReset',
    'Information',
    'The counters were reset by the user',
    (vm) => `Replication statistics of VM '${vm}' were reset.`,
  ),
  resyncQueued: define<{ position: number; running: string[] }>(
    'ResynchronizationQueued',
    'Information',
    'A resynchronization waits for its turn',
    (vm, { position, running }) =>
      `Resynchronization of VM '${vm}' waits at position ${position} for: ${running.join(', ')}.`,
  ),
  resyncInterrupted: define<Failure & { delaySeconds: number }>(
    'ResynchronizationInterrupted',
    'Warning',
    'A running resynchronization lost the link and continues from where it was',
    (vm, { reason, delaySeconds }) =>
      `Resynchronization of VM '${vm}' was interrupted: ${reason}. It continues in ` +
      `${minutes(delaySeconds)} from where it was.`,
  ),
  mergeStarted: define<{ disks: { path: string; bytes: number }[] }>(
    'MergeStarted',
    'Information',
    'The resynchronized data moves into the replica; from here there is no way back',
    (vm, { disks }) =>
      `The resynchronized data of VM '${vm}' is being merged: ` +
      `${disks.map(({ path, bytes }) => `${path}: ${count(bytes, 'byte')}`).join('; ')}.`,
  ),
  mergeFinished: define<{ deletedPoints: number; seconds: number }>(
    'MergeFinished',
    'Information',
    'The merge is done',
    (vm, { deletedPoints, seconds }) =>
      `The merge for VM '${vm}' is done after ${minutes(seconds)}; ` +
      `${count(deletedPoints, 'recovery point')} deleted, as their baseline changed.`,
  ),
  logNearLimit: define<{ logBytes: number; limitBytes: number; limitReachedAt: string | null }>(
    'TrackingLogNearLimit',
    'Warning',
    'The tracking logs approach the limit at which resynchronization becomes required',
    (vm, { logBytes, limitBytes, limitReachedAt }) =>
      `The tracking logs of VM '${vm}' hold ${logBytes} of ${limitBytes} bytes` +
      `${limitReachedAt === null ? '' : `; at the present rate the limit is reached at ${limitReachedAt}`}. ` +
      'Past it, resynchronization is required: restore the link or resume replication.',
  ),
  changeMapDistrusted: define<{ reason: string }>(
    'ChangeMapDistrusted',
    'Warning',
    'The next repair will be a full compare',
    (vm, { reason }) =>
      `The change map of VM '${vm}' is no longer trusted: ${reason}. The next repair is a full compare.`,
  ),
  verifyPassed: define<{ comparedBytes: number; seconds: number }>(
    'VerifyPassed',
    'Information',
    'The replica was proven equal',
    (vm, { comparedBytes, seconds }) =>
      `The replica of VM '${vm}' is proven equal: ${count(comparedBytes, 'byte')} in ` + `${minutes(seconds)}.`,
  ),
  verifyFailed: define<{ differingBytes: number; findings: Finding[]; repaired: boolean }>(
    'VerifyFailed',
    'Error',
    'The replica differs from the primary',
    (vm, { differingBytes, findings, repaired }) =>
      `The replica of VM '${vm}' differs in ${count(differingBytes, 'byte')}, first at ` +
      `${findings
        .slice(0, 3)
        .map(({ path, offset }) => `${path} offset ${offset}`)
        .join(', ')}${repaired ? '; repaired' : ''}.`,
  ),
  recoveryPointCreated: define<{ pointId: string; kind: string }>(
    'RecoveryPointCreated',
    'Information',
    'A recovery point was created',
    (vm, { kind }) => `A ${kind} recovery point of VM '${vm}' was created.`,
  ),
  recoveryPointsLost: define<{ points: string[]; reason: string }>(
    'RecoveryPointsLost',
    'Warning',
    'Recovery points were deleted to keep the replica going',
    (vm, { points, reason }) =>
      `${count(points.length, 'recovery point')} of VM '${vm}' (${points.join(', ')}) had to go: ${reason}. ` +
      'The replica itself goes on; new points are made as there is room.',
  ),
  recoveryPointsDamaged: define<{ points: string[]; reason: string }>(
    'RecoveryPointsDamaged',
    'Error',
    'Recovery points can no longer be used; newer ones and the latest can',
    (vm, { points, reason }) =>
      `${count(points.length, 'recovery point')} of VM '${vm}' (${points.join(', ')}) cannot be used any more: ${reason}.`,
  ),
  recoveryPointsDeleted: define<{ points: number; reason: string }>(
    'RecoveryPointsDeleted',
    'Information',
    'Recovery points were deleted because what they rest on has changed',
    (vm, { points, reason }) => `${count(points, 'recovery point')} of VM '${vm}' deleted: ${reason}.`,
  ),
  testFailoverStarted: define<{ pointId: string }>(
    'TestFailoverStarted',
    'Information',
    'A test VM runs on a recovery point',
    (vm, { pointId }) => `A test failover of VM '${vm}' to point ${pointId} started.`,
  ),
  testFailoverStopped: define<Record<never, never>>(
    'TestFailoverStopped',
    'Information',
    'A test failover ended',
    (vm) => `The test failover of VM '${vm}' ended; its disks are deleted.`,
  ),
  ...GUEST_EVENTS,
  failoverSettled: define<{ disks: string[] }>(
    'FailoverDisksReady',
    'Information',
    'The disks of a completed failover are plain files again',
    (vm, { disks }) => `The failover of VM '${vm}' is in its disks: ${disks.join(', ')}.`,
  ),
  splitBrain: define<{ reason: string }>(
    'SplitBrainDetected',
    'Error',
    'Both hosts hold a writable VM',
    (vm, { reason }) =>
      `Both hosts hold a writable copy of VM '${vm}': ${reason}. Neither is changed until you choose one.`,
  ),
  peerRefused: define<{ fingerprint: string; address: string; reason: string }>(
    'PeerRefused',
    'Warning',
    'An unknown host was refused',
    (_vm, { fingerprint, address, reason }) =>
      `A host at ${address} with fingerprint ${fingerprint} was refused: ${reason}.`,
  ),
  diskResized: define<{ path: string; beforeBytes: number; afterBytes: number }>(
    'DiskResized',
    'Information',
    'A virtual disk changed its size',
    (vm, { path, beforeBytes, afterBytes }) =>
      `Disk ${path} of VM '${vm}' changed from ${beforeBytes} to ${afterBytes} bytes.`,
  ),
} as const;

/** All of them, for lists and pages. */
export const EVENTS = { ...STATE_EVENTS, ...ACTIVITY_EVENTS } as const;

function rangeText({ path, startBlock, endBlock, ranges }: CompareRange): string {
  return `${path}: blocks ${startBlock} to ${endBlock}${ranges > 1 ? ` in ${ranges} ranges` : ''}`;
}
