import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RequiredResync } from '../model/records.ts';
import type { TriggerNumber } from '../model/resync-trigger.ts';
import { requiredAfter } from './required-resync.ts';

const after = (before: TriggerNumber | null, trigger: TriggerNumber, mapTrusted = true): RequiredResync =>
  requiredAfter(before === null ? null : requiredAfter(null, { trigger: before, reason: `first ${before}` }, mapTrusted, 1),
    { trigger, reason: `then ${trigger}` }, mapTrusted, 2);

test('what the map has seen is repaired by its regions, also when it happens twice', () => {
  for (const trigger of [2, 3, 4] as const) {
    assert.equal(after(null, trigger).rung, 'suspect-regions');
    assert.equal(after(null, trigger, false).rung, 'full-compare');
    assert.deepEqual([after(2, trigger).trigger, after(2, trigger).rung], [trigger, 'suspect-regions']);
  }
});

test('a loss that no map has seen stays the reason, whatever the map explains later', () => {
  for (const before of [1, 5, 6, 7, 8] as const) {
    for (const trigger of [2, 3, 4] as const) {
      const required = after(before, trigger);
      assert.deepEqual([required.trigger, required.rung, required.startAt], [before, 'full-compare', null]);
    }
  }
});

test('what must be started by a person stays so (R21)', () => {
  for (const before of [5, 7] as const) {
    for (const trigger of [1, 2, 3, 4, 6, 8] as const) assert.equal(after(before, trigger).trigger, before);
  }
  assert.equal(after(1, 7).trigger, 7);
});
