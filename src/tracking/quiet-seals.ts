/**
 * Puts the seals of a VM's disks on record once nothing has been written for a moment, so that a crash later proves them untouched
 * exactly. When a disk cannot be sealed nothing is on record, and the next activity tries again: it is a proof less, no failure.
 */
import type { Clock } from '../model/ports.ts';
import type { SealRecord } from '../model/records.ts';

/** No write for this long: the disks are sealed where they are. */
const QUIET_AFTER_MS = 20;

export interface QuietSealsParts {
  clock: Clock;
  /** Something is being written to a disk. */
  busy(): boolean;
  seals(): Promise<Record<string, SealRecord>>;
  /** Called only while nothing has been written since the seals were taken. */
  record(seals: Record<string, SealRecord>): Promise<void>;
  failed(error: unknown): void;
}

export class QuietSeals {
  readonly #parts: QuietSealsParts;
  #activity = 0;
  #sealing = false;
  #stopped = false;

  constructor(parts: QuietSealsParts) {
    this.#parts = parts;
  }

  /** A write has begun or ended. */
  activity(): void {
    this.#activity++;
    if (!this.#sealing && !this.#stopped) void this.#sealWhenQuiet();
  }

  /** The disks are about to be closed. */
  stop(): void {
    this.#stopped = true;
  }

  /** Never rejects. */
  async #sealWhenQuiet(): Promise<void> {
    const { clock, busy, seals, record, failed } = this.#parts;
    this.#sealing = true;
    for (let isSealed = false; !isSealed;) {
      for (let seen = -1; seen !== this.#activity || busy();) {
        seen = this.#activity;
        await clock.sleep(QUIET_AFTER_MS);
        if (this.#stopped) return;
      }
      const seen = this.#activity;
      const found = await seals().catch((error: unknown) => (this.#stopped ? null : void failed(error)) ?? null);
      if (this.#stopped) return;
      isSealed = found === null || seen === this.#activity;
      if (!isSealed) continue;
      this.#sealing = false;
      if (found !== null) await record(found).catch(failed);
    }
  }
}
