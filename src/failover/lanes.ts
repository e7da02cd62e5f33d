/** One piece of work at a time per VM, in order. */
export class Lanes {
  #last = new Map<string, Promise<unknown>>();

  run<T>(vmId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(vmId) ?? Promise.resolve();
    const done = before.then(work);
    const settled = done.catch(() => undefined).then(() => {
      if (this.#last.get(vmId) === settled) this.#last.delete(vmId);
    });
    this.#last.set(vmId, settled);
    return done;
  }
}
