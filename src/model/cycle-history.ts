/** The last cycles of a relationship, for charts: when each was delivered or missed, how large it was and how long it took. */
import type { Cycle } from './statistics.ts';

/** A chart shows no more; at 30 s this is an hour and a half, at 15 minutes almost two days. */
export const CYCLES_KEPT_MAX = 180;

export interface PastCycle {
  /** When it was counted, ms since 1970. */
  at: number;
  outcome: Cycle['outcome'];
  /** Of its log set, before compression; 0 for one that delivered nothing. */
  bytes: number;
  /** Whole milliseconds. */
  latencyMs: number;
}

export function pastCycle(cycle: Cycle, at: number): PastCycle {
  const { bytes, latencyMs } = 'bytes' in cycle ? cycle : { bytes: 0, latencyMs: 0 };
  return { at, outcome: cycle.outcome, bytes: Math.round(bytes), latencyMs: Math.round(latencyMs) };
}
