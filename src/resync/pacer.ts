/**
 * How much of disk and link a resync may take: a ceiling the user sets, and may change at any time, and yielding by itself while the
 * guest is at work.
 */
import type { Clock } from '../model/ports.ts';
import type { ResyncShare } from '../model/settings.ts';

/** While the guest has requests under way, reading pauses so long for each MiB; at rest it takes everything. */
const YIELD_MS_PER_MIB = 4;
const MIB = 1 << 20;
/** How soon a changed limit counts. */
const LOOK_MS = 500;

export class Pacer {
  #clock: Clock;
  #share: () => ResyncShare;
  #guestRequests: () => number;
  #signal: AbortSignal;
  #readDueAt: number;
  #sendDueAt: number;

  constructor(clock: Clock, share: () => ResyncShare, guestRequests: () => number, signal: AbortSignal) {
    this.#clock = clock;
    this.#share = share;
    this.#guestRequests = guestRequests;
    this.#signal = signal;
    this.#readDueAt = clock.monotonic();
    this.#sendDueAt = this.#readDueAt;
  }

  /** Awaited before so many bytes are read. */
  read(bytes: number): Promise<void> | void {
    const now = this.#clock.monotonic();
    const { diskBytesPerSec } = this.#share();
    const yielding = this.#guestRequests() > 0 ? (bytes / MIB) * YIELD_MS_PER_MIB : 0;
    const limited = diskBytesPerSec === null ? 0 : (bytes / diskBytesPerSec) * 1000;
    this.#readDueAt = Math.max(now, this.#readDueAt) + Math.max(yielding, limited);
    return this.#until('diskBytesPerSec', this.#readDueAt, now);
  }

  /** Awaited before so many bytes are sent. */
  sent(bytes: number): Promise<void> | void {
    const { linkBytesPerSec } = this.#share();
    if (linkBytesPerSec === null) return;
    const now = this.#clock.monotonic();
    this.#sendDueAt = Math.max(now, this.#sendDueAt) + (bytes / linkBytesPerSec) * 1000;
    return this.#until('linkBytesPerSec', this.#sendDueAt, now);
  }

  #until(limit: keyof ResyncShare, due: number, now: number): Promise<void> | void {
    // A timer is not worth less than this.
    if (due - now < 2) return;
    return this.#sleep(limit, due);
  }

  /** A limit that is changed meanwhile counts at once: what was waited for by the old one is over. */
  async #sleep(limit: keyof ResyncShare, due: number): Promise<void> {
    const before = this.#share()[limit];
    for (let now = this.#clock.monotonic(); now < due; now = this.#clock.monotonic()) {
      await this.#clock.sleep(Math.min(due - now, LOOK_MS), this.#signal);
      if (this.#share()[limit] === before) continue;
      if (limit === 'diskBytesPerSec') this.#readDueAt = this.#clock.monotonic();
      else this.#sendDueAt = this.#clock.monotonic();
      return;
    }
  }
}
