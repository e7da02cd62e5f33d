/**
 * Counters of one monitoring interval of one relationship (Hyper-V: `Measure-VMReplication`, event 29174). Plain JSON, folded by
 * pure functions; the host keeps the result in the catalog.
 */

import { DAY_MS, DAY_SEC } from './limits.ts';
import { dayAfter, instantOf, secondOfDay, wallTime } from './local-time.ts';
import type { WallTime } from './local-time.ts';
import type { HostSettings } from './settings.ts';

export type Statistics = {
  /** Interval in ms since 1970; `until` is the next boundary. The first interval of a VM is shorter. */
  from: number;
  until: number;
  successfulCycles: number;
  /** Logs that were not delivered when the next one was due; counted then. */
  missedCycles: number;
  /** Successful ones and those that came late: what the averages are over. */
  deliveredCycles: number;
  /** Attempts that failed, including those a retry mended. */
  errors: number;
  /** Sums over the delivered cycles; averages are taken when shown. */
  totalBytes: number;
  maximumBytes: number;
  lastBytes: number;
  totalLatencyMs: number;
  maximumLatencyMs: number;
  lastLatencyMs: number;
};

/** What happened to one log set. Latency: from the moment the set was closed until the replica acknowledged it. */
export type Cycle =
  | { outcome: 'success'; bytes: number; latencyMs: number }
  | { outcome: 'missed' } // the next one is due and this one is not delivered
  | { outcome: 'late'; bytes: number; latencyMs: number } // delivered after it was counted as missed
  | { outcome: 'failed-attempt' };

export type IntervalSettings = Pick<HostSettings, 'monitoringIntervalSec' | 'monitoringStart'>;

/** Empty counters from `now` to the next boundary; also what "reset statistics" gives. */
export function newStatistics(now: number, settings: IntervalSettings, zone: string): Statistics {
  return {
    from: now,
    until: nextBoundary(now, settings, zone),
    successfulCycles: 0,
    missedCycles: 0,
    deliveredCycles: 0,
    errors: 0,
    totalBytes: 0,
    maximumBytes: 0,
    lastBytes: 0,
    totalLatencyMs: 0,
    maximumLatencyMs: 0,
    lastLatencyMs: 0,
  };
}

export function fold(before: Statistics, cycle: Cycle): Statistics {
  switch (cycle.outcome) {
    case 'failed-attempt':
      return { ...before, errors: before.errors + 1 };
    case 'missed':
      return { ...before, missedCycles: before.missedCycles + 1 };
    case 'success':
      return { ...delivered(before, cycle), successfulCycles: before.successfulCycles + 1 };
    case 'late':
      return delivered(before, cycle);
    default:
      return cycle satisfies never;
  }
}

function delivered(before: Statistics, { bytes, latencyMs }: { bytes: number; latencyMs: number }): Statistics {
  return {
    ...before,
    deliveredCycles: before.deliveredCycles + 1,
    totalBytes: before.totalBytes + bytes,
    maximumBytes: Math.max(before.maximumBytes, bytes),
    lastBytes: bytes,
    totalLatencyMs: before.totalLatencyMs + latencyMs,
    maximumLatencyMs: Math.max(before.maximumLatencyMs, latencyMs),
    lastLatencyMs: latencyMs,
  };
}

/** Bytes; null before the first delivery. */
export function averageBytes({ totalBytes, deliveredCycles }: Statistics): number | null {
  return deliveredCycles === 0 ? null : Math.round(totalBytes / deliveredCycles);
}

export function averageLatencyMs({ totalLatencyMs, deliveredCycles }: Statistics): number | null {
  return deliveredCycles === 0 ? null : Math.round(totalLatencyMs / deliveredCycles);
}

/** Of all cycles that were due, 0 when none was. */
export function missedPercent({ successfulCycles, missedCycles }: Statistics): number {
  const due = successfulCycles + missedCycles;
  return due === 0 ? 0 : (missedCycles / due) * 100;
}

/**
 * Closes the interval when its end has come: the finished one is for event 29174. A host that slept over several boundaries
 * reports one interval, up to the last boundary passed. Counters of a clock that was set back stay as they are.
 */
export function rollOver(
  before: Statistics,
  now: number,
  settings: IntervalSettings,
  zone: string,
): { current: Statistics; finished: Statistics | null } {
  if (now < before.until) return { current: before, finished: null };
  const current = newStatistics(now, settings, zone);
  const start = previousBoundary(now, settings, zone);
  return { current: { ...current, from: start }, finished: { ...before, until: start } };
}

/** The data of event 29174. */
export function intervalReport(statistics: Statistics): {
  from: string;
  to: string;
  successfulCycles: number;
  missedCycles: number;
  errors: number;
  averageBytes: number;
  maximumBytes: number;
  averageLatencySeconds: number;
  maximumLatencySeconds: number;
} {
  return {
    from: new Date(statistics.from).toISOString(),
    to: new Date(statistics.until).toISOString(),
    successfulCycles: statistics.successfulCycles,
    missedCycles: statistics.missedCycles,
    errors: statistics.errors,
    averageBytes: averageBytes(statistics) ?? 0,
    maximumBytes: statistics.maximumBytes,
    averageLatencySeconds: (averageLatencyMs(statistics) ?? 0) / 1000,
    maximumLatencySeconds: statistics.maximumLatencyMs / 1000,
  };
}

/** The first boundary after `now`. */
export function nextBoundary(now: number, settings: IntervalSettings, zone: string): number {
  return (
    boundariesAround(now, settings, zone).find((boundary) => boundary > now) ??
    now + settings.monitoringIntervalSec * 1000
  );
}

function previousBoundary(now: number, settings: IntervalSettings, zone: string): number {
  return boundariesAround(now, settings, zone).findLast((boundary) => boundary <= now) ?? now;
}

/**
 * Boundaries lie on the local clock: from `monitoringStart` every interval, anew each day, so that they stay at the
 * same hours over daylight saving. Intervals of several days count days since 1970.
 */
function boundariesAround(
  now: number,
  { monitoringIntervalSec, monitoringStart }: IntervalSettings,
  zone: string,
): number[] {
  const today = wallTime(now, zone);
  const daysEach = Math.max(1, monitoringIntervalSec / DAY_SEC);
  const perDay = Math.max(1, DAY_SEC / monitoringIntervalSec);
  const start = secondOfDay(monitoringStart) ?? 0;
  const boundaries = new Set<number>();
  for (let days = -daysEach - 1; days <= daysEach + 1; days++) {
    const day = dayAfter(today, days, 0);
    if (dayNumber(day) % daysEach !== 0) continue;
    for (let part = 0; part < perDay; part++) {
      const second = start + part * monitoringIntervalSec;
      boundaries.add(instantOf(dayAfter(day, Math.floor(second / DAY_SEC), second % DAY_SEC), zone));
    }
  }
  return [...boundaries].sort((a, b) => a - b);
}

function dayNumber({ year, month, day }: WallTime): number {
  return Date.UTC(year, month - 1, day) / DAY_MS;
}
