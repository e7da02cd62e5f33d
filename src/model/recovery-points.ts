/** When a recovery point is made, which are kept, and what they are called: decisions, pure. */
import type { PointRecord } from './records.ts';

/** Hyper-V Replica's standard points are an hour apart. */
export const POINT_INTERVAL_MS = 3_600_000;

/** Stable, sorts by time, and says what it is: the instant in ISO 8601 UTC. */
export const pointId = (point: Pick<PointRecord, 'time'>): string => new Date(point.time).toISOString();

export interface Boundary {
  /** The instant that the replica shows once the set is applied. */
  time: number;
  epoch: number;
  /** The guest's applications were brought to rest for it. */
  applicationConsistent: boolean;
}

/**
 * The kind of point to make at this boundary, or null. Points are made of boundaries between sets, so they are an interval apart or
 * a little more.
 */
export function pointDue(
  points: readonly Pick<PointRecord, 'time' | 'epoch'>[], boundary: Boundary, options: { history: number; intervalMs: number },
): PointRecord['kind'] | null {
  if (options.history === 0) return null;
  const newest = points.at(-1);
  // Names are instants: two points cannot share one.
  if (newest !== undefined && (boundary.epoch <= newest.epoch || boundary.time <= newest.time)) return null;
  if (boundary.applicationConsistent) return 'application-consistent';
  return newest === undefined || boundary.time - newest.time >= options.intervalMs ? 'standard' : null;
}

/** Which must go, oldest first, so that no more than `history` are left. */
export function surplus<T>(points: readonly T[], history: number): T[] {
  return points.slice(0, Math.max(0, points.length - history));
}

/** The point that a person means: by its id, or by the same instant written in another way. */
export function findPoint<T extends Pick<PointRecord, 'time'>>(points: readonly T[], asked: string): T | undefined {
  const time = Date.parse(asked);
  return points.find((point) => pointId(point) === asked || point.time === time);
}
