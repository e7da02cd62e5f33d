import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnderstudyError } from './errors.ts';
import { instantOf, instantsOf, nextOffsetChange, requireZone, shownTime, timeOfDay, wallTime } from './local-time.ts';
import { isAnyTime, isOpen, nextAutomaticStart, nextOpening, nextVerify, parseInterval, parseStartTime, parseTime, windowOf } from './schedule.ts';

const BERLIN = 'Europe/Berlin';
const utc = (text: string): number => Date.parse(`${text}Z`);
const iso = (instant: number): string => new Date(instant).toISOString().replace('.000Z', '');
const windowFrom = (text: string): ReturnType<typeof windowOf> =>
  windowOf({ enabled: true, intervalStart: '', intervalEnd: '', ...parseInterval(text) });

const openings: readonly [name: string, window: string, zone: string, now: string, opening: string][] = [
  ['inside the window it is now', '18:30-06:00', BERLIN, '2026-07-01T18:00:00', '2026-07-01T18:00:00'],
  ['in the afternoon it is the same evening', '18:30-06:00', BERLIN, '2026-07-01T10:00:00', '2026-07-01T16:30:00'],
  ['the end second is inside', '18:30-06:00', BERLIN, '2026-07-01T04:00:00', '2026-07-01T04:00:00'],
  ['one second after the end it is closed', '18:30-06:00', BERLIN, '2026-07-01T04:00:01', '2026-07-01T16:30:00'],
  ['a window by day opens on the next day', '09:00-17:00', 'UTC', '2026-07-01T17:00:01', '2026-07-02T09:00:00'],
  ['on is any time', 'on', BERLIN, '2026-07-01T10:11:12', '2026-07-01T10:11:12'],
  [
    'an end one second before the start is any time',
    '18:30:00-18:29:59',
    BERLIN,
    '2026-07-01T10:11:12',
    '2026-07-01T10:11:12',
  ],
  // Berlin, 2026-03-29: 02:00 becomes 03:00 (01:00 UTC).
  ['a start inside the gap opens after the gap', '02:30-06:00', BERLIN, '2026-03-28T22:00:00', '2026-03-29T01:00:00'],
  [
    'a window inside the gap waits for the next day',
    '02:10-02:50',
    BERLIN,
    '2026-03-28T22:00:00',
    '2026-03-30T00:10:00',
  ],
  // Berlin, 2026-10-25: 03:00 becomes 02:00 (01:00 UTC).
  [
    'a start in the overlap opens at its first occurrence',
    '02:30-06:00',
    BERLIN,
    '2026-10-24T22:00:00',
    '2026-10-25T00:30:00',
  ],
  [
    'a window in the overlap opens again at its second occurrence',
    '02:10-02:50',
    BERLIN,
    '2026-10-25T00:50:01',
    '2026-10-25T01:10:00',
  ],
  [
    'the clock may jump back into a window that was over',
    '01:00-02:20',
    BERLIN,
    '2026-10-25T00:40:00',
    '2026-10-25T01:00:00',
  ],
  ['a night of 23 hours keeps the wall clock', '18:30-06:00', BERLIN, '2026-03-29T04:00:01', '2026-03-29T16:30:00'],
  ['half-hour daylight saving', '02:15-02:20', 'Australia/Lord_Howe', '2026-10-03T14:00:00', '2026-10-04T15:15:00'],
];
for (const [name, window, zone, now, opening] of openings) {
  test(`the next opening: ${name}`, () => assert.equal(iso(nextOpening(windowFrom(window), utc(now), zone)), opening));
}

