/** What a bench has found: printed as a table, and kept for `npm run bench`, which writes all tables of a run into one place. */
import { appendFileSync } from 'node:fs';

export interface Table {
  /** What was asked, in a line. */
  question: string;
  /** How to ask it again. */
  command: string;
  columns: string[];
  rows: (string | number)[][];
  /** What a reader must know to believe it: sizes, rounds, what was skipped and why. */
  notes?: string[];
}

export const asMarkdown = ({ question, command, columns, rows, notes = [] }: Table): string => [
  `### ${question}`, '', `\`${command}\`${notes.length === 0 ? '' : `. ${notes.join('. ')}.`}`, '',
  `| ${columns.join(' | ')} |`, `|${columns.map(() => '---').join('|')}|`, ...rows.map((row) => `| ${row.join(' | ')} |`), '',
].join('\n');

export function record(table: Table): void {
  console.log(asMarkdown(table));
  const kept = process.env['UNDERSTUDY_BENCH_RECORD'];
  if (kept !== undefined) appendFileSync(kept, `${JSON.stringify(table)}\n`);
}

export const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

/** `1.23 (1.20–1.31)`: the median, and from the least to the greatest. */
export function spread(numbers: readonly number[], digits = 2): string {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)].map((number) => number.toFixed(digits));
  return numbers.length === 1 ? most! : `${median(numbers).toFixed(digits)} (${least}–${most})`;
}
