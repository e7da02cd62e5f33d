/**
 * The cycles of a VM that replicates: when a set of logs is ended and sent, what is said once per cycle, and what follows from the
 * replica's answer.
 *
 * Invariants
 * - A log file goes only after the replica has reported its epoch applied, or a resync has replaced it (R8, R12).
 * - A sync that fails is on record before its caller hears of it; the loop records the failures of its own attempts.
 * - Undelivered sets are sent oldest first; a late one delays the next switch instead of piling sets up.
 */
import { isRecoverable } from '../model/backoff.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { RelationshipRecord } from '../model/records.ts';
import { removeEpochFiles } from '../tracking/epoch-logs.ts';
import { endSet } from './consistent-set.ts';
import { logUnrecorded, noteFailedAttempt } from './failed-attempt.ts';
import { waitAppliedMessage } from './messages.ts';
import { reportOf, takeAnswer, type ReplicaNews } from './report.ts';
import type { AnySendingVm } from './sending-vm.ts';

/** Cycles begin at whole seconds, so that VMs whose cycles fall together say how they are in one message. */
const TICK_MS = 1000;

export interface SyncResult {
  epoch: number;
  bytes: number;
}

export class Delivery {
  #sender: AnySendingVm;
  #nextDue = 0;
  #countedMissed = false;
  #announce = false;
  #cycle: Promise<SyncResult> | null = null;

  constructor(sender: AnySendingVm) {
    this.#sender = sender;
  }

  /** The next cycle is a whole one away. */
  beginCycles(): void {
    this.#nextDue = this.#inOneCycle();
  }

  /** The settings have changed: the replica is told, and a shorter frequency counts at once. */
  settingsChanged(): void {
    this.#announce = true;
    this.#nextDue = Math.min(this.#nextDue, this.#inOneCycle());
  }

