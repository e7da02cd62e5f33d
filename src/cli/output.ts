/**
 * What goes to stdout: with `--json` exactly one JSON value, else text for people. Everything else (progress,
 * notes, errors of people's output) goes to stderr.
 */

import { styleText } from 'node:util';
import Table from 'cli-table3';
import type { TextSink } from './context.ts';

export interface OutputOptions {
  stdout: TextSink;
  stderr: TextSink;
  json: boolean;
  color: boolean;
}

/** A field of an object or a column of a table, in order: heading and text. */
export type Row = readonly (readonly [heading: string, text: string])[];

const PLAIN = {
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
  'middle': '  ',
};
const HEADING_COLUMNS = 24;
const COLORS = { Normal: 'green', Warning: 'yellow', Critical: 'red', ok: 'green', missing: 'yellow' } as const;

export class Output {
  readonly json: boolean;
  readonly #options: OutputOptions;

  constructor(options: OutputOptions) {
    this.#options = options;
    this.json = options.json;
  }

  /** The result of a command. `text` is only called when people read it. */
  print<Value>(value: Value, text: (value: Value) => string): void {
    this.#line(this.json ? JSON.stringify(value, null, 2) : text(value));
  }

  /** One of an endless series (`--follow`, `--watch`): with `--json` one compact value a line. */
  printNext<Value>(value: Value, text: (value: Value) => string): void {
    this.#line(this.json ? JSON.stringify(value) : text(value));
  }

  note(text: string): void {
    this.#options.stderr.write(`${text}\n`);
  }

  /** One line per row under a heading; a sentence when there is none. */
  table(rows: readonly Row[], whenEmpty: string): string {
    const [first] = rows;
    if (first === undefined) return whenEmpty;
    const table = new Table({
      head: first.map(([heading]) => heading),
      chars: PLAIN,
      style: { 'head': [], 'border': [], 'padding-left': 0, 'padding-right': 0, 'compact': true },
    });
    for (const row of rows) table.push(row.map(([, text]) => this.#colored(text)));
    return trimLines(table.toString());
  }

  /** One line per field. */
  list(row: Row): string {
    // One long heading (a path) must not push all values aside.
    const width = Math.max(...row.map(([heading]) => heading.length).filter((length) => length <= HEADING_COLUMNS), 0);
    return row.map(([heading, text]) => `${heading.padEnd(width)}  ${this.#colored(text)}`.trimEnd()).join('\n');
  }

  #colored(text: string): string {
    if (!this.#options.color || !Object.hasOwn(COLORS, text)) return text;
    return styleText(COLORS[text as keyof typeof COLORS], text, { validateStream: false });
  }

  #line(text: string): void {
    this.#options.stdout.write(text === '' || text.endsWith('\n') ? text : `${text}\n`);
  }
}

function trimLines(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
