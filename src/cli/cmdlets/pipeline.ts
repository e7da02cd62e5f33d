/**
 * What may stand behind a `|` besides a cmdlet: `select` and `where` change the objects, `fl`, `ft` and ConvertTo-Json
 * show them.
 */

import { UnderstudyError } from '../../model/errors.ts';
import { findProperty } from './records.ts';
import type { Row } from './records.ts';
import { shownValue, TimeSpan } from './values.ts';
import type { Value } from './values.ts';
import { matches } from './wildcard.ts';
import { withPlainDashes } from './words.ts';
import type { Word } from './words.ts';

export type View =
  | { kind: 'default' }
  | { kind: 'list' | 'table'; properties: readonly string[] } // empty: the default columns
  | { kind: 'json' };
export type Output = { rows: readonly Row[]; view: View };
type Stage = (words: readonly Word[], input: Output, zone: string) => Output;

const STAGES: Readonly<Record<string, Stage>> = {
  'select-object': select,
  'select': select,
  'where-object': where,
  'where': where,
  '?': where,
  'format-list': (words, { rows }) => ({ rows, view: { kind: 'list', properties: names(words) } }),
  'format-table': (words, { rows }) => ({ rows, view: { kind: 'table', properties: names(words) } }),
  'convertto-json': (_words, { rows }) => ({ rows, view: { kind: 'json' } }),
};
const SHORT: Readonly<Record<string, string>> = { fl: 'format-list', ft: 'format-table' };

export function findStage(name: string): Stage | undefined {
  const wanted = withPlainDashes(name).toLowerCase();
  const full = Object.hasOwn(SHORT, wanted) ? (SHORT[wanted] ?? '') : wanted;
  return Object.hasOwn(STAGES, full) ? STAGES[full] : undefined;
}

/** Property names: `-Property` is optional, and switches such as -AutoSize change nothing that matters here. */
function names(words: readonly Word[]): string[] {
  return words
    .filter((word) => word.quoted || !/^[-–—−][a-z]/i.test(word.text))
    .flatMap(({ parts }) => parts)
    .filter((name) => name !== '');
}

function select(words: readonly Word[], { rows }: Output): Output {
  const first = words.findIndex((word) => /^[-–—−]f(i|ir|irs|irst)$/i.test(word.text));
  const count = first === -1 ? Infinity : Number(words[first + 1]?.text);
  if (!(count >= 0)) throw wrong('select', "'-First' needs a number", 'select Name,State -First 1');
  const wanted = names(first === -1 ? words : words.toSpliced(first, 2));
  const kept = rows.slice(0, count);
  return {
    rows: wanted.length === 0 ? kept : kept.map((row) => ({ type: null, properties: chosen(row, wanted) })),
    view: { kind: 'default' },
  };
}

/**
 * The properties that were asked for, in that order; a wildcard adds what it matches. An unknown name is an empty
 * column, as in PowerShell.
 */
export function chosen(row: Row, wanted: readonly string[]): ReadonlyMap<string, Value> {
  const found = new Map<string, Value>();
  for (const pattern of wanted) {
    const one = findProperty(row, pattern);
    if (one !== undefined) found.set(one.name, one.value);
    else if (!/[*?[]/.test(pattern)) found.set(pattern, null);
    for (const [name, value] of row.properties) if (one === undefined && matches(pattern, name)) found.set(name, value);
  }
  return found;
}

type Comparison = (left: string, right: string, order: number) => boolean;
const COMPARISONS: Readonly<Record<string, Comparison>> = {
  eq: (_left, _right, order) => order === 0,
  ne: (_left, _right, order) => order !== 0,
  gt: (_left, _right, order) => order > 0,
  ge: (_left, _right, order) => order >= 0,
  lt: (_left, _right, order) => order < 0,
  le: (_left, _right, order) => order <= 0,
  like: (left, right) => matches(right, left),
  notlike: (left, right) => !matches(right, left),
};
const WHERE_EXAMPLE = 'where Health -eq Critical';

/**
 * `where Health -eq Critical` or `where { $_.Health -eq 'Critical' -and $_.State -ne 'Error' }`; and before or, no
 * parentheses.
 */
function where(words: readonly Word[], { rows, view }: Output, zone: string): Output {
  const plain = words
    .map((word) => (word.quoted ? word.text : withPlainDashes(word.text).replace(/^\{/, '').replace(/\}$/, '')))
    .filter((text) => text !== '');
  const alternatives = splitAt(plain, '-or').map((part) => splitAt(part, '-and').map((term) => condition(term, zone)));
  return { rows: rows.filter((row) => alternatives.some((all) => all.every((holds) => holds(row)))), view };
}

function splitAt(words: readonly string[], operator: string): string[][] {
  const parts: string[][] = [[]];
  for (const word of words) {
    if (word.toLowerCase() === operator) parts.push([]);
    else parts.at(-1)?.push(word);
  }
  return parts;
}

function condition(words: readonly string[], zone: string): (row: Row) => boolean {
  const [left = '', operator, right, ...rest] = words[0]?.toLowerCase() === '-property' ? words.slice(1) : words;
  const name = left.replace(/^\$(_|psitem)\./i, '');
  if (name === '' || rest.length > 0) throw wrong('where', `'${words.join(' ')}' is not a condition`, WHERE_EXAMPLE);
  if (operator === undefined) return (row) => truthy(findProperty(row, name)?.value);
  const word = operator.toLowerCase().replace(/^-[ci]?(?=eq|ne|g|l|notlike)/, '');
  const compare = Object.hasOwn(COMPARISONS, word) ? COMPARISONS[word] : undefined;
  if (compare === undefined || right === undefined) {
    const known = Object.keys(COMPARISONS)
      .map((each) => `-${each}`)
      .join(', ');
    throw wrong('where', `'${operator}' is not a comparison with a value (${known})`, WHERE_EXAMPLE);
  }
  return (row) => {
    const value = findProperty(row, name)?.value ?? null;
    return compare(shownValue(value, zone), right, order(value, right, zone));
  };
}

function truthy(value: Value | undefined): boolean {
  return Array.isArray(value)
    ? value.length > 0
    : value !== null && value !== undefined && value !== false && value !== 0 && value !== '';
}

/** Negative, 0 or positive; NaN when they cannot be compared. Text without regard to case, as PowerShell does. */
function order(value: Value, right: string, zone: string): number {
  if (typeof value === 'number') return value - Number(right);
  if (value instanceof Date) return value.getTime() - Date.parse(right);
  if (value instanceof TimeSpan) return value.toString() === right ? 0 : value.seconds - secondsOf(right);
  const left = shownValue(value, zone).toLowerCase();
  const other = right
    .toLowerCase()
    .replace(/^\$(?=true$|false$)/, '')
    .replace(/^\$null$/, '');
  return left === other ? 0 : left < other ? -1 : 1;
}

function secondsOf(text: string): number {
  return text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
}

function wrong(stage: string, message: string, example: string): UnderstudyError {
  return new UnderstudyError(
    'usage',
    'PIPELINE_INVALID',
    `${stage}: ${message}`,
    `Write for example: Get-VMReplication | ${example}`,
  );
}
