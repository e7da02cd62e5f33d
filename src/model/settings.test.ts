import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from './errors.ts';
import {
  changeSettings,
  hostSettingsSchema,
  parseInput,
  relationshipSettingsSchema,
  vmNameSchema,
} from './settings.ts';
import type { RelationshipSettings, SettingsChange } from './settings.ts';

const defaults: RelationshipSettings = relationshipSettingsSchema.parse({});

test('the defaults are those of the manual', () => {
  assert.deepEqual(defaults.autoResync, { enabled: true, intervalStart: '18:30:00', intervalEnd: '06:00:00' });
  assert.deepEqual(
    [defaults.frequencySec, defaults.recoveryHistory, defaults.logLimitPercent, defaults.boundedWaitMs],
    [300, 0, 50, 2000],
  );
  assert.deepEqual(hostSettingsSchema.parse({}), {
    monitoringIntervalSec: 43_200,
    monitoringStart: '09:00:00',
    resyncConcurrency: 1,
    transferConcurrency: 3,
  });
});

test('a change touches only what it names, also inside a group', () => {
  const changed = changeSettings(defaults, { frequencySec: 30, autoResync: { intervalEnd: '05:00:00' } });
  assert.deepEqual(changed, {
    ...defaults,
    frequencySec: 30,
    autoResync: { ...defaults.autoResync, intervalEnd: '05:00:00' },
  });
  const unset = { frequencySec: undefined, verify: undefined } as unknown as SettingsChange;
  assert.deepEqual(changeSettings(changed, unset), changed);
});

const wrong: readonly [change: object, words: RegExp][] = [
  [{ frequencySec: 60 }, /frequencySec: .*30\|300\|900 \(given: 60\)/],
  [{ recoveryHistory: 25 }, /recoveryHistory: .*24 \(given: 25\)/],
  [{ recoveryHistory: 1.5 }, /recoveryHistory/],
  [{ autoResync: { intervalStart: '18:30' } }, /autoResync\.intervalStart: must be HH:MM:SS \(given: "18:30"\)/],
  [{ autoResync: { intervalStart: '06:00:00' } }, /equal/],
  [{ applicationConsistentHours: 4 }, /recoveryHistory of at least 1/],
  [{ boundedWaitMs: 60_000 }, /boundedWaitMs/],
  [{ logLimitPercent: 0 }, /logLimitPercent/],
  [{ colour: 'red' }, /colour/],
];
for (const [change, words] of wrong) {
  test(`the change ${JSON.stringify(change)} is refused in words`, () =>
    assert.throws(
      () => changeSettings(defaults, change as SettingsChange),
      (error: unknown) => error instanceof UnderstudyError && error.code === 'BAD_SETTING' && words.test(error.message),
    ));
}

test('a monitoring interval is one that Hyper-V allows', () => {
  for (const monitoringIntervalSec of [3600, 86_400, 604_800]) hostSettingsSchema.parse({ monitoringIntervalSec });
  for (const monitoringIntervalSec of [0, 5 * 3600, 8 * 86_400]) {
    assert.throws(
      () => parseInput(hostSettingsSchema, { monitoringIntervalSec }, 'BAD_SETTING', 'x'),
      /1, 2, 3, 4, 6, 8, 12 or 24 hours/,
    );
  }
});

test('VM names are safe as file names and labels', () => {
  for (const name of ['web', 'RESYNC VM', 'größer-1', '..a']) vmNameSchema.parse(name);
  for (const name of ['', ' a', 'a/b', 'a\\b', '..', 'a\nb', 'x'.repeat(129)])
    assert.equal(vmNameSchema.safeParse(name).success, false, name);
});