test('the next opening is the first open second, in any zone, over any change of the clock', () => {
  const zones = [BERLIN, 'America/New_York', 'Australia/Lord_Howe', 'Pacific/Apia', 'Africa/Casablanca', 'UTC'];
  const aroundChanges = zones.flatMap((zone) => {
    const changes: [string, number][] = [];
    let from = utc(zone === 'Pacific/Apia' ? '2011-12-01T00:00:00' : '2026-01-01T00:00:00');
    for (let n = 0; n < 4; n++) {
      const change = nextOffsetChange(from, from + 365 * 86_400_000, zone);
      changes.push([zone, change ?? from]);
      from = change ?? from;
    }
    return changes;
  });
  fc.assert(
    fc.property(
      fc.constantFrom(...aroundChanges),
      fc.integer({ min: -36 * 12, max: 6 * 12 }),
      fc.nat(287),
      fc.nat(287),
      ([zone, change], steps, startStep, endStep) => {
        // All on a grid of five minutes, so that the brute force below is exact.
        const window = { start: startStep * 300, end: endStep * 300 };
        const now = change + steps * 300_000;
        const found = nextOpening(window, now, zone);
        let expected = now;
        while (!isOpen(window, expected, zone)) expected += 300_000;
        assert.equal(iso(found), iso(expected));
      },
    ),
    { seed: 20_260_329, numRuns: 300 },
  );
});

test('off never starts by itself', () => {
  assert.equal(
    nextAutomaticStart({ enabled: false, intervalStart: '00:00:00', intervalEnd: '23:59:59' }, 0, 'UTC'),
    null,
  );
  assert.ok(isAnyTime(windowFrom('on')));
  assert.ok(!isAnyTime(windowFrom('18:30-06:00')));
});

const NOW = utc('2026-07-01T10:00:00'); // 12:00 in Berlin, a Wednesday
const starts: readonly [text: string, zone: string, expected: string][] = [
  ['2026-07-01T22:00:00Z', BERLIN, '2026-07-01T22:00:00'],
  ['2026-07-01T22:00:00+02:00', 'UTC', '2026-07-01T20:00:00'],
  ['2026-07-01T22:00-0330', 'UTC', '2026-07-02T01:30:00'],
  ['2026-07-01T22:00:30.250Z', 'UTC', '2026-07-01T22:00:30.250Z'],
  ['2026-07-01 22:00', BERLIN, '2026-07-01T20:00:00'],
  ['2026-07-02', BERLIN, '2026-07-01T22:00:00'],
  ['22:00', BERLIN, '2026-07-01T20:00:00'],
  ['12:00', BERLIN, '2026-07-01T10:00:00'],
  ['11:59', BERLIN, '2026-07-02T09:59:00'],
  ['9:05:07', BERLIN, '2026-07-02T07:05:07'],
  ['10:30 pm', BERLIN, '2026-07-01T20:30:00'],
  ['07/02/2026 12:00:00', BERLIN, '2026-07-02T10:00:00'],
  ['7/2/2026 3:15 PM', BERLIN, '2026-07-02T13:15:00'],
  ['7/2/2026 12:15 AM', BERLIN, '2026-07-01T22:15:00'],
  ['07/03/2026', 'America/New_York', '2026-07-03T04:00:00'],
  ['2026-07-08 12:00', BERLIN, '2026-07-08T10:00:00'],
];
for (const [text, zone, expected] of starts) {
  test(`'${text}' in ${zone} is ${expected}`, () => assert.equal(iso(parseStartTime(text, NOW, zone)), expected));
}

test('a start time in a gap moves on, in an overlap it is the first one', () => {
  assert.equal(iso(parseTime('2026-03-29 02:30', NOW, BERLIN)), '2026-03-29T01:30:00');
  assert.equal(iso(parseTime('2026-10-25 02:30', NOW, BERLIN)), '2026-10-25T00:30:00');
  assert.equal(iso(parseTime('02:30', utc('2026-03-28T23:00:00'), BERLIN)), '2026-03-29T01:30:00');
  assert.equal(iso(parseTime('02:30', utc('2026-10-25T00:31:00'), BERLIN)), '2026-10-25T01:30:00');
});

