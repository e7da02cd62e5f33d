/**
 * The host's queue of resynchronizations: how many run at once, and who is next (smaller priority first, then who came
 * first).
 */
interface Waiting {
  vmId: string;
  priority: number;
  order: number;
  turn: () => void;
}

export class ResyncQueue {
  #limit: () => number;
  #running = new Set<string>();
  #waiting: Waiting[] = [];
  #order = 0;

  constructor(limit: () => number) {
    this.#limit = limit;
  }

  get running(): string[] {
    return [...this.#running];
  }

  /** In the order in which they will run. */
  get waiting(): string[] {
    return this.#sorted().map(({ vmId }) => vmId);
  }

  /** Resolves when it is this VM's turn, with what ends it; rejects with the signal's reason. */
  async enter(vmId: string, priority: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#running.size >= this.#limit() || this.#waiting.length > 0) await this.#wait(vmId, priority, signal);
    this.#running.add(vmId);
    return () => {
      this.#running.delete(vmId);
      this.#next();
    };
  }

  #wait(vmId: string, priority: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        reject(signal.reason as Error);
        this.#next();
      };
      const entry: Waiting = { vmId, priority, order: this.#order++, turn: () => {
        signal.removeEventListener('abort', leave);
        resolve();
      } };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(entry);
      this.#next();
    });
  }

  #next(): void {
    if (this.#running.size >= this.#limit()) return;
    const first = this.#sorted()[0];
    if (first === undefined) return;
    this.#waiting = this.#waiting.filter((other) => other !== first);
    // Counted at once, so that two who end together do not both let the same one in.
    this.#running.add(first.vmId);
    first.turn();
  }

  #sorted(): Waiting[] {
    return [...this.#waiting].sort((a, b) => a.priority - b.priority || a.order - b.order);
  }
}
