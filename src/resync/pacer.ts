/**
 * How much of disk and link a resync may take: a ceiling the user sets, and yielding by itself while the guest is at work.
 */
import type { Clock } from '../model/ports.ts';
import type { ResyncShare } from '../model/settings.ts';

/** While the guest has requests under way, reading pauses so long for each MiB; at rest it takes everything. */
const YIELD_MS_PER_MIB = 4;
const MIB = 1 << 20;

export class Pacer {
  #clock: Clock;
  #share: ResyncShare;
  #guestRequests: () => number;
  #signal: AbortSignal;
  #readDueAt: number;
  #sendDueAt: number;

  constructor(clock: Clock, share: ResyncShare, guestRequests: () => number, signal: AbortSignal) {
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
    const { diskBytesPerSec } = this.#share;
    const yielding = this.#guestRequests() > 0 ? (bytes / MIB) * YIELD_MS_PER_MIB : 0;
    const limited = diskBytesPerSec === null ? 0 : (bytes / diskBytesPerSec) * 1000;
    this.#readDueAt = Math.max(now, this.#readDueAt) + Math.max(yielding, limited);
    return this.#until(this.#readDueAt, now);
  }

  /** Awaited before so many bytes are sent. */
  sent(bytes: number): Promise<void> | void {
    const { linkBytesPerSec } = this.#share;
    if (linkBytesPerSec === null) return;
    const now = this.#clock.monotonic();
    this.#sendDueAt = Math.max(now, this.#sendDueAt) + (bytes / linkBytesPerSec) * 1000;
    return this.#until(this.#sendDueAt, now);
  }

  #until(due: number, now: number): Promise<void> | void {
    // A timer is not worth less than this.
    if (due - now < 2) return;
    return this.#clock.sleep(due - now, this.#signal);
  }
}
