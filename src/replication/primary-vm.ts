/**
 * The primary side of one VM: holds its disks while a guest may write, and drives its replication.
 *
 * The relationship's state in the catalog says what is to be done; one loop does it and looks again after every change.
 * Operations
 * only change the record and wake the loop, so a crash at any point is taken up from the record.
 *
 * Invariants
 * - A log file goes only after the replica has reported its epoch applied, or a resync has replaced it (R8, R12).
 * - Undelivered sets are sent oldest first; a late one delays the next switch instead of piling sets up.
 */
import { isRecoverable, retryDelayMs } from '../model/backoff.ts';
import { keptOut } from '../model/direction.ts';
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { InitialReplication, RelationshipRecord, VmRecord } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import { recordNoTracking, removeEpochFiles, removeTrackingFiles } from '../tracking/epoch-logs.ts';
import { TrackedVm, type TrackingLoss } from '../tracking/tracked-vm.ts';
import { HeldDisks } from './held-disks.ts';
import type { CopyOptions, CopyProgress } from './initial-sender.ts';
import { runInitial, type InitialProgress } from './initial-run.ts';
import { announcementOf } from './announcement.ts';
import { enableMessage, initialCompleteMessage, waitAppliedMessage } from './messages.ts';
import { logsBeyondLimit } from './log-limit.ts';
import { Outbox } from './outbox.ts';
import { noteTookOver } from './peer-direction.ts';
import { reportOf, takeAnswer, type ReplicaNews } from './report.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { requiredAfter } from './required-resync.ts';

/** How often the size of the logs is looked at between cycles. */
const LOG_WATCH_MS = 1000;

export interface SyncResult {
  epoch: number;
  bytes: number;
}

/**
 * Drives everything between "required" and "replicating again"; handed in because resync/ knows replication/, not the
 * reverse.
 */
export interface ResyncDriver {
  /** Called by the loop while the state is a resync state; returns after each step or when it has nothing to do until woken. */
  step(primary: PrimaryVm, signal: AbortSignal): Promise<void>;
  /**
   * Initial replication onto a copy that the replica has: compares, and sends what differs. Resolves when it is durable
   * there.
   */
  mendExisting(primary: PrimaryVm, initial: InitialReplication, options: CopyOptions): Promise<CopyProgress>;
}

/** What is left to do after a change of direction; handed in because failover/ knows replication/, not the reverse. */
export interface TurnDriver {
  /** Merges what the guest wrote since the failover, and tells the old primary. Called by the loop until the record is clear. */
  settle(primary: PrimaryVm, signal: AbortSignal): Promise<void>;
  /** Called with the disks open and nobody else using them. After a rejection they are closed again. */
  mergeFailover(primary: PrimaryVm, tracked: TrackedVm, signal: AbortSignal): Promise<void>;
}

export class PrimaryVm {
  readonly vmId: string;
  readonly ports: ReplicationPorts;
  readonly outbox: Outbox;
  readonly #disks: HeldDisks<TrackedVm>;
  #stop = new AbortController();
  #activity = new AbortController();
  #wake = Promise.withResolvers<void>();
  #loop: Promise<void> | null = null;
  #nextDue = 0;
  #countedMissed = false;
  #announce = false;
  #ending = false;
  #cycle: Promise<SyncResult> | null = null;
  readonly resync: ResyncDriver | null;
  #turn: TurnDriver | null;
  initialProgress: InitialProgress | null = null;

  constructor(ports: ReplicationPorts, vmId: string, resync: ResyncDriver | null = null, turn: TurnDriver | null = null) {
    this.ports = ports;
    this.vmId = vmId;
    this.resync = resync;
    this.#turn = turn;
    this.outbox = new Outbox(ports, vmId, (loss) => this.require(loss));
    this.#disks = new HeldDisks(() => this.#openDisks());
  }

  get vm(): VmRecord {
    return this.ports.relationships.vm(this.vmId);
  }

  get relationship(): RelationshipRecord {
    return this.ports.relationships.get(this.vmId);
  }

  /** The disks, while they are open here; else null. */
  get tracked(): TrackedVm | null {
    return this.#disks.current;
  }

  /** The disks, while they are held for a guest; null too while they are being closed. */
  get guestDisks(): TrackedVm | null {
    return this.#disks.heldBy('guest');
  }

  link(): PeerLink {
    return this.ports.link(this.relationship.remote);
  }

