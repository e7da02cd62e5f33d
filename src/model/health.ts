/**
 * How well a relationship does, as numbers and sentences. The state is now; health looks over the monitoring interval. Rules are
 * Hyper-V Replica's (docs/operating/states.md): the worst detail decides, and all are listed, worst first.
 */

import {
  AVERAGE_LATENCY_MS_MAX,
  LOG_WARNING_SHARE,
  MISSED_CYCLES_PERCENT_MAX,
  REPLICATION_AGE_MS_MAX,
  TEST_FAILOVER_MS_MAX,
} from './limits.ts';
import type { GuestRun } from './hypervisor.ts';
import { HEALTH_NUMBERS } from './replication-state.ts';
import type { ReplicationHealth, ReplicationState, Side } from './replication-state.ts';
import { RESYNC_TRIGGERS } from './resync-trigger.ts';
import type { TriggerNumber } from './resync-trigger.ts';
import { averageLatencyMs, missedPercent } from './statistics.ts';
import type { Statistics } from './statistics.ts';

/** Times in ms since 1970. */
export type HealthFacts = {
  vmName: string;
  side: Side;
  state: ReplicationState;
  now: number;
  /** When the relationship came to be: before the first send, age counts from here. */
  since: number;
  hasBaseline: boolean;
  /** Last send (primary) or receive (replica). */
  lastReplicationTime: number | null;
  statistics: Statistics;
  /** The failure that is in the way at present, and when it is tried again. */
  failure: { code?: string; message: string; remedy: string; retryAt: number | null } | null;
  required: { trigger: TriggerNumber; reason: string; startAt: number | null } | null;
  /** Replica that has failed over: the old primary can be reached again and holds what never came here. */
  oldPrimaryHolds?: boolean;
  /** Tracking logs of the primary against their limit; null on a replica. */
  log: { bytes: number; limitBytes: number; limitReachedAt: number | null } | null;
  /** Replica: a test failover that runs, and what waits for its end; points that cannot be used. */
  testFailover?: { since: number; waitingBytes: number } | null;
  damagedPoints?: number;
  /** What the adapter did last for the guest and the test guest. */
  guests?: Pick<GuestRun, 'action' | 'failure' | 'addresses'>[];
  /** The leg to an extended replica: why the replica that feeds it cannot be copied or compared now, or sends nothing new. */
  feederWaits?: string | null;
};

export type Health = { health: ReplicationHealth; details: string[] };
type Finding = { health: 'Warning' | 'Critical'; detail: string };

export function healthOf(facts: HealthFacts): Health {
  if (facts.state === 'Disabled') return { health: 'NotApplicable', details: [] };
  const findings = [
    ...stateFindings(facts),
    ...failureFindings(facts),
    ...cycleFindings(facts),
    ...logFindings(facts),
    ...pointFindings(facts),
    ...guestFindings(facts),
    ...feederFindings(facts),
  ].sort((a, b) => HEALTH_NUMBERS[b.health] - HEALTH_NUMBERS[a.health]);
  return { health: findings[0]?.health ?? 'Normal', details: findings.map(({ detail }) => detail) };
}

function feederFindings({ feederWaits = null }: HealthFacts): Finding[] {
  return feederWaits === null ? [] : [warning(`The extended replica waits for the replica on this host: ${feederWaits}.`)];
}

const critical = (detail: string): Finding => ({ health: 'Critical', detail });
const warning = (detail: string): Finding => ({ health: 'Warning', detail });
const time = (instant: number): string => new Date(instant).toISOString();

function stateFindings(facts: HealthFacts): Finding[] {
  switch (facts.state) {
    case 'WaitingForStartResynchronize':
      return [critical(requiredText(facts))];
    case 'ResynchronizeSuspended':
      return [
        critical('Resynchronization is paused. Resume replication to continue it from where it stopped, or cancel it.'),
      ];
    case 'Resynchronizing':
      return [
        warning(
          'Resynchronization is running; until it has finished, the replica stays at the point where replication stopped.',
        ),
      ];
    case 'Suspended':
      return [
        facts.side === 'replica'
          ? critical('Replication is paused on the replica. Resume replication.')
          : warning('Replication is paused. Resume replication; until then tracking logs grow.'),
      ];
    case 'Error':
      return facts.failure === null
        ? [critical('Replication is in error. Correct the cause, then resume replication.')]
        : [];
    case 'ReadyForInitialReplication':
    case 'InitialReplicationInProgress':
    case 'WaitingForInitialReplication':
      return [warning('Initial replication has not finished: there is nothing to fail over to yet.')];
    case 'PreparedForFailover':
      return [warning('A planned failover is prepared but not finished. Finish it on the replica, or cancel it here.')];
    case 'FailedOverWaitingCompletion':
    case 'FailedOver':
      return [
        warning('The VM has failed over and is not protected. Reverse replication.'),
        ...(facts.oldPrimaryHolds === true ? [critical(OLD_PRIMARY_HOLDS)] : []),
      ];
    case 'Replicating':
    case 'Disabled':
      return [];
    default:
      return facts.state satisfies never;
  }
}

