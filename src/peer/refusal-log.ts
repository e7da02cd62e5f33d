const ADDRESSES_MAX = 256;

/**
 * Decides which refusals are worth a line: the 1st, 2nd, 4th, 8th … of an address, so that whoever knocks all day
 * cannot fill the log. Remembers a bounded number of addresses; a forgotten one starts again at 1.
 */
export class RefusalLog {
  readonly #counts = new Map<string, number>();

  /** How often this address was refused by now when it should be told, else null. */
  count(address: string): number | null {
    const count = (this.#counts.get(address) ?? 0) + 1;
    this.#counts.delete(address);
    this.#counts.set(address, count);
    if (this.#counts.size > ADDRESSES_MAX) this.#counts.delete(this.#counts.keys().next().value!);
    return Number.isInteger(Math.log2(count)) ? count : null;
  }
}