  /** At the start of the server: takes up what a crash or a stop has left. */
  async start(): Promise<void> {
    const { attach, tracking } = this.vm;
    const { prepared = null, unmerged = null } = this.ports.relationships.find(this.vmId) ?? {};
    // Prepared: the disks are handed over as they are. Unmerged: the loop opens them, which may take its time.
    const opens = prepared === null && unmerged === null;
    if (opens && (attach === 'attached' || tracking?.running === true)) await this.hold('guest');
    this.run();
  }

  /** Starts the loop; for a VM that has just been enabled. */
  run(): void {
    if (this.#loop !== null || this.ports.relationships.find(this.vmId) === undefined) return;
    this.#nextDue = this.ports.clock.monotonic() + this.relationship.settings.frequencySec * 1000;
    this.#loop = this.#run();
  }

  /** The disks stay open until every holder has let go; the first one opens them. */
  async hold(holder: string): Promise<TrackedVm> {
    const relationship = this.ports.relationships.find(this.vmId);
    if ((relationship?.prepared ?? null) !== null) throw keptOut(this.vm.name, relationship)!;
    return this.#disks.hold(holder);
  }

  /** The last one out seals the disks. */
  letGo(holder: string): Promise<void> {
    return this.#disks.letGo(holder);
  }

  /** Ends the loop and seals the disks: a clean stop of the server. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    this.#activity.abort(new Error('the server stops'));
    this.wake();
    await this.#loop;
    await this.#disks.letAllGo();
  }

  /** Something in the record has changed: what is being done is stopped, and the loop looks again. */
  interrupt(reason: string): void {
    this.#activity.abort(new Error(reason));
    this.wake();
  }

  wake(): void {
    this.#wake.resolve();
  }

  /** The settings have changed: the replica is told, and a shorter frequency counts at once. */
  settingsChanged(): void {
    this.#announce = true;
    this.#nextDue = Math.min(this.#nextDue, this.ports.clock.monotonic() + this.relationship.settings.frequencySec * 1000);
    this.wake();
  }

  /** Ends replication on this side: loop, logs, maps and record go; the guest goes on writing to its disks. */
  async endReplication(): Promise<void> {
    this.ports.relationships.check(this.vmId, 'remove');
    this.#ending = true;
    this.interrupt('replication was removed');
    await this.#loop;
    [this.#loop, this.#ending] = [null, false];
    const noRelationship = () => this.ports.relationships.remove(this.vmId);
    if (this.tracked !== null) return this.tracked.forget(noRelationship);
    recordNoTracking(this.ports, this.vmId, noRelationship);
    await removeTrackingFiles(this.ports, this.vm);
  }

  /** A trigger of resynchronization. While logs are kept, they end now (and the record follows by `trackingLost`). */
  require(loss: TrackingLoss): void {
    if (this.tracked?.logging === true) this.tracked.stopLogging(loss);
    else this.ports.catalog.transaction(() => this.#recordLoss(loss));
    this.interrupt(loss.reason);
  }

  /** No holder, so that nothing here reads or writes the disks. */
  get disksClosed(): boolean {
    return this.#disks.closed;
  }

  /**
   * Closes and seals the disks, sends the last set, and waits until the replica has applied it; returns its epoch. The caller keeps
   * guests out. After a rejection the disks may be closed.
   */
  async handOverLast(signal: AbortSignal): Promise<number> {
    // Opened first: what a crash has left is taken up, and a disk that was changed meanwhile is found out.
    await this.hold('hand-over');
    await this.letGo('guest');
    await this.letGo('hand-over');
    if (!this.disksClosed) throw new UnderstudyError('state', 'VM_IN_USE', `the disks of VM '${this.vm.name}' are in use: ${this.#disks.holders.join(', ')}`,
      'Wait until that has ended.');
    const { epoch } = await this.syncNow(signal);
    return epoch;
  }

  /** Ends the current epoch, sends everything, and waits until the replica has applied it. */
  async syncNow(signal: AbortSignal): Promise<SyncResult> {
    this.ports.relationships.check(this.vmId, 'sync-now');
    if ((this.relationship.turning ?? null) !== null) {
      throw new UnderstudyError('io', 'REPLICA_BUSY', `the old primary of VM '${this.vm.name}' has not been told of the new direction yet`,
        'It is told as soon as it can be reached; see its status.');
    }
    const before = this.#cycle;
    if (before !== null) await before.catch(() => undefined);
    this.#cycle = this.#deliver(AbortSignal.any([signal, this.#activity.signal]));
    const result = await this.#cycle.finally(() => (this.#cycle = null));
    await this.#waitApplied(result.epoch, signal);
    return result;
  }

  /**
   * The copy is on the replica: what was written meanwhile follows, up to one log switch, and makes it one instant. May be
   * repeated after an interruption.
   */
  async finishInitial(signal: AbortSignal): Promise<void> {
    const { token } = this.relationship.initial!;
    if (this.tracked!.hasWrites) await this.tracked!.switchLog();
    const consistentFrom = this.outbox.newestClosed();
    await this.ship(signal);
    await this.link().call(initialCompleteMessage, { vmId: this.vmId, token, consistentFrom }, undefined, { signal, timeoutMs: 120_000 });
    this.initialFinished(consistentFrom);
  }

  /** The replica has its baseline, one instant of the VM from epoch `consistentFrom` on. */
  initialFinished(consistentFrom: number): void {
    const { token, firstEpoch } = this.relationship.initial!;
    this.ports.relationships.happened(this.vmId, { kind: 'initial-finished', reason: 'the replica has its baseline' }, {
      baselineId: token, initial: null, required: null, error: null, consistentFrom, lastAppliedEpoch: firstEpoch - 1,
      lastReplicationTime: this.ports.clock.now(), lastReceivedEpoch: Math.max(consistentFrom, this.outbox.newestDelivered()),
      mapTrusted: true,
    });
    this.#nextDue = this.ports.clock.monotonic() + this.relationship.settings.frequencySec * 1000;
  }

  /** Bytes that the replica does not have yet. */
  pendingBytes(): number {
    const closed = this.outbox.undelivered().reduce((sum, set) => sum + set.disks.reduce((bytes, { size }) => bytes + (size ?? 0), 0), 0);
    return closed + (this.tracked?.hasWrites === true ? this.tracked.openLogBytes : 0);
  }

  async #openDisks(): Promise<TrackedVm> {
    const { unmerged = null } = this.ports.relationships.find(this.vmId) ?? {};
    const { vm } = await TrackedVm.open(this.ports, this.vm, {
      ...(unmerged === null ? {} : { opened: (tracked) => this.#turn!.mergeFailover(this, tracked, this.#stop.signal) }),
      boundedWaitMs: () => this.ports.relationships.find(this.vmId)?.settings.boundedWaitMs ?? 2000,
      trackingLost: (lost) => this.#recordLoss(lost),
    });
    return vm;
  }

  #recordLoss(loss: TrackingLoss): void {
    const { relationships } = this.ports;
    const mapTrusted = this.vm.tracking?.mapTrusted ?? false;
    const { resync = null, required = null } = relationships.find(this.vmId) ?? {};
    relationships.happened(this.vmId, { kind: 'resync-required', trigger: loss.trigger, reason: loss.reason }, {
      ...(resync === null ? {} : { resync: null, abandoned: resync.token }),
      required: requiredAfter(required, loss, mapTrusted, this.ports.clock.now()), mapTrusted,
    });
    this.interrupt(loss.reason);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    // Whether this host still is the primary is the first question after a start (R21).
    if (this.ports.relationships.find(this.vmId)?.state === 'Replicating') await this.report(signal).catch(() => undefined);
    while (!signal.aborted) {
      const relationship = this.ports.relationships.find(this.vmId);
      if (relationship === undefined || this.#ending) return;
      this.#wake = Promise.withResolvers<void>();
      this.#activity = new AbortController();
      try {
        await this.#act(relationship, AbortSignal.any([signal, this.#activity.signal]));
      } catch (error) {
        if (signal.aborted) return;
        if (!this.#activity.signal.aborted) await this.#failed(error);
      }
    }
  }

  async #act(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> {
    const retryAt = relationship.error?.retryAt ?? null;
    const turning = (relationship.turning ?? relationship.unmerged ?? null) !== null;
    if (turning && this.#turn !== null) return this.#turn.settle(this, signal);
    switch (relationship.state) {
      case 'ReadyForInitialReplication':
        return void (await this.#awaitStart(relationship, signal));
      case 'InitialReplicationInProgress':
        if (retryAt !== null) await this.watchLogs(retryAt - this.ports.clock.now(), signal);
        if (signal.aborted) return;
        return runInitial(this, signal);
      case 'Replicating':
        return this.#replicate(relationship, signal);
      case 'WaitingForStartResynchronize': case 'Resynchronizing':
        if (this.resync !== null) return this.resync.step(this, signal);
        return this.idle(signal);
      default:
        return this.idle(signal);
    }
  }

  /** Nothing to do but to say how it is, once per cycle. */
  async idle(signal: AbortSignal): Promise<void> {
    await this.report(signal).catch(() => undefined);
    await this.watchLogs(this.relationship.settings.frequencySec * 1000, signal);
  }

  async #awaitStart(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> {
    const startAt = relationship.initial?.startAt ?? null;
    if (startAt === null) return void (await this.pause(null, signal));
    await this.pause(startAt - this.ports.clock.now(), signal);
    if (this.ports.clock.now() >= startAt) {
      this.ports.relationships.happened(this.vmId, { kind: 'initial-started', reason: 'its start time has come' });
    }
  }

  async #replicate(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> {
    const { clock, relationships } = this.ports;
    relationships.count(this.vmId, null);
    const retryAt = relationship.error?.retryAt ?? null;
    const due = clock.monotonic() >= this.#nextDue;
    if (due) this.#cycleDue();
    const untilDue = this.#nextDue - clock.monotonic();
    const untilRetry = (retryAt ?? clock.now()) - clock.now();
    const behind = retryAt !== null || this.outbox.undelivered().length > 0;
    // What is behind goes as soon as it may be tried again; meanwhile the cycles that pass are counted as missed.
    const waitMs = behind ? Math.min(untilRetry, untilDue) : due ? 0 : untilDue;
    if (waitMs > 0) return this.watchLogs(waitMs, signal);
    const before = this.#cycle;
    if (before !== null) return void (await before.catch(() => undefined));
    this.#cycle = this.#deliver(signal);
    await this.#cycle.finally(() => (this.#cycle = null));
  }

  /** A cycle's time has come: it counts as missed while the set before it is not delivered. */
  #cycleDue(): void {
    const { clock, relationships } = this.ports;
    const frequencyMs = this.relationship.settings.frequencySec * 1000;
    const late = this.outbox.undelivered().length > 0;
    while (this.#nextDue <= clock.monotonic()) this.#nextDue += frequencyMs;
    if (!late) return;
    this.#countedMissed = true;
    relationships.count(this.vmId, { outcome: 'missed' });
  }

  /** Ends the open epoch when it holds anything, sends all that is not delivered, and reports. */
  async #deliver(signal: AbortSignal): Promise<SyncResult> {
    const { ports } = this;
    const release = await ports.transferSlot(signal);
    try {
      if (this.#announce) {
        // Before the call: a change during it is announced again.
        this.#announce = false;
        await this.link().call(enableMessage, announcementOf(ports, this.vm, this.relationship.settings), undefined, { signal }).catch((error: unknown) => {
          this.#announce = true;
          throw error;
        });
      }
      let sent = 0;
      if (this.outbox.undelivered().length > 0) sent += await this.ship(signal);
      const tracked = this.tracked;
      const unchangedUntil = ports.clock.now();
      if (tracked !== null && tracked.logging && tracked.hasWrites) {
        await tracked.switchLog();
        sent += await this.ship(signal);
        await this.report(signal);
      } else {
        await this.report(signal, unchangedUntil);
      }
      this.#succeeded();
      return { epoch: this.outbox.newestClosed(), bytes: sent };
    } finally {
      release();
    }
  }

  async #waitApplied(epoch: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const asked = this.relationship;
      const params = { vmId: this.vmId, epoch, waitMs: 10_000 };
      const { result } = await this.link().call(waitAppliedMessage, params, undefined, { signal, timeoutMs: 30_000 });
      await this.#news(takeAnswer(this.ports, this.vmId, asked, result));
      if (result.appliedEpoch >= epoch) return;
      if (result.failure !== null) throw new UnderstudyError('io', result.failure.code, result.failure.message, result.failure.remedy);
      if (this.relationship.state !== 'Replicating') {
        throw new UnderstudyError('state', 'NOT_REPLICATING',
          `VM '${this.vm.name}' is in state ${this.relationship.state} now`, 'See its status.');
      }
    }
  }

  /** Sends every closed set, oldest first; returns the bytes of the files. */
  async ship(signal: AbortSignal): Promise<number> {
    const { bytes, late } = await this.outbox.ship(this.link(), this.#countedMissed, signal);
    this.#countedMissed = late;
    return bytes;
  }

  /** Says how this side is, and takes in how the replica is. */
  async report(signal: AbortSignal, unchangedUntil: number | null = null): Promise<ReplicaNews> {
    const pending = this.vm.tracking?.mode === 'map-only' || this.tracked?.hasWrites === true;
    const news = await reportOf(this.ports, this.vmId, { epoch: this.outbox.newestClosed(), unchangedUntil, pending }, signal);
    await this.#news(news);
    return news;
  }

  /** What the replica has done since: applied epochs leave the map and their files go. */
  async #news(news: ReplicaNews): Promise<void> {
    if (news.loss !== null) return this.require(news.loss);
    if (news.wantedAgain !== null) this.outbox.resend(this.outbox.newestClosed(), news.wantedAgain);
    const { catalog } = this.ports;
    const applied = catalog.epochs.list(this.vmId).filter(({ epoch, status }) => status === 'received' && epoch <= news.appliedEpoch);
    if (applied.length === 0) return;
    if (this.tracked?.logging === true) await this.tracked.release(news.appliedEpoch);
    catalog.transaction(() => {
      for (const { vmId, epoch } of applied) catalog.epochs.remove(vmId, epoch);
    });
    for (const set of applied) await removeEpochFiles(this.ports, set);
  }

  #succeeded(): void {
    if ((this.ports.relationships.find(this.vmId)?.error ?? null) !== null) this.ports.relationships.update(this.vmId, { error: null });
  }

