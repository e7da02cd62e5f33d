type Waiting = { count: number; grant: () => void };

/** A fixed amount that is lent in order of asking: bytes of memory, or places for calls. */
export class Budget {
  readonly #total: number;
  #free: number;
  readonly #queue: Waiting[] = [];

  constructor(total: number) {
    this.#total = total;
    this.#free = total;
  }

  get free(): number {
    return this.#free;
  }

  /**
   * Resolves with what gives the amount back (once; calling it again does nothing). Asking for more than there is gets
   * everything. Rejects with the signal's reason, and then holds nothing.
   */
  async acquire(count: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    const lent = Math.min(count, this.#total);
    if (this.#queue.length > 0 || lent > this.#free) await this.#wait(lent, signal);
    else this.#free -= lent;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#free += lent;
      this.#grantWaiting();
    };
  }

  #wait(count: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        reject(signal.reason as Error);
        // The one that left may have been what held up smaller ones behind it.
        this.#grantWaiting();
      };
      const waiting: Waiting = {
        count,
        grant: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      this.#queue.push(waiting);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  #grantWaiting(): void {
    for (let first = this.#queue[0]; first !== undefined && first.count <= this.#free; first = this.#queue[0]) {
      this.#queue.shift();
      this.#free -= first.count;
      first.grant();
    }
  }
}
