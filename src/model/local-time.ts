/**
 * Wall-clock time of an IANA zone and back, over gaps and overlaps of daylight saving, by Intl alone. Instants are ms
 * since 1970 UTC.
 */

import { UnderstudyError } from './errors.ts';
import { DAY_MS, DAY_SEC } from './limits.ts';

/** A wall-clock time, with the calendar fields people write (month and day from 1). */
export type WallTime = { year: number; month: number; day: number; secondOfDay: number };

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatterOf(zone: string): Intl.DateTimeFormat {
  let formatter = formatters.get(zone);
  if (formatter === undefined) {
    formatter = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formatters.set(zone, formatter);
  }
  return formatter;
}

/** What the clock on the wall shows at an instant. */
export function wallTime(instant: number, zone: string): WallTime {
  const field: Record<string, number> = {};
  for (const { type, value } of formatterOf(zone).formatToParts(instant)) field[type] = Number(value);
  const { year, month, day, hour, minute, second } = field as Record<
    'year' | 'month' | 'day' | 'hour' | 'minute' | 'second',
    number
  >;
  return { year, month, day, secondOfDay: hour * 3600 + minute * 60 + second };
}

/** The same figures read as if they were UTC: a line on which wall times can be compared and counted on. */
function asUtc({ year, month, day, secondOfDay }: WallTime): number {
  return Date.UTC(year, month - 1, day) + secondOfDay * 1000;
}

function offsetMs(instant: number, zone: string): number {
  return asUtc(wallTime(instant, zone)) - Math.floor(instant / 1000) * 1000;
}

/**
 * The instants at which the wall shows this time, in order: one as a rule, two in an overlap, none in a gap.
 * Zones change their offset at most once in two days.
 */
export function instantsOf(wall: WallTime, zone: string): number[] {
  const naive = asUtc(wall);
  const offsets = new Set([offsetMs(naive - DAY_MS, zone), offsetMs(naive + DAY_MS, zone)]);
  return [...offsets]
    .map((offset) => naive - offset)
    .filter((instant) => asUtc(wallTime(instant, zone)) === naive)
    .sort((a, b) => a - b);
}

/**
 * One instant for a wall time: the first in an overlap; in a gap the wall time moves on by the length of the gap, as
 * clocks do.
 */
export function instantOf(wall: WallTime, zone: string): number {
  const naive = asUtc(wall);
  return instantsOf(wall, zone)[0] ?? naive - offsetMs(naive - DAY_MS, zone);
}

/** The first instant after `from` and not after `until` at which the zone's offset changes, or null. */
export function nextOffsetChange(from: number, until: number, zone: string): number | null {
  const step = DAY_MS / 4;
  for (let low = from; low < until; low += step) {
    const high = Math.min(low + step, until);
    if (offsetMs(low, zone) !== offsetMs(high, zone)) return bisect(low, high, zone);
  }
  return null;
}

/** Offsets change on whole seconds, so the search ends on one. */
function bisect(low: number, high: number, zone: string): number {
  const before = offsetMs(low, zone);
  let [left, right] = [Math.floor(low / 1000), Math.ceil(high / 1000)];
  while (right - left > 1) {
    const middle = Math.floor((left + right) / 2);
    if (offsetMs(middle * 1000, zone) === before) left = middle;
    else right = middle;
  }
  return right * 1000;
}

/** The calendar day `days` later (or earlier), at the given second of day. */
export function dayAfter(wall: WallTime, days: number, secondOfDay: number): WallTime {
  const date = new Date(Date.UTC(wall.year, wall.month - 1, wall.day + days));
  return { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate(), secondOfDay };
}

/** Seconds since midnight of `HH:MM` or `HH:MM:SS`, or null. */
export function secondOfDay(text: string): number | null {
  const match = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text);
  if (match === null) return null;
  const [hour, minute, second] = [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
  return hour < 24 && minute < 60 && second < 60 ? hour * 3600 + minute * 60 + second : null;
}

/** `HH:MM:SS` of seconds since midnight. */
export function timeOfDay(second: number): string {
  const part = (value: number): string => String(value).padStart(2, '0');
  const inDay = ((second % DAY_SEC) + DAY_SEC) % DAY_SEC;
  return `${part(Math.floor(inDay / 3600))}:${part(Math.floor(inDay / 60) % 60)}:${part(inDay % 60)}`;
}

/** `YYYY-MM-DD HH:MM:SS (zone)`, for messages that name a time. */
export function shownTime(instant: number, zone: string): string {
  const { year, month, day, secondOfDay: second } = wallTime(instant, zone);
  const part = (value: number, width = 2): string => String(value).padStart(width, '0');
  return `${part(year, 4)}-${part(month)}-${part(day)} ${timeOfDay(second)} (${zone})`;
}

/** Throws UnderstudyError usage TIME_ZONE_UNKNOWN unless the machine's zone tables know the name. */
export function requireZone(zone: string): void {
  try {
    formatterOf(zone);
  } catch (cause) {
    throw new UnderstudyError(
      'usage',
      'TIME_ZONE_UNKNOWN',
      `there is no time zone '${zone}'`,
      'Give an IANA name such as Europe/Berlin or UTC, for example in the TZ variable.',
      { cause },
    );
  }
}