  /** Retries by itself when the cause may pass, else stops with an error that says what to do (design §8, facts of back-off). */
  async #failed(error: unknown): Promise<void> {
    const { relationships, clock } = this.ports;
    const relationship = relationships.find(this.vmId);
    if (relationship === undefined) return;
    const known = error instanceof UnderstudyError ? error
      : new UnderstudyError('io', errnoOf(error) ?? 'REPLICATION_FAILED', messageOf(error), 'See the log of the server.', { cause: error });
    if (await this.#hasLostItsReplica(known)) return;
    const failures = (relationship.error?.failures ?? 0) + 1;
    const delayMs = isRecoverable(known) ? retryDelayMs(failures, relationship.settings.frequencySec) : null;
    const change = { error: { code: known.code, message: known.message, remedy: known.remedy,
      since: relationship.error?.since ?? clock.now(), retryAt: delayMs === null ? null : clock.now() + delayMs, failures } };
    relationships.count(this.vmId, { outcome: 'failed-attempt' });
    const facts = { reason: known.message, code: known.code };
    if (delayMs === null) {
      relationships.happened(this.vmId, { kind: 'failed', ...facts }, change);
      return;
    }
    relationships.update(this.vmId, change);
    relationships.note(this.vmId, makeEvent(ACTIVITY_EVENTS.willRetry, this.vm.name,
      { ...facts, attempt: failures, delaySeconds: Math.round(delayMs / 1000) }));
  }

