import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pastCycle } from './cycle-history.ts';

test('a cycle is kept with time, size and latency, in whole numbers', () => {
  assert.deepEqual(pastCycle({ outcome: 'late', bytes: 7, latencyMs: 1.6 }, 1000), { at: 1000, outcome: 'late', bytes: 7, latencyMs: 2 });
});

test('one that delivered nothing has neither size nor latency', () => {
  for (const outcome of ['missed', 'failed-attempt'] as const) {
    assert.deepEqual(pastCycle({ outcome }, 1000), { at: 1000, outcome, bytes: 0, latencyMs: 0 });
  }
});
