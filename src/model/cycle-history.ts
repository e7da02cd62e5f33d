/**
 * The last cycles of a relationship, for charts: when each was delivered or missed, how large it was and how long it took.
 * Plain rows of numbers, because they are written with every cycle.
 */
import { z } from 'zod';
import type { Cycle } from './statistics.ts';

/** A chart shows no more; at 30 s this is an hour and a half, at 15 minutes almost two days. */
export const CYCLES_KEPT_MAX = 180;

const OUTCOMES = ['success', 'missed', 'late', 'failed-attempt'] as const satisfies readonly Cycle['outcome'][];
/** [ms since 1970, index of the outcome, bytes, latency ms] */
const rowSchema = z.tuple([z.number(), z.int().min(0).max(OUTCOMES.length - 1), z.number(), z.number()]);
const historySchema = z.array(rowSchema);
export type CycleHistory = z.infer<typeof historySchema>;

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
  const parsed = historySchema.safeParse(value);
  return parsed.success ? parsed.data : [];
}

export const cyclesKey = (vmId: string): string => `cycles/${vmId}`;