const refused: readonly [text: string, code: string, words: RegExp][] = [
  ['04/15/2013 12:00:00', 'START_TIME_IN_PAST', /2013-04-15 12:00:00 \(Europe\/Berlin\).*2026-07-01 12:00:00/],
  ['2026-07-01 11:59', 'START_TIME_IN_PAST', /in the past/],
  ['2026-07-08 12:00:01', 'START_TIME_TOO_FAR', /2026-07-08 12:00:01.*more than 7 days ahead.*2026-07-01 12:00:00/],
  ['15/04/2031', 'START_TIME_INVALID', /'15\/04\/2031' is not a time/],
  ['2026-02-29 10:00', 'START_TIME_INVALID', /not a time/],
  ['24:00', 'START_TIME_INVALID', /not a time/],
  ['13:00 PM', 'START_TIME_INVALID', /not a time/],
  ['0:30 AM', 'START_TIME_INVALID', /not a time/],
  ['2026-07-02T10:00+15:00', 'START_TIME_INVALID', /not a time/],
  ['tomorrow', 'START_TIME_INVALID', /not a time/],
  ['', 'START_TIME_INVALID', /not a time/],
];
for (const [text, code, words] of refused) {
  test(`the start time '${text}' is refused: ${code}`, () =>
    assert.throws(
      () => parseStartTime(text, NOW, BERLIN),
      (error: unknown) =>
        error instanceof UnderstudyError && error.kind === 'usage' && error.code === code && words.test(error.message),
    ));
}

test('intervals are off, on, or two times of day', () => {
  assert.deepEqual(parseInterval(' OFF '), { enabled: false });
  assert.deepEqual(parseInterval('on'), { enabled: true, intervalStart: '00:00:00', intervalEnd: '23:59:59' });
  assert.deepEqual(parseInterval('8:30 – 06:00:10'), {
    enabled: true,
    intervalStart: '08:30:00',
    intervalEnd: '06:00:10',
  });
  for (const wrong of ['', '18:30', '18:30-25:00', '18:30-06:00-07:00', '06:00-06:00', 'on-off']) {
    assert.throws(() => parseInterval(wrong), { code: 'INTERVAL_INVALID', kind: 'usage' }, wrong);
  }
});

test('every instant is among the instants of its own wall time', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(BERLIN, 'America/St_Johns', 'Pacific/Apia', 'Asia/Kathmandu'),
      fc.integer({ min: utc('2011-01-01T00:00:00') / 1000, max: utc('2031-01-01T00:00:00') / 1000 }),
      (zone, second) => {
        const instants = instantsOf(wallTime(second * 1000, zone), zone);
        assert.ok(instants.includes(second * 1000));
        assert.equal(instantOf(wallTime(second * 1000, zone), zone), instants[0]);
      },
    ),
    { seed: 7, numRuns: 500 },
  );
});

test('a zone that the machine does not know is bad input', () => {
  assert.throws(() => requireZone('Europe/Nowhere'), { code: 'TIME_ZONE_UNKNOWN' });
  requireZone(BERLIN);
  assert.equal(shownTime(NOW, BERLIN), '2026-07-01 12:00:00 (Europe/Berlin)');
  assert.equal(timeOfDay(86_399), '23:59:59');
});

test('a verify is due at its time of the day, so many days after the last one, also over a change of the clock', () => {
  const setting = { everyDays: 7, at: '01:00:00', diskBytesPerSec: 1 << 20 };
  assert.equal(nextVerify(setting, Date.parse('2026-01-01T12:00:00Z'), 'UTC'), Date.parse('2026-01-08T01:00:00Z'));
  // Berlin goes from +1 to +2 on 29 March; 02:30 does not exist there then.
  assert.equal(nextVerify({ ...setting, at: '02:30:00' }, Date.parse('2026-03-22T12:00:00Z'), 'Europe/Berlin'), Date.parse('2026-03-29T01:30:00Z'));
  assert.equal(nextVerify({ ...setting, everyDays: 8 }, Date.parse('2026-03-22T12:00:00Z'), 'Europe/Berlin'), Date.parse('2026-03-29T23:00:00Z'));
});
