/**
 * Simulated time. Everything that happens later is an event with an instant; events of a process that has crashed never happen.
 * Between two events all promises run to their ends, so a run is a function of its seed.
 */
import type { Clock } from '../../src/model/ports.ts';
import { Dice } from './random.ts';

/** One life of one simulated process. */
export interface Life {
  alive: boolean;
}

interface Event {
  at: number;
  order: number;
  life: Life | null;
  run: () => void;
}

/** 2026-01-01T00:00:00Z */
export const EPOCH_MS = 1_767_225_600_000;

export class Scheduler {
  readonly dice: Dice;
  now = 0;
  #events: Event[] = [];
  #order = 0;

  constructor(dice: Dice) {
    this.dice = dice;
  }

  /** Runs `what` after `ms`, unless `life` has ended by then. */
  after(ms: number, life: Life | null, what: () => void): Event {
    const event: Event = { at: this.now + ms, order: this.#order++, life, run: what };
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.#events[middle]!;
      if (other.at < event.at || (other.at === event.at && other.order < event.order)) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, event);
    return event;
  }

  /** A wait of random length, at most `ms`. */
  soon(ms: number, life: Life | null, what: () => void): void {
    this.after(this.dice.next() * ms, life, what);
  }

  cancel(event: Event): void {
    const index = this.#events.indexOf(event);
    if (index >= 0) this.#events.splice(index, 1);
  }

  /** Runs events until `ms` have passed. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    await settle();
    while (this.#events.length > 0 && this.#events[0]!.at <= end) await this.#step();
    this.now = end;
  }

  /** Runs events until the condition holds; false when it does not within `ms`. */
  async until(condition: () => boolean, ms: number): Promise<boolean> {
    const end = this.now + ms;
    await settle();
    while (!condition()) {
      if (this.#events.length === 0 || this.#events[0]!.at > end) return condition();
      await this.#step();
    }
    return true;
  }

  clock(life: Life): Clock {
    return {
      now: () => EPOCH_MS + Math.floor(this.now),
      monotonic: () => this.now,
      sleep: (ms, signal) => new Promise((resolve, reject) => {
        if (signal?.aborted === true) return reject(signal.reason as Error);
        const event = this.after(Math.max(0, ms), life, () => {
          signal?.removeEventListener('abort', stop);
          resolve();
        });
        const stop = () => {
          this.cancel(event);
          reject(signal!.reason as Error);
        };
        signal?.addEventListener('abort', stop, { once: true });
      }),
    };
  }

  async #step(): Promise<void> {
    const event = this.#events.shift()!;
    this.now = event.at;
    if (event.life !== null && !event.life.alive) return;
    event.run();
    await settle();
  }
}

/** Lets every promise that can go on go on. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
