/**
 * When a resync may start: never by itself, at any time, inside a daily window of local time, or once at a given time. The wall
 * clock decides alone, so a window keeps its meaning over daylight saving: a wall time that is skipped does not occur, one that
 * is repeated occurs twice.
 */

import { UnderstudyError } from './errors.ts';
import { DAY_MS, DAY_SEC, START_AHEAD_MS_MAX } from './limits.ts';
import {
  dayAfter,
  instantOf,
  instantsOf,
  nextOffsetChange,
  secondOfDay,
  shownTime,
  timeOfDay,
  wallTime,
} from './local-time.ts';
import type { AutoResync, VerifySchedule } from './settings.ts';

/** Seconds of the local day, both inside the window; `start > end` crosses midnight. */
export type DailyWindow = { start: number; end: number };

export function windowOf(setting: AutoResync): DailyWindow {
  return { start: secondOfDay(setting.intervalStart) ?? 0, end: secondOfDay(setting.intervalEnd) ?? DAY_SEC - 1 };
}

/** Hyper-V has no flag for "any time": the window that ends one second before it starts is that. */
export function isAnyTime({ start, end }: DailyWindow): boolean {
  return (end + 1) % DAY_SEC === start;
}

export function isOpen(window: DailyWindow, instant: number, zone: string): boolean {
  const second = wallTime(instant, zone).secondOfDay;
  if (window.start <= window.end) return window.start <= second && second <= window.end;
  return second >= window.start || second <= window.end;
}

/** The first instant not before `now` at which the window is open. */
export function nextOpening(window: DailyWindow, now: number, zone: string): number {
  if (isAnyTime(window) || isOpen(window, now, zone)) return now;
  const today = wallTime(now, zone);
  // Three days: a start that a gap swallows, on the last day that counts, still leaves the next one.
  const starts = [0, 1, 2, 3].flatMap((days) => instantsOf(dayAfter(today, days, window.start), zone));
  // A change of the clock may jump into the middle of the window.
  const jump = nextOffsetChange(now, now + 3 * DAY_MS, zone);
  const candidates = jump === null ? starts : [...starts, jump];
  return Math.min(...candidates.filter((instant) => instant > now && isOpen(window, instant, zone)));
}

/** When an automatic resync may start at the earliest; null when only a person may start it. */
export function nextAutomaticStart(setting: AutoResync, now: number, zone: string): number | null {
  return setting.enabled ? nextOpening(windowOf(setting), now, zone) : null;
}

/** When the next verify is due that follows one at `last`: at its time of the day, so many days later. */
export function nextVerify(setting: VerifySchedule, last: number, zone: string): number {
  const wall = dayAfter(wallTime(last, zone), setting.everyDays, secondOfDay(setting.at) ?? 0);
  return instantsOf(wall, zone)[0] ?? instantOf(wall, zone);
}

const TIME_FORMS = 'Give HH:MM, YYYY-MM-DD HH:MM, ISO 8601 such as 2031-05-04T22:00:00Z, or MM/DD/YYYY HH:MM:SS.';

/**
 * A start time that a person gave, as an instant: `HH:MM[:SS]` (its next occurrence), `YYYY-MM-DD[ HH:MM[:SS]]`, ISO
 * 8601 with or without a zone, `MM/DD/YYYY[ HH:MM[:SS][ AM|PM]]`. Local to `zone` unless the text names one. In an
 * overlap of daylight saving the first occurrence is meant, in a gap the time moves on by its length.
 *
 * Throws UnderstudyError usage: START_TIME_INVALID, START_TIME_IN_PAST, START_TIME_TOO_FAR (more than 7 days ahead).
 */
export function parseStartTime(text: string, now: number, zone: string): number {
  const instant = parseTime(text, now, zone);
  if (instant < now) {
    throw new UnderstudyError(
      'usage',
      'START_TIME_IN_PAST',
      `the start time ${shownTime(instant, zone)} is in the past; it is now ${shownTime(now, zone)}`,
      'Give a time within the next 7 days, or none to start at once.',
    );
  }
  if (instant > now + START_AHEAD_MS_MAX) {
    throw new UnderstudyError(
      'usage',
      'START_TIME_TOO_FAR',
      `the start time ${shownTime(instant, zone)} is more than 7 days ahead; it is now ${shownTime(now, zone)}`,
      `Give a time before ${shownTime(now + START_AHEAD_MS_MAX, zone)}.`,
    );
  }
  return instant;
}

