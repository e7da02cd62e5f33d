/** One task at a time, in the order of arrival. A task that fails does not stop the next one. */
export class Lane {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#last.then(task);
    // The chain only orders; each caller sees its own failure through `done`.
    this.#last = done.then(ignore, ignore);
    return done;
  }
}

function ignore(): void {
  return undefined;
}

/**
 * Counts operations in flight per block, so that the space of a block is reused only when none of them can still touch
 * it.
 */
export class Pins {
  readonly #counts = new Map<number, number>();
  readonly #waiting = new Map<number, (() => void)[]>();

  hold(block: number): void {
    this.#counts.set(block, (this.#counts.get(block) ?? 0) + 1);
  }

  release(block: number): void {
    const left = (this.#counts.get(block) ?? 1) - 1;
    if (left > 0) {
      this.#counts.set(block, left);
      return;
    }
    this.#counts.delete(block);
    const waiting = this.#waiting.get(block);
    if (waiting === undefined) return;
    this.#waiting.delete(block);
    for (const wake of waiting) wake();
  }

  /** Resolves when nothing holds the block. The caller has made sure that nothing new will. */
  async drained(block: number): Promise<void> {
    while (this.#counts.has(block)) {
      await new Promise<void>((wake) => {
        const waiting = this.#waiting.get(block);
        if (waiting === undefined) this.#waiting.set(block, [wake]);
        else waiting.push(wake);
      });
    }
  }
}
