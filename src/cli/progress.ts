/**
 * Progress of a long operation on stderr: one line that is redrawn on a terminal, plain lines without one, rare
 * enough for a log file (a new phase, or ten more percent).
 */

import type { Clock } from '../model/ports.ts';
import type { Progress } from '../server/api/contract.ts';
import type { TextSink } from './context.ts';
import { bytes, duration, rate } from './format.ts';

const REDRAW_MS = 100;
const BAR_CELLS = 24;
/** On narrower terminals words are worth more than a bar. */
const COLUMNS_FOR_BAR = 72;
const STEP_PERCENT = 10;
const CLEAR_LINE = '\r\u001b[2K';

export class ProgressView {
  readonly #stderr: TextSink;
  readonly #terminal: boolean;
  readonly #clock: Clock;
  readonly #columns: () => number | undefined;
  #drawnAt = Number.NEGATIVE_INFINITY;
  #shown = false;
  #phase: string | null = null;
  #step = -1;

  /** `columns`: of the terminal, as wide as it is now. */
  constructor(options: { stderr: TextSink; terminal: boolean; clock: Clock; columns?: () => number | undefined }) {
    this.#stderr = options.stderr;
    this.#terminal = options.terminal;
    this.#clock = options.clock;
    this.#columns = options.columns ?? (() => undefined);
  }

  update(progress: Progress): void {
    const phase = `${progress.phase} ${progress.disk ?? ''}`;
    if (this.#terminal) this.#redraw(progress, phase);
    else this.#append(progress, phase);
    this.#phase = phase;
  }

  /** Takes the line away, so that the result or an error starts on an empty one. */
  done(): void {
    if (this.#shown) this.#stderr.write(CLEAR_LINE);
    this.#shown = false;
  }

  /** One line of the terminal, whatever its width: a line that wraps could not be taken back. */
  #line(progress: Progress): string {
    const columns = this.#columns() ?? Infinity;
    return `${columns < COLUMNS_FOR_BAR ? '' : bar(progress)}${describe(progress)}`.slice(0, columns - 1);
  }

  #redraw(progress: Progress, phase: string): void {
    const now = this.#clock.monotonic();
    if (phase === this.#phase && now - this.#drawnAt < REDRAW_MS && progress.done !== progress.total) return;
    this.#drawnAt = now;
    this.#shown = true;
    this.#stderr.write(`${CLEAR_LINE}${this.#line(progress)}`);
  }

  #append(progress: Progress, phase: string): void {
    const step = progress.total > 0 ? Math.floor(percentOf(progress) / STEP_PERCENT) : 0;
    if (phase === this.#phase && step === this.#step) return;
    this.#step = step;
    this.#stderr.write(`${describe(progress)}\n`);
  }
}

function percentOf({ done, total }: Progress): number {
  return Math.min(100, (done / total) * 100);
}

function bar(progress: Progress): string {
  if (progress.total <= 0) return '';
  const full = Math.round((percentOf(progress) / 100) * BAR_CELLS);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_CELLS - full)}] `;
}

function describe(progress: Progress): string {
  const parts = [progress.phase];
  if (progress.total > 0)
    parts.push(`${Math.floor(percentOf(progress))} %`, `${bytes(progress.done)} of ${bytes(progress.total)}`);
  else if (progress.done > 0) parts.push(bytes(progress.done));
  if (progress.rate !== undefined) parts.push(rate(progress.rate));
  if (progress.etaSeconds !== undefined) parts.push(`${duration(progress.etaSeconds)} left`);
  if (progress.disk !== undefined) parts.push(progress.disk);
  if (progress.message !== undefined) parts.push(progress.message);
  return parts.join('  ');
}
