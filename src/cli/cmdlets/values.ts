/** Values that cmdlets take and show: how PowerShell's types are read from a word, and how they look. */

import { UnderstudyError } from '../../model/errors.ts';
import { timeOfDay, wallTime } from '../../model/local-time.ts';
import { parseStartTime } from '../../model/schedule.ts';

/** A length of time; distinct from a number so that it is shown as `d.hh:mm:ss`. */
export class TimeSpan {
  readonly seconds: number;
  constructor(seconds: number) {
    this.seconds = seconds;
  }
  toString(): string {
    const whole = Math.floor(this.seconds);
    const days = Math.floor(whole / 86_400);
    const fraction = this.seconds - whole;
    const rest = fraction === 0 ? '' : fraction.toFixed(3).slice(1);
    return `${days === 0 ? '' : `${days}.`}${timeOfDay(whole % 86_400)}${rest}`;
  }
  toJSON(): string {
    return this.toString();
  }
}

export type Value = string | number | boolean | null | Date | TimeSpan | readonly string[];

export type ParameterType =
  | 'string' | 'strings' | 'int' | 'bool' | 'switch' | 'time-span' | 'time-of-day' | 'start-time'
  | readonly string[]; // one of these names, any case

/** `start-time` gives ISO 8601 UTC, `time-of-day` HH:MM:SS, `time-span` seconds. */
export type Argument = string | readonly string[] | number | boolean;

export type Reading = {
  parameter: string;
  type: ParameterType;
  text: string;
  parts: readonly string[];
  now: number;
  zone: string;
};

/** Throws UnderstudyError usage ARGUMENT_INVALID, or what schedule.ts says of a start time. */
export function readArgument(reading: Reading): Argument {
  const { type, text, now, zone } = reading;
  switch (type) {
    case 'string':
      return text;
    case 'strings':
      return withoutParentheses(reading.parts);
    case 'int':
      return /^[+-]?\d{1,9}$/.test(text) ? Number(text) : invalid(reading, 'a whole number');
    case 'bool':
    case 'switch':
      return truth(text) ?? invalid(reading, '$true or $false');
    case 'time-span':
      return spanSeconds(text) ?? invalid(reading, 'a length of time such as 12:00:00 or 1.00:00:00');
    case 'time-of-day': {
      const seconds = spanSeconds(text);
      return seconds !== null && seconds < 86_400
        ? timeOfDay(seconds)
        : invalid(reading, 'a time of day such as 18:30:00');
    }
    case 'start-time':
      return new Date(parseStartTime(text, now, zone)).toISOString();
    default:
      return (
        type.find((name) => name.toLowerCase() === text.toLowerCase()) ?? invalid(reading, `one of ${type.join(', ')}`)
      );
  }
}

function invalid({ parameter, text }: Reading, wanted: string): never {
  throw new UnderstudyError('usage', 'ARGUMENT_INVALID', `-${parameter} '${text}' is not ${wanted}`, `Give ${wanted}.`);
}

/** `@("a","b")` and `("a","b")` are arrays too. */
function withoutParentheses(parts: readonly string[]): string[] {
  const first = /^@?\((.*)$/s.exec(parts[0] ?? '');
  if (first === null || parts.at(-1)?.endsWith(')') !== true) return [...parts];
  const inner = [first[1] ?? '', ...parts.slice(1)];
  if (parts.length === 1) return [(first[1] ?? '').slice(0, -1)];
  return [...inner.slice(0, -1), (inner.at(-1) ?? '').slice(0, -1)];
}

function truth(text: string): boolean | null {
  const word = text.toLowerCase();
  if (['$true', 'true', '1'].includes(word)) return true;
  return ['$false', 'false', '0'].includes(word) ? false : null;
}

/** .NET's TimeSpan: `d`, `[d.]hh:mm[:ss]`. Seconds. */
function spanSeconds(text: string): number | null {
  const days = /^\d{1,3}$/.exec(text);
  if (days !== null) return Number(text) * 86_400;
  const match = /^(?:(\d{1,3})\.)?(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text);
  if (match === null) return null;
  const [day, hour, minute, second] = match.slice(1).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
    number,
  ];
  return hour < 24 && minute < 60 && second < 60 ? day * 86_400 + hour * 3600 + minute * 60 + second : null;
}

/** As PowerShell shows it in US English; times in the given zone. */
export function shownValue(value: Value | undefined, zone: string): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (value instanceof Date) return shownDate(value, zone);
  if (typeof value === 'object' && !(value instanceof TimeSpan)) return `{${value.join(', ')}}`;
  return String(value);
}

function shownDate(date: Date, zone: string): string {
  const { year, month, day, secondOfDay } = wallTime(date.getTime(), zone);
  const hour = Math.floor(secondOfDay / 3600);
  const clock = `${hour % 12 === 0 ? 12 : hour % 12}${timeOfDay(secondOfDay).slice(2)} ${hour < 12 ? 'AM' : 'PM'}`;
  return `${month}/${day}/${year} ${clock}`;
}
