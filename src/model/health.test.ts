import assert from 'node:assert/strict';
import { test } from 'node:test';
import { healthOf } from './health.ts';
import type { HealthFacts } from './health.ts';
import { fold, newStatistics } from './statistics.ts';
import type { Statistics } from './statistics.ts';

const NOW = Date.parse('2026-07-01T10:00:00Z');
const MINUTE = 60_000;

function counted(successes: number, missed: number, latencyMs = 1000): Statistics {
  let statistics = newStatistics(
    NOW - 60 * MINUTE,
    { monitoringIntervalSec: 43_200, monitoringStart: '09:00:00' },
    'UTC',
  );
  for (let n = 0; n < successes; n++) statistics = fold(statistics, { outcome: 'success', bytes: 1, latencyMs });
  for (let n = 0; n < missed; n++) statistics = fold(statistics, { outcome: 'missed' });
  return statistics;
}

const well: HealthFacts = {
  vmName: 'web',
  side: 'primary',
  state: 'Replicating',
  now: NOW,
  since: NOW - 600 * MINUTE,
  hasBaseline: true,
  lastReplicationTime: NOW - MINUTE,
  statistics: counted(100, 0),
  failure: null,
  required: null,
  log: { bytes: 10, limitBytes: 1000, limitReachedAt: null },
};
const failure = { message: 'no route to host b:7443', remedy: 'Check the network.', retryAt: NOW + 2 * MINUTE };

const rows: readonly [name: string, facts: Partial<HealthFacts>, health: string, details: RegExp[]][] = [
  ['a VM that replicates in time is Normal', {}, 'Normal', []],
  ['a VM without replication has no health', { state: 'Disabled' }, 'NotApplicable', []],
  ['a test failover of an hour is Normal', { testFailover: { since: NOW - 60 * MINUTE, waitingBytes: 5 } }, 'Normal', []],
  [
    'a longer one may have been forgotten',
    { side: 'replica', testFailover: { since: NOW - 61 * MINUTE, waitingBytes: 5 } },
    'Warning',
    [/runs since .*; 5 bytes wait to be applied/],
  ],
  ['points that cannot be used are Warning', { side: 'replica', damagedPoints: 2 }, 'Warning', [/2 recovery points cannot be used/]],
  ['exactly 20 % missed is Normal', { statistics: counted(80, 20) }, 'Normal', []],
  [
    'more than 20 % missed is Warning and says how many',
    { statistics: counted(79, 21) },
    'Warning',
    [/79 out of 100 \(79 %\)/],
  ],
  ['one hour since the last send is Normal', { lastReplicationTime: NOW - 60 * MINUTE }, 'Normal', []],
  [
    'more than an hour since the last send is Warning',
    { lastReplicationTime: NOW - 60 * MINUTE - 1 },
    'Warning',
    [/sent more than an hour ago/],
  ],
  [
    'more than an hour since the last receive is Warning',
    { side: 'replica', lastReplicationTime: NOW - 61 * MINUTE },
    'Warning',
    [/received more than an hour ago/],
  ],
  ['never sent counts from the beginning', { lastReplicationTime: null }, 'Warning', [/more than an hour/]],
  ['5 min of latency is Normal', { statistics: counted(1, 0, 5 * MINUTE) }, 'Normal', []],
  [
    'more than 5 min of latency is Warning',
    { statistics: counted(1, 0, 5 * MINUTE + 1) },
    'Warning',
    [/latency is 300 s/],
  ],
  [
    'no baseline is Warning',
    { state: 'InitialReplicationInProgress', hasBaseline: false },
    'Warning',
    [/Initial replication/],
  ],
  ['paused on the primary is Warning', { state: 'Suspended' }, 'Warning', [/Resume replication/]],
  ['paused on the replica is Critical', { side: 'replica', state: 'Suspended' }, 'Critical', [/paused on the replica/]],
  [
    'failed over and not reversed is Warning',
    { side: 'replica', state: 'FailedOver', log: null },
    'Warning',
    [/Reverse/],
  ],
  [
    'a failure in the way is Critical, with its retry',
    { failure },
    'Critical',
    [/no route to host b:7443\. Check the network\..*10:02:00/],
  ],
  [
    'error, misses and age are all listed, worst first',
    {
      state: 'Error',
      failure: { ...failure, retryAt: null },
      statistics: counted(0, 10),
      lastReplicationTime: NOW - 90 * MINUTE,
    },
    'Critical',
    [/cannot be sent.*Then resume replication/, /0 out of 10/, /more than an hour/],
  ],
  [
    'resync required is Critical and says what to do',
    { state: 'WaitingForStartResynchronize', required: { trigger: 3, reason: 'ENOSPC on vda.hrl', startAt: null } },
    'Critical',
    [
      /^Resynchronization is required because a write to the tracking log failed.*ENOSPC on vda\.hrl.*Resume .* to start it\.$/,
    ],
  ],
  [
    'resync required names its start time',
    { state: 'WaitingForStartResynchronize', required: { trigger: 1, reason: 'x', startAt: NOW + MINUTE } },
    'Critical',
    [/starts by itself at 2026-07-01T10:01/],
  ],
  [
    'on the replica it names the primary',
    { side: 'replica', state: 'WaitingForStartResynchronize' },
    'Critical',
    [/on the primary/],
  ],
  [
    'a paused resync is Critical',
    { state: 'ResynchronizeSuspended' },
    'Critical',
    [/continue it from where it stopped/],
  ],
  ['a running resync is Warning', { state: 'Resynchronizing' }, 'Warning', [/is running/]],
  [
    'logs near their limit are Warning with the forecast',
    { log: { bytes: 800, limitBytes: 1000, limitReachedAt: NOW + MINUTE } },
    'Warning',
    [/800 of 1000 bytes; .*10:01:00/],
  ],
  [
    'logs below 80 % of their limit are Normal',
    { log: { bytes: 799, limitBytes: 1000, limitReachedAt: null } },
    'Normal',
    [],
  ],
];
for (const [name, facts, health, details] of rows) {
  test(name, () => {
    const found = healthOf({ ...well, ...facts });
    assert.equal(found.health, health, found.details.join('\n'));
    assert.equal(found.details.length, details.length, found.details.join('\n'));
    details.forEach((detail, index) => assert.match(found.details[index] ?? '', detail));
  });
}

test('reset statistics turns a warning about misses into Normal', () => {
  const reset = newStatistics(NOW, { monitoringIntervalSec: 43_200, monitoringStart: '09:00:00' }, 'UTC');
  assert.equal(healthOf({ ...well, statistics: reset }).health, 'Normal');
});
