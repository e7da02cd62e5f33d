import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  averageBytes,
  averageLatencyMs,
  fold,
  intervalReport,
  missedPercent,
  newStatistics,
  nextBoundary,
  rollOver,
} from './statistics.ts';
import type { Cycle } from './statistics.ts';

const HOUR = 3600;
const DEFAULTS = { monitoringIntervalSec: 12 * HOUR, monitoringStart: '09:00:00' };
const BERLIN = 'Europe/Berlin';
const utc = (text: string): number => Date.parse(`${text}Z`);

const boundaries: readonly [name: string, hours: number, start: string, zone: string, now: string, next: string][] = [
  [
    'the default interval ends at nine in the evening',
    12,
    '09:00:00',
    BERLIN,
    '2026-07-01T10:00:00',
    '2026-07-01T19:00:00',
  ],
  ['and at nine in the morning', 12, '09:00:00', BERLIN, '2026-07-01T19:00:00', '2026-07-02T07:00:00'],
  [
    "before the first start of the day it is yesterday's last",
    12,
    '09:00:00',
    BERLIN,
    '2026-07-01T01:00:00',
    '2026-07-01T07:00:00',
  ],
  ['hourly intervals', 1, '09:30:00', 'UTC', '2026-07-01T23:31:00', '2026-07-02T00:30:00'],
  ['three hours from 22:00 cross midnight', 3, '22:00:00', 'UTC', '2026-07-01T23:00:00', '2026-07-02T01:00:00'],
  [
    'the day that is 23 hours long keeps its wall clock',
    12,
    '09:00:00',
    BERLIN,
    '2026-03-28T21:00:00',
    '2026-03-29T07:00:00',
  ],
  ['two days count from 1970', 48, '09:00:00', 'UTC', '2026-07-01T10:00:00', '2026-07-02T09:00:00'],
  ['two days later', 48, '09:00:00', 'UTC', '2026-07-02T09:00:00', '2026-07-04T09:00:00'],
  ['a week', 168, '00:00:00', 'UTC', '2026-07-02T00:00:01', '2026-07-09T00:00:00'],
];
for (const [name, hours, start, zone, now, next] of boundaries) {
  test(`monitoring boundary: ${name}`, () => {
    const found = nextBoundary(utc(now), { monitoringIntervalSec: hours * HOUR, monitoringStart: start }, zone);
    assert.equal(new Date(found).toISOString(), `${next}.000Z`);
  });
}

const play = (...cycles: Cycle[]): ReturnType<typeof newStatistics> =>
  cycles.reduce(fold, newStatistics(0, DEFAULTS, 'UTC'));

test('sizes and latency are averaged over what was delivered, late or not', () => {
  const statistics = play(
    { outcome: 'success', bytes: 100, latencyMs: 1000 },
    { outcome: 'failed-attempt' },
    { outcome: 'missed' },
    { outcome: 'late', bytes: 300, latencyMs: 9000 },
  );
  assert.equal(averageBytes(statistics), 200);
  assert.equal(averageLatencyMs(statistics), 5000);
  assert.deepEqual(
    [statistics.maximumBytes, statistics.lastBytes, statistics.maximumLatencyMs, statistics.errors],
    [300, 300, 9000, 1],
  );
  assert.deepEqual([statistics.successfulCycles, statistics.missedCycles, missedPercent(statistics)], [1, 1, 50]);
});

test('before the first cycle there is no average and nothing is missed', () => {
  const statistics = play();
  assert.deepEqual(
    [averageBytes(statistics), averageLatencyMs(statistics), missedPercent(statistics)],
    [null, null, 0],
  );
});

test('at the boundary the finished interval is handed out and counting begins anew', () => {
  const now = utc('2026-07-01T18:00:00');
  const before = fold(newStatistics(now, DEFAULTS, BERLIN), { outcome: 'success', bytes: 8192, latencyMs: 500 });
  assert.equal(rollOver(before, utc('2026-07-01T18:59:59'), DEFAULTS, BERLIN).finished, null);
  const { current, finished } = rollOver(before, utc('2026-07-01T19:00:02'), DEFAULTS, BERLIN);
  assert.deepEqual(intervalReport(finished ?? before), {
    from: '2026-07-01T18:00:00.000Z',
    to: '2026-07-01T19:00:00.000Z',
    successfulCycles: 1,
    missedCycles: 0,
    errors: 0,
    averageBytes: 8192,
    maximumBytes: 8192,
    averageLatencySeconds: 0.5,
    maximumLatencySeconds: 0.5,
  });
  assert.deepEqual(
    [current.from, current.until, current.successfulCycles],
    [utc('2026-07-01T19:00:00'), utc('2026-07-02T07:00:00'), 0],
  );
});

test('a host that slept over several boundaries reports one interval', () => {
  const before = newStatistics(utc('2026-07-01T18:00:00'), DEFAULTS, BERLIN);
  const { current, finished } = rollOver(before, utc('2026-07-04T12:00:00'), DEFAULTS, BERLIN);
  assert.equal(finished?.until, utc('2026-07-04T07:00:00'));
  assert.equal(current.from, finished?.until);
});
