/** A limit on how many do something at once; first come, first served. */
export class Slots {
  #limit: () => number;
  #taken = 0;
  #waiting: (() => void)[] = [];

  /** `limit` is asked anew whenever a slot is wanted or given back. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /** Resolves with the function that gives the slot back; rejects with the signal's reason when aborted while waiting. */
  async take(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#taken >= this.#limit()) await this.#wait(signal);
    this.#taken++;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      this.#taken--;
      if (this.#taken < this.#limit()) this.#waiting.shift()?.();
    };
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        this.#waiting = this.#waiting.filter((other) => other !== turn);
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(turn);
    });
  }
}
