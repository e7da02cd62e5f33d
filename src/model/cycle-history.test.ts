import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addCycle, CYCLES_KEPT_MAX, cyclesOf, parseHistory, type CycleHistory } from './cycle-history.ts';

test('cycles are kept with time, size and latency, and only the newest', () => {
  let history: CycleHistory = [];
  for (let at = 0; at < CYCLES_KEPT_MAX + 5; at++) history = addCycle(history, { outcome: 'success', bytes: at, latencyMs: 1.4 }, at * 1000);
  history = addCycle(history, { outcome: 'missed' }, 999_000);
  const cycles = cyclesOf(parseHistory(JSON.parse(JSON.stringify(history))));
  assert.equal(cycles.length, CYCLES_KEPT_MAX);
  assert.deepEqual(cycles.at(-1), { at: 999_000, outcome: 'missed', bytes: 0, latencyMs: 0 });
  assert.deepEqual(cycles.at(-2), { at: (CYCLES_KEPT_MAX + 4) * 1000, outcome: 'success', bytes: CYCLES_KEPT_MAX + 4, latencyMs: 1 });
});

test('anything else in the catalog counts as no history', () => {
  for (const value of [undefined, null, 'x', [[1]], [[1, 9, 0, 0]]]) assert.deepEqual(parseHistory(value), []);
});
