/** A bucket of tries per key: `burst` at once, then `perSecond`. Pure but for the time it is handed. */

export interface RateLimitOptions {
  burst: number;
  perSecond: number;
  /** Keys kept at most; the one unused longest is forgotten first, which can only be generous. */
  keysMax: number;
}

export class RateLimit {
  readonly #options: RateLimitOptions;
  /** In order of last use. */
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(options: RateLimitOptions) {
    this.#options = options;
  }

  /** Takes one try: 0 when it is allowed, else the seconds until the next one will be. `now`: monotonic ms. */
  take(key: string, now: number): number {
    const { burst, perSecond, keysMax } = this.#options;
    const before = this.#buckets.get(key) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, before.tokens + ((now - before.at) / 1000) * perSecond);
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, at: now });
    if (this.#buckets.size > keysMax) this.#buckets.delete(this.#buckets.keys().next().value!);
    return tokens >= 1 ? 0 : (1 - tokens) / perSecond;
  }
}