  /** The replica may have taken over, or be the primary by now; then that is on record, and the failure is none of its own. */
  async #hasLostItsReplica({ code }: UnderstudyError): Promise<boolean> {
    if (code === 'REPLICA_FAILED_OVER') noteTookOver(this.ports, this.vmId, 'the replica took over');
    else if (code === 'PEER_VM_UNKNOWN') {
      const now = { epoch: this.outbox.newestClosed(), unchangedUntil: null, pending: true };
      await reportOf(this.ports, this.vmId, now, this.#stop.signal).catch(() => undefined);
    } else return false;
    return (this.ports.relationships.find(this.vmId)?.tookOver ?? null) !== null;
  }

  /** Waits, and meanwhile sees to it that the logs keep below their limit (trigger 2). */
  async watchLogs(waitMs: number, signal: AbortSignal): Promise<void> {
    const end = this.ports.clock.monotonic() + waitMs;
    let seen = -1;
    for (let left = waitMs; left > 0 && !signal.aborted; left = end - this.ports.clock.monotonic()) {
      // Closed logs do not grow, so only what guests write since the last look can cross the limit: an idle VM costs nothing.
      const open = this.tracked?.openLogBytes ?? 0;
      const loss = open === seen ? null : logsBeyondLimit(this.ports.catalog, this.vm, this.relationship, open);
      if (loss !== null) return this.require(loss);
      seen = open;
      if (await this.pause(Math.min(left, LOG_WATCH_MS), signal)) return;
    }
  }

  /** Waits for the time, a wake-up (then true) or the signal; null waits for ever. */
  async pause(ms: number | null, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted || (ms !== null && ms <= 0)) return false;
    const timer = new AbortController();
    const woken = Promise.race([this.#wake.promise, aborted(signal)]).then(() => true);
    const slept = ms === null ? new Promise<never>(() => {}) : this.ports.clock.sleep(ms, timer.signal).then(() => false, () => true);
    const result = await Promise.race([woken, slept]);
    timer.abort();
    return result;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
