/** Numbers and times as people read them. Scripts use `--json`. */

import { shownTime } from '../model/local-time.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
export const NOTHING = '-';

/** `0 B`, `512 B`, `1.5 KiB`, `64 GiB`: three digits, no trailing zeroes. */
export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return NOTHING;
  let unit = 0;
  let value = count;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${significant(value)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${bytes(bytesPerSecond)}/s`;
}

/** `0.2 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds < 60) return `${significant(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(Math.floor(whole / 60), 'min', whole % 60, 's');
  if (whole < 86_400) return pair(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'min');
  return pair(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h');
}

/** An ISO time in the zone of the reader, as `YYYY-MM-DD HH:MM:SS`. */
export function time(iso: string | null | undefined, zone: string): string {
  if (iso === null || iso === undefined) return NOTHING;
  return shownTime(Date.parse(iso), zone).replace(/ \(.*\)$/, '');
}

export function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}

export function orNothing(value: string | number | null | undefined): string {
  return value === null || value === undefined || value === '' ? NOTHING : String(value);
}

function significant(value: number): string {
  if (Number.isInteger(value) || value >= 100) return String(Math.round(value));
  return value.toPrecision(value < 10 ? 2 : 3).replace(/\.?0+$/, '');
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}
