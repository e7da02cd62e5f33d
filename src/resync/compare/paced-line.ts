/** Bytes that pass one behind the other at a rate which may change at any time: for what waits already as for what comes. */
import type { Clock } from '../../model/ports.ts';

/** How soon a changed rate counts for what waits already. */
const LOOK_MS = 500;
/** A timer is not worth less than this. */
const WAIT_MS_MIN = 2;

/** Until when what was asked for so far will have passed, at the rate it was reckoned by. */
interface Reckoning {
  dueAt: number;
  rate: number | null;
}

export class PacedLine {
  readonly #clock: Pick<Clock, 'monotonic' | 'sleep'>;
  readonly #rate: () => number | null;
  readonly #signal: AbortSignal;
  readonly #line: Reckoning;

  /** `rate`: bytes a second, asked for each time; null: no limit. Waiting rejects with the signal's reason. */
  constructor(clock: Pick<Clock, 'monotonic' | 'sleep'>, rate: () => number | null, signal: AbortSignal) {
    this.#clock = clock;
    this.#rate = rate;
    this.#signal = signal;
    this.#line = { dueAt: clock.monotonic(), rate: rate() };
  }

  /** Awaited before so many bytes pass; nothing is waited for where it is not worth it. `atLeastMs`: they take so long at any rate. */
  pass(bytes: number, atLeastMs = 0): Promise<void> | void {
    const now = this.#clock.monotonic();
    const line = this.#asOf(now);
    const limitedMs = line.rate === null ? 0 : (bytes / line.rate) * 1000;
    line.dueAt = Math.max(now, line.dueAt) + Math.max(atLeastMs, limitedMs);
    if (line.dueAt - now >= WAIT_MS_MIN) return this.#sleep({ ...line });
  }

  #asOf(now: number): Reckoning {
    return atRate(this.#line, this.#rate(), now);
  }

  async #sleep(wait: Reckoning): Promise<void> {
    for (let now = this.#clock.monotonic(); now < wait.dueAt; now = this.#clock.monotonic()) {
      await this.#clock.sleep(Math.min(wait.dueAt - now, LOOK_MS), this.#signal);
      const then = this.#clock.monotonic();
      atRate(wait, this.#asOf(then).rate, then);
    }
  }
}

/** The rest of the line passes at another rate. */
function atRate(line: Reckoning, rate: number | null, now: number): Reckoning {
  if (line.rate === rate) return line;
  const rest = Math.max(0, line.dueAt - now);
  if (rate === null) line.dueAt = now;
  else if (line.rate !== null) line.dueAt = now + (rest * line.rate) / rate;
  line.rate = rate;
  return line;
}
