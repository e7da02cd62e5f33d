import type { Random } from '../../src/model/ports.ts';

/** A generator of repeatable numbers; `SEED=n` repeats a failure. */
export class Seeded implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** In [from, to]. */
  integer(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)]!;
  }

  readonly coin = (): boolean => this.next() < 0.5;

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let index = 0; index < count; index++) bytes[index] = this.integer(0, 255);
    return bytes;
  }

  uuid(): string {
    const text = Buffer.from(this.bytes(16)).toString('hex');
    return `${text.slice(0, 8)}-${text.slice(8, 12)}-4${text.slice(13, 16)}-a${text.slice(17, 20)}-${text.slice(20)}`;
  }
}

export const SEED = process.env['SEED'] === undefined ? (Date.now() & 0xffffff) : Number(process.env['SEED']);
export const clock = { now: () => 1_700_000_000_000 };
/** `npm run test:long` tries everything that the short run takes samples of. */
export const LONG = process.env['UNDERSTUDY_TEST_LONG'] === '1';