const OLD_PRIMARY_HOLDS =
  'The old primary can be reached again and holds changes that never came here. Reverse replication to keep this side, or cancel the ' +
  'failover to keep the other one.';

function requiredText({ required, side, now }: HealthFacts): string {
  const act = side === 'primary' ? 'Resume replication to start it' : 'Resume replication on the primary to start it';
  if (required === null) return `Resynchronization is required. ${act}.`;
  const { trigger, reason, startAt } = required;
  const { because } = RESYNC_TRIGGERS[trigger];
  const why = `Resynchronization is required because ${because}${reason === because ? '' : ` (${reason})`}.`;
  if (startAt !== null && startAt <= now) return `${why} It starts as soon as it is its turn.`;
  return startAt === null
    ? `${why} ${act}.`
    : `${why} It starts by itself at ${time(startAt)}; resume replication to start it now.`;
}

function failureFindings({ failure, side }: HealthFacts): Finding[] {
  if (failure === null) return [];
  const what = side === 'primary' ? 'Replication cannot be sent' : 'Replication cannot be applied';
  // There the remedy is whole: to resume is just what is not possible.
  if (failure.code === 'PEER_FAILED_OVER') return [critical(`Replication is stopped: ${failure.message}. ${failure.remedy}`)];
  const retry =
    failure.retryAt === null ? 'Then resume replication.' : `It is tried again at ${time(failure.retryAt)}.`;
  return [critical(`${what}: ${failure.message}. ${failure.remedy} ${retry}`)];
}

/** States in which cycles are due: elsewhere a missing one is not news. */
const CYCLES_DUE: ReadonlySet<ReplicationState> = new Set(['Replicating', 'Suspended', 'Error']);

function cycleFindings({
  state,
  side,
  statistics,
  now,
  since,
  lastReplicationTime,
  hasBaseline,
}: HealthFacts): Finding[] {
  const findings: Finding[] = [];
  const missed = missedPercent(statistics);
  if (missed > MISSED_CYCLES_PERCENT_MAX) {
    const { successfulCycles, missedCycles } = statistics;
    findings.push(
      warning(
        `More than ${MISSED_CYCLES_PERCENT_MAX} % of the replication cycles were missed: ` +
          `${successfulCycles} out of ${successfulCycles + missedCycles} (${Math.floor(100 - missed)} %) were successful.`,
      ),
    );
  }
  const last = lastReplicationTime ?? since;
  if (hasBaseline && CYCLES_DUE.has(state) && now - last > REPLICATION_AGE_MS_MAX) {
    findings.push(
      warning(
        `The last replication was ${side === 'primary' ? 'sent' : 'received'} more than an hour ago` +
          `${lastReplicationTime === null ? '' : `, at ${time(lastReplicationTime)}`}.`,
      ),
    );
  }
  const latency = averageLatencyMs(statistics);
  if (latency !== null && latency > AVERAGE_LATENCY_MS_MAX) {
    findings.push(
      warning(
        `The average replication latency is ${Math.round(latency / 1000)} s, more than ` +
          `${AVERAGE_LATENCY_MS_MAX / 1000} s.`,
      ),
    );
  }
  return findings;
}

function pointFindings({ testFailover = null, damagedPoints = 0, now }: HealthFacts): Finding[] {
  const findings: Finding[] = [];
  if (testFailover !== null && now - testFailover.since > TEST_FAILOVER_MS_MAX) {
    findings.push(
      warning(
        `A test failover runs since ${time(testFailover.since)}; ${testFailover.waitingBytes} bytes wait to be applied. ` +
          'End it: understudy failover cancel.',
      ),
    );
  }
  if (damagedPoints > 0) {
    findings.push(warning(`${damagedPoints} recovery points cannot be used; understudy points says why.`));
  }
  return findings;
}

function logFindings({ log, state }: HealthFacts): Finding[] {
  if (log === null || log.limitBytes <= 0 || state === 'WaitingForStartResynchronize') return [];
  if (log.bytes < log.limitBytes * LOG_WARNING_SHARE) return [];
  const when =
    log.limitReachedAt === null ? '' : `; at the present rate the limit is reached at ${time(log.limitReachedAt)}`;
  return [
    warning(
      `The tracking logs hold ${log.bytes} of ${log.limitBytes} bytes${when}. Past the limit resynchronization is required.`,
    ),
  ];
}

/** Actions whose failure has refused a command: its user was told, and nothing has changed. */
const REFUSING: ReadonlySet<GuestRun['action']> = new Set(['stop', 'power-off']);

/** A failover is not undone by an adapter that fails, so the guest may be missing where its disks are served. */
function guestFindings({ guests = [] }: HealthFacts): Finding[] {
  return guests.flatMap(({ action, failure, addresses }) => [
    ...(failure === null || REFUSING.has(action) ? [] : [warning(action.startsWith('start')
      ? `The disks are served, but the guest was not started: ${failure.message}. ${failure.remedy}`
      : `The guest could not be turned off (${action}): ${failure.message}. ${failure.remedy}`)]),
    ...((addresses?.failure ?? null) === null ? [] : [warning(`The guest did not get its new address: ${addresses!.failure}.`)]),
  ]);
}
