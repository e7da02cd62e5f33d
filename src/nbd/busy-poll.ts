/**
 * Polling behind an answer. A guest that asks for one thing after another asks again sooner than this thread is asleep and awake again, which
 * in a virtual machine takes 20 to 50 µs. So the event loop looks again at once instead of waiting to be woken, as QEMU's own I/O
 * threads do (`poll-max-ns`).
 *
 * Invariants
 * - It polls only behind an answer that came at most `forMs` after the one before it, and ends `forMs` after the last one: a guest that
 *   pauses for longer costs nothing.
 * - A look is a whole turn of the event loop: everybody else is served as ever.
 */
import type { Clock } from '../model/ports.ts';

export class BusyPoll {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #forMs: number;
  readonly #nextTurn: (look: () => void) => unknown;
  #answeredAt = -Infinity;
  #isPolling = false;

  /** `nextTurn`: a seam for tests. */
  constructor(clock: Pick<Clock, 'monotonic'>, forMs: number, nextTurn: (look: () => void) => unknown = setImmediate) {
    this.#clock = clock;
    this.#forMs = forMs;
    this.#nextTurn = nextTurn;
  }

  /** Everything that was asked has just been answered. */
  answered(): void {
    const now = this.#clock.monotonic();
    const isQuick = now - this.#answeredAt < this.#forMs;
    this.#answeredAt = now;
    if (!isQuick || this.#isPolling) return;
    this.#isPolling = true;
    this.#nextTurn(this.#look);
  }

  readonly #look = (): void => {
    this.#isPolling = this.#clock.monotonic() - this.#answeredAt < this.#forMs;
    if (this.#isPolling) this.#nextTurn(this.#look);
  };
}
