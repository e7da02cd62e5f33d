/**
 * The last cycles of a relationship, for charts: when each was delivered or missed, how large it was and how long it took.
 * Plain rows of numbers, because they are written with every cycle.
 */
import type { Cycle } from './statistics.ts';

/** A chart shows no more; at 30 s this is an hour and a half, at 15 minutes almost two days. */
export const CYCLES_KEPT_MAX = 180;

const OUTCOMES = ['success', 'missed', 'late', 'failed-attempt'] as const satisfies readonly Cycle['outcome'][];
export type CycleHistory = [at: number, outcome: number, bytes: number, latencyMs: number][];

export interface PastCycle {
  at: number;
  outcome: Cycle['outcome'];
  bytes: number;
  latencyMs: number;
}

export function addCycle(before: CycleHistory, cycle: Cycle, at: number): CycleHistory {
  const { bytes, latencyMs } = 'bytes' in cycle ? cycle : { bytes: 0, latencyMs: 0 };
  return [...before, [at, OUTCOMES.indexOf(cycle.outcome), bytes, Math.round(latencyMs)] as const]
    .slice(-CYCLES_KEPT_MAX) as CycleHistory;
}

export function cyclesOf(history: CycleHistory): PastCycle[] {
  return history.map(([at, outcome, bytes, latencyMs]) => ({ at, outcome: OUTCOMES[outcome]!, bytes, latencyMs }));
}

/** What the catalog holds; anything that is not a history counts as none, since it is only shown. */
export function parseHistory(value: unknown): CycleHistory {
  return Array.isArray(value) && value.every(isRow) ? value : [];
}

/** By hand: it is read with every cycle of every VM, and a schema took a millisecond for all rows. */
function isRow(row: unknown): boolean {
  return Array.isArray(row) && row.length === 4 && row.every(Number.isFinite) && OUTCOMES[row[1] as number] !== undefined;
}

export const cyclesKey = (vmId: string): string => `cycles/${vmId}`;