/** The same forms for a time that may lie anywhere. Throws UnderstudyError usage START_TIME_INVALID. */
export function parseTime(text: string, now: number, zone: string): number {
  const trimmed = text.trim();
  const instant = timeAlone(trimmed, now, zone) ?? isoTime(trimmed, zone) ?? usTime(trimmed, zone);
  if (instant === null) throw new UnderstudyError('usage', 'START_TIME_INVALID', `'${text}' is not a time`, TIME_FORMS);
  return instant;
}

function timeAlone(text: string, now: number, zone: string): number | null {
  const second = clockSecond(text);
  if (second === null) return null;
  const today = wallTime(now, zone);
  const next = [0, 1, 2]
    .flatMap((days) => {
      const wall = dayAfter(today, days, second);
      const instants = instantsOf(wall, zone);
      return instants.length > 0 ? instants : [instantOf(wall, zone)];
    })
    .find((instant) => instant >= now);
  return next ?? null;
}

const ISO = /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9}))?(Z|[+-]\d{2}:?\d{2})?)?$/i;

function isoTime(text: string, zone: string): number | null {
  const match = ISO.exec(text);
  if (match === null) return null;
  const [, year, month, day, time = '00:00', fraction = '', named] = match;
  const second = secondOfDay(time);
  if (second === null || !isDate(Number(year), Number(month), Number(day))) return null;
  const wall = { year: Number(year), month: Number(month), day: Number(day), secondOfDay: second };
  const milliseconds = Number(fraction.padEnd(3, '0').slice(0, 3));
  if (named === undefined) return instantOf(wall, zone) + milliseconds;
  const offset = offsetMinutes(named);
  return offset === null ? null : instantOf(wall, 'UTC') + milliseconds - offset * 60_000;
}

function offsetMinutes(named: string): number | null {
  if (named.toUpperCase() === 'Z') return 0;
  const [hours, minutes] = [Number(named.slice(1, 3)), Number(named.slice(-2))];
  if (hours > 14 || minutes > 59) return null;
  return (named.startsWith('-') ? -1 : 1) * (hours * 60 + minutes);
}

function usTime(text: string, zone: string): number | null {
  const match = /^(\d{1,2})\/(\d{1,2})\/(\d{4})(?:\s+(.+))?$/.exec(text);
  if (match === null) return null;
  const [, month, day, year, time = '00:00'] = match;
  const second = clockSecond(time);
  if (second === null || !isDate(Number(year), Number(month), Number(day))) return null;
  return instantOf({ year: Number(year), month: Number(month), day: Number(day), secondOfDay: second }, zone);
}

/** `H:MM[:SS]` of 24 hours, or of 12 hours with AM or PM behind. */
function clockSecond(text: string): number | null {
  const match = /^([\d:]+)(?:\s*([ap])\.?m\.?)?$/i.exec(text);
  const second = match === null ? null : secondOfDay(match[1] ?? '');
  const half = match?.[2]?.toLowerCase();
  if (second === null || half === undefined) return second;
  if (second < 3600 || second >= 13 * 3600) return null;
  return (second % (DAY_SEC / 2)) + (half === 'p' ? DAY_SEC / 2 : 0);
}

function isDate(year: number, month: number, day: number): boolean {
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

/**
 * `off`, `on` (any time) or `HH:MM[:SS]-HH:MM[:SS]`, as a change of the setting: off leaves the window as it is.
 * Throws UnderstudyError usage INTERVAL_INVALID.
 */
export function parseInterval(text: string): Partial<AutoResync> {
  const word = text.trim().toLowerCase();
  if (word === 'off') return { enabled: false };
  if (word === 'on') return { enabled: true, intervalStart: '00:00:00', intervalEnd: timeOfDay(DAY_SEC - 1) };
  const [start, end, ...rest] = word.split(/\s*[-–—]\s*/).map(secondOfDay);
  if (rest.length > 0 || start === undefined || end === undefined || start === null || end === null) {
    throw new UnderstudyError(
      'usage',
      'INTERVAL_INVALID',
      `'${text}' is not off, on or an interval of local time`,
      'Give off, on, or for example 18:30-06:00.',
    );
  }
  if (start === end) {
    throw new UnderstudyError(
      'usage',
      'INTERVAL_INVALID',
      `the interval '${text}' starts and ends at ${timeOfDay(start)}`,
      'For any time give on; else give two different times.',
    );
  }
  return { enabled: true, intervalStart: timeOfDay(start), intervalEnd: timeOfDay(end) };
}
