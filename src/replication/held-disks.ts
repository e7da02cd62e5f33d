/**
 * Who needs the disks of a VM: the first holder opens them, the last one out closes (and so seals) them.
 *
 * Invariants
 * - They are open once at most: an opening waits for the closing before it, as the image locks of both would exclude each other.
 * - `heldBy(holder)` is never a set of disks that is being closed: whoever writes asks it at every operation, or holds first.
 */
export interface Closable {
  close(): Promise<void>;
}

export class HeldDisks<T extends Closable> {
  readonly #open: () => Promise<T>;
  readonly #holders = new Set<string>();
  #opening: Promise<T> | null = null;
  #current: T | null = null;
  #closing: Promise<void> | null = null;

  constructor(open: () => Promise<T>) {
    this.#open = open;
  }

  /** Open now; else null. */
  get current(): T | null {
    return this.#current;
  }

  /** Nobody holds them, and none is open. */
  get closed(): boolean {
    return this.#holders.size === 0 && this.#opening === null && this.#closing === null;
  }

  get holders(): string[] {
    return [...this.#holders];
  }

  heldBy(holder: string): T | null {
    return this.#holders.has(holder) ? this.#current : null;
  }

  /** Rejects as opening does; then the holder does not hold. */
  async hold(holder: string): Promise<T> {
    this.#holders.add(holder);
    const opening = this.#opening ??= this.#openAfterClosing();
    try {
      return await opening;
    } catch (error) {
      this.#holders.delete(holder);
      if (this.#opening === opening) this.#opening = null;
      throw error;
    }
  }

  /** Resolves when the disks are closed, or stay open for others. */
  async letGo(holder: string): Promise<void> {
    this.#holders.delete(holder);
    const opening = this.#opening;
    const opened = opening === null ? null : await opening.catch(() => null);
    // Somebody may have come meanwhile, or have closed them.
    if (opened !== null && this.#holders.size === 0 && this.#opening === opening) {
      this.#opening = this.#current = null;
      const closing = opened.close();
      const over = () => {
        if (this.#closing === closing) this.#closing = null;
      };
      this.#closing = closing;
      closing.then(over, over);
    }
    if (this.#holders.size === 0) await this.#closing;
  }

  async letAllGo(): Promise<void> {
    for (const holder of [...this.#holders]) await this.letGo(holder);
  }

  async #openAfterClosing(): Promise<T> {
    await this.#closing?.catch(() => undefined);
    this.#current = await this.#open();
    return this.#current;
  }
}