  /**
   * Ends the current epoch, sends everything, and waits until the replica has applied it. What interrupts it (news of the other host, a
   * change of the record) may be no reason to give up: then it goes on.
   */
  async syncNow(signal: AbortSignal): Promise<SyncResult> {
    for (;;) {
      this.#checkSync();
      while (this.#cycle !== null) await this.#cycle.catch(() => undefined);
      const { activity } = this.#sender;
      const ended = AbortSignal.any([signal, activity]);
      // Whoever waits for this attempt sees its failure on record.
      this.#cycle = this.#deliver(ended).catch((error: unknown) => this.#failed(error, ended)).finally(() => (this.#cycle = null));
      try {
        const result = await this.#cycle;
        await this.#waitApplied(result.epoch, signal);
        return result;
      } catch (error) {
        if (signal.aborted || !activity.aborted || !(await this.#sender.looksAgain(activity))) throw error;
      }
    }
  }

  #checkSync(): void {
    this.#sender.ports.relationships.check(this.#sender.vmId, 'sync-now');
    if ((this.#sender.relationship.turning ?? null) === null) return;
    throw new UnderstudyError('io', 'REPLICA_BUSY', `the old primary of VM '${this.#sender.vm.name}' has not been told of the new direction yet`,
      'It is told as soon as it can be reached; see its status.');
  }

  /** One look: delivers when it is time, else waits. */
  async replicate(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> {
    const { outbox, vmId, ports: { clock, relationships } } = this.#sender;
    relationships.count(vmId, null);
    const retryAt = relationship.error?.retryAt ?? null;
    const due = clock.monotonic() >= this.#nextDue;
    if (due) this.#cycleDue();
    const untilDue = this.#nextDue - clock.monotonic();
    const untilRetry = (retryAt ?? clock.now()) - clock.now();
    const behind = retryAt !== null || outbox.undelivered().length > 0;
    // What is behind goes as soon as it may be tried again; meanwhile the cycles that pass are counted as missed.
    const waitMs = behind ? Math.min(untilRetry, untilDue) : due ? 0 : untilDue;
    if (waitMs > 0) return this.#sender.watchLogs(waitMs, signal);
    const before = this.#cycle;
    if (before !== null) return void (await before.catch(() => undefined));
    this.#cycle = this.#deliver(signal);
    await this.#cycle.finally(() => (this.#cycle = null));
  }

  /** A cycle's time has come: it counts as missed while the set before it is not delivered. */
  #cycleDue(): void {
    const { outbox, vmId, relationship, ports: { clock, relationships } } = this.#sender;
    const frequencyMs = relationship.settings.frequencySec * 1000;
    const late = outbox.undelivered().length > 0;
    while (this.#nextDue <= clock.monotonic()) this.#nextDue += frequencyMs;
    if (!late) return;
    this.#countedMissed = true;
    relationships.count(vmId, { outcome: 'missed' });
  }

  /** Ends the open epoch when it holds anything, sends all that is not delivered, and reports. */
  async #deliver(signal: AbortSignal): Promise<SyncResult> {
    const { ports } = this.#sender;
    // Hundreds of quiet VMs wait for no slot: what they say is a line of one message.
    const release = this.#hasToSend() ? await ports.transferSlot(signal) : () => {};
    try {
      if (this.#announce) {
        // Before the call: a change during it is announced again.
        this.#announce = false;
        await this.#sender.announce(signal).catch((error: unknown) => {
          this.#announce = true;
          throw error;
        });
      }
      let sent = 0;
      if (this.#sender.outbox.undelivered().length > 0) sent += await this.ship(signal);
      const tracked = this.#sender.tracked;
      const unchangedUntil = this.#sender.presentInstant();
      if (this.#hasWrites()) {
        await endSet(this.#sender, tracked!);
        sent += await this.ship(signal);
        await this.report(signal);
      } else {
        await this.report(signal, unchangedUntil);
      }
      this.#succeeded();
      return { epoch: this.#sender.outbox.newestClosed(), bytes: sent };
    } finally {
      release();
    }
  }

  #hasWrites(): boolean {
    const { tracked } = this.#sender;
    return tracked !== null && tracked.logging && tracked.hasWrites;
  }

  #hasToSend(): boolean {
    return this.#announce || this.#hasWrites() || this.#sender.outbox.undelivered().length > 0;
  }

  async #waitApplied(epoch: number, signal: AbortSignal): Promise<void> {
    const { ports, vmId } = this.#sender;
    for (;;) {
      signal.throwIfAborted();
      if (this.#sender.relationship.state !== 'Replicating') {
        throw new UnderstudyError('state', 'NOT_REPLICATING',
          `VM '${this.#sender.vm.name}' is in state ${this.#sender.relationship.state} now`, 'See its status.');
      }
      const asked = this.#sender.relationship;
      const params = { vmId, epoch, waitMs: 10_000 };
      const { result } = await this.#sender.link().call(waitAppliedMessage, params, undefined, { signal, timeoutMs: 30_000 })
        .catch((error: unknown) => {
          // What a person must mend of a set that has arrived is for the next report to judge.
          if (isRecoverable(error)) return this.#failed(error, signal);
          throw error;
        });
      await this.#news(takeAnswer(ports, vmId, asked, result));
      if (result.appliedEpoch >= epoch) return;
      if (result.failure !== null) throw new UnderstudyError('io', result.failure.code, result.failure.message, result.failure.remedy);
    }
  }

  /** An attempt that the loop did not make goes on record as its own do, and the loop tries again when it may. */
  async #failed(error: unknown, signal: AbortSignal): Promise<never> {
    const { vmId, activity, ports: { relationships } } = this.#sender;
    if (!signal.aborted && !activity.aborted && relationships.find(vmId)?.state === 'Replicating') {
      await noteFailedAttempt(this.#sender, error, signal, { askedFor: true }).catch((cause: unknown) => logUnrecorded(this.#sender, cause));
      this.#sender.wake();
    }
    throw error;
  }

  /** Sends every closed set, oldest first; returns the bytes of the files. */
  async ship(signal: AbortSignal): Promise<number> {
    const { bytes, late } = await this.#sender.outbox.ship(this.#sender.link(), this.#countedMissed, signal);
    this.#countedMissed = late;
    return bytes;
  }

  /** Says how this side is, and takes in how the replica is. */
  async report(signal: AbortSignal, unchangedUntil: number | null = null): Promise<ReplicaNews> {
    const { ports, vmId, outbox, tracked } = this.#sender;
    const tracking = tracked?.tracking ?? this.#sender.vm.tracking;
    const pending = tracking?.mode === 'map-only' || tracked?.hasWrites === true;
    const now = { epoch: outbox.newestClosed(), unchangedUntil, pending, mapTrusted: tracking?.mapTrusted };
    const news = await reportOf(ports, vmId, now, signal);
    await this.#news(news);
    return news;
  }

  /** What the replica has done since: applied epochs leave the map and their files go. */
  async #news(news: ReplicaNews): Promise<void> {
    if (news.loss !== null) return this.#sender.require(news.loss);
    const { ports, vmId: id, outbox, tracked } = this.#sender;
    if (news.wantedAgain !== null) outbox.resend(outbox.newestClosed(), news.wantedAgain);
    const { catalog } = ports;
    const applied = catalog.epochs.list(id).filter(({ epoch, status }) => status === 'received' && epoch <= news.appliedEpoch);
    if (applied.length === 0) return;
    if (tracked?.logging === true) await tracked.release(news.appliedEpoch);
    catalog.transaction(() => {
      for (const { vmId, epoch } of applied) catalog.epochs.remove(vmId, epoch);
    });
    for (const set of applied) await removeEpochFiles(ports, set);
  }

  #succeeded(): void {
    const { ports, vmId } = this.#sender;
    if ((ports.relationships.find(vmId)?.error ?? null) !== null) ports.relationships.update(vmId, { error: null });
  }

  #inOneCycle(): number {
    const due = this.#sender.ports.clock.monotonic() + this.#sender.relationship.settings.frequencySec * 1000;
    return Math.floor(due / TICK_MS) * TICK_MS;
  }
}
