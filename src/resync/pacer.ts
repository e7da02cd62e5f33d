/**
 * How much of disk and link a resync may take: a ceiling the user sets, and may change at any time, and yielding by itself while the
 * guest is at work.
 */
import type { Clock } from '../model/ports.ts';
import type { ResyncShare } from '../model/settings.ts';
import type { SourceDisk } from '../replication/change-source.ts';

/** While the guest is at work, reading pauses so long for each MiB; at rest it takes everything. */
const YIELD_MS_PER_MIB = 4;
/**
 * It is at work for so long after a request: most take a fraction of a millisecond, so that even a guest of a thousand a second is rarely
 * found with one under way.
 */
const AT_WORK_MS = 50;
const MIB = 1 << 20;
/** How soon a changed limit counts for what waits already. */
const LOOK_MS = 500;

/** When what was asked for so far will have passed, at the rate it was reckoned by (bytes/s; null: no limit). */
interface Line {
  dueAt: number;
  rate: number | null;
}

/** What tells whether the guest is at work. */
export type GuestWork = Pick<SourceDisk, 'requests' | 'openOperations'>;

export class Pacer {
  #clock: Clock;
  #share: () => ResyncShare;
  #guest: GuestWork;
  #guestRequests: number;
  #guestWorkedAt = -Infinity;
  #signal: AbortSignal;
  #lines: Record<keyof ResyncShare, Line>;

  constructor(clock: Clock, share: () => ResyncShare, guest: GuestWork, signal: AbortSignal) {
    this.#clock = clock;
    this.#share = share;
    this.#guest = guest;
    this.#guestRequests = guest.requests;
    this.#signal = signal;
    const dueAt = clock.monotonic();
    const { diskBytesPerSec, linkBytesPerSec } = share();
    this.#lines = { diskBytesPerSec: { dueAt, rate: diskBytesPerSec }, linkBytesPerSec: { dueAt, rate: linkBytesPerSec } };
  }

  get isGuestAtWork(): boolean {
    const { requests, openOperations } = this.#guest;
    const now = this.#clock.monotonic();
    if (openOperations > 0 || requests !== this.#guestRequests) this.#guestWorkedAt = now;
    this.#guestRequests = requests;
    return now - this.#guestWorkedAt < AT_WORK_MS;
  }

  /** Awaited before so many bytes are read. */
  read(bytes: number): Promise<void> | void {
    return this.#queue('diskBytesPerSec', bytes, this.isGuestAtWork ? (bytes / MIB) * YIELD_MS_PER_MIB : 0);
  }

  /** Awaited before so many bytes are sent. */
  sent(bytes: number): Promise<void> | void {
    return this.#queue('linkBytesPerSec', bytes, 0);
  }

  #queue(limit: keyof ResyncShare, bytes: number, atLeastMs: number): Promise<void> | void {
    const now = this.#clock.monotonic();
    const line = this.#lineOf(limit, now);
    const limitedMs = line.rate === null ? 0 : (bytes / line.rate) * 1000;
    line.dueAt = Math.max(now, line.dueAt) + Math.max(atLeastMs, limitedMs);
    // A timer is not worth less than this.
    if (line.dueAt - now >= 2) return this.#sleep(limit, { ...line });
  }

  /** The line by the limit as it is now. */
  #lineOf(limit: keyof ResyncShare, now: number): Line {
    return atRate(this.#lines[limit], this.#share()[limit], now);
  }

  /** A limit that is changed meanwhile counts at once, for what waits already as for what comes. */
  async #sleep(limit: keyof ResyncShare, wait: Line): Promise<void> {
    for (let now = this.#clock.monotonic(); now < wait.dueAt; now = this.#clock.monotonic()) {
      await this.#clock.sleep(Math.min(wait.dueAt - now, LOOK_MS), this.#signal);
      const then = this.#clock.monotonic();
      atRate(wait, this.#lineOf(limit, then).rate, then);
    }
  }
}

/** The rest of the line passes at another rate. */
function atRate(line: Line, rate: number | null, now: number): Line {
  if (line.rate === rate) return line;
  const rest = Math.max(0, line.dueAt - now);
  if (rate === null) line.dueAt = now;
  else if (line.rate !== null) line.dueAt = now + (rest * line.rate) / rate;
  line.rate = rate;
  return line;
}
