/** How a VM's loop waits: for a time, for a wake-up, or until what it does is stopped. */
import type { Clock } from '../model/ports.ts';

/** Why a sleep is cut. Made once: an abort without a reason makes an error with a stack, of which hundreds of waiting VMs would make many a second. */
const WOKEN = new Error('something else came first');

export class LoopClock {
  #clock: Clock;
  #wake = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wake(): void {
    this.#wake.resolve();
  }

  /** A wake-up from here on counts. */
  rearm(): void {
    this.#wake = Promise.withResolvers<void>();
  }

  /** Waits for the time, a wake-up (then true) or the signal; null waits for ever. */
  async pause(ms: number | null, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted || (ms !== null && ms <= 0)) return false;
    const timer = new AbortController();
    const woken = Promise.race([this.#wake.promise, aborted(signal)]).then(() => true);
    const slept = ms === null ? new Promise<never>(() => {}) : this.#clock.sleep(ms, timer.signal).then(() => false, () => true);
    const result = await Promise.race([woken, slept]);
    timer.abort(WOKEN);
    return result;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
