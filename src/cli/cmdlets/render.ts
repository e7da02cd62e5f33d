/** Objects as PowerShell shows them: a table with underlined headings, or `Name : value` blocks. */

import Table from 'cli-table3';
import { chosen } from './pipeline.ts';
import type { Output } from './pipeline.ts';
import type { Row } from './records.ts';
import { shownValue } from './values.ts';
import type { Value } from './values.ts';

/** PowerShell's own rule for objects that have no view: more properties than this become a list. */
const TABLE_PROPERTIES_MAX = 4;

type Line = readonly (readonly [label: string, value: Value | undefined])[];

/** The text, with a newline at its end; empty without objects. JSON is one array, always. */
export function render({ rows, view }: Output, zone: string): string {
  if (view.kind === 'json')
    return `${JSON.stringify(
      rows.map(({ properties }) => Object.fromEntries(properties)),
      null,
      2,
    )}\n`;
  const lines = rows.map((row) => lineOf(row, view.kind === 'default' ? [] : view.properties));
  if (lines.length === 0) return '';
  const asList =
    view.kind === 'list' ||
    (view.kind === 'default' &&
      rows.some(({ type, properties }) => type === null && properties.size > TABLE_PROPERTIES_MAX));
  return asList ? list(lines, zone) : table(lines, zone);
}

function lineOf(row: Row, wanted: readonly string[]): Line {
  if (wanted.length > 0) return [...chosen(row, wanted)];
  return row.type === null
    ? [...row.properties]
    : row.type.columns.map((column) => [column.label, column.of(row)] as const);
}

function list(lines: readonly Line[], zone: string): string {
  return (
    lines
      .map((line) => {
        const width = Math.max(0, ...line.map(([label]) => label.length));
        return line.map(([label, value]) => `${label.padEnd(width)} : ${shownValue(value, zone)}`.trimEnd()).join('\n');
      })
      .join('\n\n') + '\n'
  );
}

const NO_LINES = {
  'top': '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  'bottom': '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  'left': '',
  'left-mid': '',
  'mid': '',
  'mid-mid': '',
  'right': '',
  'right-mid': '',
  'middle': ' ',
};

function table(lines: readonly Line[], zone: string): string {
  const labels = [...new Set(lines.flatMap((line) => line.map(([label]) => label)))];
  const cells = new Table({
    chars: NO_LINES,
    style: { 'head': [], 'border': [], 'padding-left': 0, 'padding-right': 0, 'compact': true },
  });
  cells.push(
    labels,
    labels.map((label) => '-'.repeat(label.length)),
  );
  for (const line of lines) {
    const values = new Map(line);
    cells.push(labels.map((label) => shownValue(values.get(label), zone)));
  }
  return (
    cells
      .toString()
      .split('\n')
      .map((text) => text.trimEnd())
      .join('\n') + '\n'
  );
}
