/**
 * What tracking has lost and the catalog cannot be told: its volume is full or fails at the same moment (promise 1). The guest goes on,
 * the loss is kept in memory, and goes on record as soon as that is possible.
 *
 * Invariants
 * - `owe` resolves, and so the guest goes on untracked, only when a restart is certain to find the loss: by the mark in the write lease, or
 *   by a log without its index. Can neither be made within the bounded wait, no lease covers the writes, so a restart proves nothing.
 * - What is owed is dropped by `settled` alone: when it is in the catalog, or when nothing is tracked any more.
 */
import type { LogWriter } from '../hrl/log-writer.ts';
import { messageOf } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import type { TrackingLoss } from './tracking-ports.ts';
import type { WriteLease } from './write-lease.ts';

const RETRY_MS = 1000;
const RETRY_MS_MAX = 10_000;

export interface Owed {
  /** Null: logs are kept, only the change map is no longer to be trusted. */
  loss: TrackingLoss | null;
  mapHolds: boolean;
  /** Why the catalog could not be written. */
  failure: unknown;
}

export interface UnrecordedLossParts {
  clock: Clock;
  log: Logger;
  vmName: string;
  lease(): WriteLease | null;
  /** Puts all that is owed on record, and calls `settled`; throws while that is not possible. */
  record(): void;
}

export class UnrecordedLoss {
  readonly #parts: UnrecordedLossParts;
  #owed: Owed | null = null;
  #marked: Promise<unknown> = Promise.resolve();
  #retries: AbortController | null = null;

  constructor(parts: UnrecordedLossParts) {
    this.#parts = parts;
  }

  get owed(): Owed | null {
    return this.#owed;
  }

  /** Resolves when all that is owed now is marked, as `owe` does. */
  get marked(): Promise<unknown> {
    return this.#marked;
  }

  /** `logs`: those that nobody shall believe any more. Never rejects; bounded by the wait of the lease. */
  async owe(owed: Owed, logs: LogWriter[]): Promise<void> {
    const { log, vmName, lease } = this.#parts;
    const loss = owed.loss ?? this.#owed?.loss ?? null;
    this.#owed = { ...owed, loss };
    const reason = loss?.reason ?? 'the change map could not be kept';
    log.error({ vm: vmName, reason, error: messageOf(owed.failure) }, 'the catalog cannot be written: the loss is kept in memory');
    const byLogs = Promise.any(logs.map((each) => each.distrust(reason))).catch(() => new Promise<never>(() => {}));
    const byLease = lease()?.lost({ trigger: loss?.trigger ?? 4, reason, mapHolds: owed.mapHolds });
    this.#marked = Promise.all([this.#marked, Promise.race([byLogs, byLease])]);
    if (this.#retries === null) void this.#retry(this.#retries = new AbortController());
    await this.#marked;
  }

  /** Nothing is owed any more. */
  settled(): void {
    if (this.#owed === null) return;
    this.#owed = null;
    this.stop();
    this.#parts.lease()?.recorded();
    this.#parts.log.info({ vm: this.#parts.vmName }, 'the catalog can be written again: the loss is on record');
  }

  /** No more attempts: the disks are being closed, and what is still owed is found by its mark. */
  stop(): void {
    this.#retries?.abort();
    this.#retries = null;
  }

  async #retry({ signal }: AbortController): Promise<void> {
    for (let waitMs = RETRY_MS; !signal.aborted; waitMs = Math.min(2 * waitMs, RETRY_MS_MAX)) {
      await this.#parts.clock.sleep(waitMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        this.#parts.record();
      } catch (error) {
        this.#parts.log.warn({ vm: this.#parts.vmName, error: messageOf(error) }, 'the catalog cannot be written yet');
      }
    }
  }
}
