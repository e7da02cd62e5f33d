/**
 * The side of a relationship that sends: drives the replication of one VM, wherever its changes come from (change-source.ts).
 *
 * The relationship's state in the catalog says what is to be done; one loop does it and looks again after every change. Operations
 * only change the record and wake the loop, so a crash at any point is taken up from the record.
 *
 * Invariant: nothing ends the loop but the end of the server or of replication. Where even a failure cannot be put on record, it tries again.
 */
import { serverStops } from '../model/errors.ts';
import type { InitialReplication, RelationshipRecord, VmRecord } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import { recordNoTracking, removeTrackingFiles } from '../tracking/epoch-logs.ts';
import type { TrackingLoss } from '../tracking/tracking-ports.ts';
import { announcementOf } from './announcement.ts';
import type { ChangeSource } from './change-source.ts';
import { Delivery, type SyncResult } from './delivery.ts';
import { logUnrecorded, noteFailedAttempt } from './failed-attempt.ts';
import { HeldDisks } from './held-disks.ts';
import type { CopyOptions, CopyProgress } from './initial-sender.ts';
import { runInitial, type InitialProgress } from './initial-run.ts';
import { LoopClock } from './loop-clock.ts';
import { everySecond } from './every-second.ts';
import { enableMessage, initialCompleteMessage } from './messages.ts';
import { logsBeyondLimit } from './log-limit.ts';
import { Outbox } from './outbox.ts';
import type { ReplicaNews } from './report.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { requiredAfter } from './required-resync.ts';

/** When the catalog cannot be written: the wait before the next try. */
const UNRECORDED_MS = 5000;

export type AnySendingVm = SendingVm<ChangeSource>;

/**
 * Drives everything between "required" and "replicating again"; handed in because resync/ knows replication/, not the
 * reverse.
 */
export interface ResyncDriver {
  /** Called by the loop while the state is a resync state; returns after each step or when it has nothing to do until woken. */
  step(sender: AnySendingVm, signal: AbortSignal): Promise<void>;
  /**
   * Initial replication onto a copy that the replica has: compares, and sends what differs. Resolves when it is durable
   * there.
   */
  mendExisting(sender: AnySendingVm, initial: InitialReplication, options: CopyOptions): Promise<CopyProgress>;
}

export abstract class SendingVm<Source extends ChangeSource> {
  readonly vmId: string;
  readonly ports: ReplicationPorts;
  readonly outbox: Outbox;
  readonly resync: ResyncDriver | null;
  initialProgress: InitialProgress | null = null;
  protected readonly source: HeldDisks<Source>;
  protected readonly delivery: Delivery;
  #stop = new AbortController();
  #activity = new AbortController();
  /** Resolves with true when the loop looks at the record anew, with false when it has ended. */
  #looks = Promise.withResolvers<boolean>();
  #timer: LoopClock;
  #loop: Promise<void> | null = null;
  #ending = false;

  constructor(ports: ReplicationPorts, vmId: string, resync: ResyncDriver | null) {
    this.ports = ports;
    this.vmId = vmId;
    this.resync = resync;
    this.#timer = new LoopClock(ports.clock);
    this.outbox = new Outbox(ports, vmId, (loss) => this.require(loss));
    this.delivery = new Delivery(this);
    this.source = new HeldDisks(() => this.openSource());
  }

  /** Opens what the changes come from; the first holder waits for it. */
  protected abstract openSource(): Promise<Source>;

  /** What has to be done before anything that the state asks for; null when nothing has. */
  protected first(_relationship: RelationshipRecord, _signal: AbortSignal): Promise<void> | null {
    return null;
  }

  /** The instant that the disks show while nothing is tracked, ms; null when nobody knows. */
  presentInstant(): number | null {
    return this.ports.clock.now();
  }

  get vm(): VmRecord {
    return this.ports.relationships.vm(this.vmId);
  }

  get relationship(): RelationshipRecord {
    return this.ports.relationships.get(this.vmId);
  }

  /** The source, while it is open here; else null. */
  get tracked(): Source | null {
    return this.source.current;
  }

  /** Stops whatever is being done now. */
  get activity(): AbortSignal {
    return this.#activity.signal;
  }

  /** After `activity` was interrupted: true when the loop has looked at the record again, false when it never will. */
  async looksAgain(activity: AbortSignal): Promise<boolean> {
    return this.activity !== activity || this.#looks.promise;
  }

  protected get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  link(): PeerLink {
    return this.ports.link(this.relationship.remote);
  }

  /** Tells the replica of the VM, or brings what it knows up to date. */
  async announce(signal: AbortSignal): Promise<void> {
    await this.link().call(enableMessage, announcementOf(this.ports, this.vm, this.relationship.settings), undefined, { signal });
  }

  /** Starts the loop; for a VM that has just been enabled. */
  run(): void {
    if (this.#loop !== null || this.ports.relationships.find(this.vmId) === undefined) return;
    this.delivery.beginCycles();
    this.#looks = Promise.withResolvers();
    this.#loop = this.#run().finally(() => this.#looks.resolve(false));
  }

  /** It stays open until every holder has let go; the first one opens it. */
  async hold(holder: string): Promise<Source> {
    return this.source.hold(holder);
  }

  /** The last one out closes it. */
  letGo(holder: string): Promise<void> {
    return this.source.letGo(holder);
  }

  /** Ends the loop and closes the source: a clean stop of the server. */
  async close(): Promise<void> {
    const reason = serverStops();
    this.#stop.abort(reason);
    this.#activity.abort(reason);
    this.wake();
    await this.#loop;
    await this.source.letAllGo();
  }

  /** Something in the record has changed: what is being done is stopped, and the loop looks again. */
  interrupt(reason: string): void {
    this.#activity.abort(new Error(reason));
    this.wake();
  }

  wake(): void {
    this.#timer.wake();
  }

  /** The settings have changed: the replica is told, and a shorter frequency counts at once. */
  settingsChanged(): void {
    this.delivery.settingsChanged();
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

  /** A trigger of resynchronization. While logs are kept, they end now (and the record follows by `recordLoss`). */
  require(loss: TrackingLoss): void {
    if (this.tracked?.logging === true) this.tracked.stopLogging(loss);
    else this.ports.catalog.transaction(() => this.recordLoss(loss));
    this.interrupt(loss.reason);
  }

  /** Ends the current epoch, sends everything, and waits until the replica has applied it. */
  syncNow(signal: AbortSignal): Promise<SyncResult> {
    return this.delivery.syncNow(signal);
  }

  /** Sends every closed set, oldest first; returns the bytes of the files. */
  ship(signal: AbortSignal): Promise<number> {
    return this.delivery.ship(signal);
  }

  /** Says how this side is, and takes in how the replica is. */
  report(signal: AbortSignal): Promise<ReplicaNews> {
    return this.delivery.report(signal);
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
    this.delivery.beginCycles();
  }

  /** Bytes that the replica does not have yet. */
  pendingBytes(): number {
    const closed = this.outbox.undelivered().reduce((sum, set) => sum + set.disks.reduce((bytes, { size }) => bytes + (size ?? 0), 0), 0);
    return closed + (this.tracked?.hasWrites === true ? this.tracked.openLogBytes : 0);
  }

  protected recordLoss(loss: TrackingLoss): void {
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
      this.#timer.rearm();
      this.#activity = new AbortController();
      this.#looks.resolve(true);
      this.#looks = Promise.withResolvers();
      try {
        await this.#act(relationship, AbortSignal.any([signal, this.#activity.signal]));
      } catch (error) {
        if (signal.aborted) return;
        if (!this.#activity.signal.aborted) await noteFailedAttempt(this, error, signal).catch((cause: unknown) => this.#notRecorded(cause, signal));
      }
    }
  }

  async #notRecorded(cause: unknown, signal: AbortSignal): Promise<void> {
    logUnrecorded(this, cause);
    await this.ports.clock.sleep(UNRECORDED_MS, signal).catch(() => undefined);
  }

  async #act(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> {
    const retryAt = relationship.error?.retryAt ?? null;
    const before = this.first(relationship, signal);
    if (before !== null) return before;
    switch (relationship.state) {
      case 'ReadyForInitialReplication':
        return void (await this.#awaitStart(relationship, signal));
      case 'InitialReplicationInProgress':
        if (retryAt !== null) await this.watchLogs(retryAt - this.ports.clock.now(), signal);
        if (signal.aborted) return;
        return runInitial(this, signal);
      case 'Replicating':
        // A loss that is not on record yet: nothing that is left may be shipped.
        return this.tracked?.owed?.loss ? this.idle(signal) : this.delivery.replicate(relationship, signal);
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

  /** Waits, and meanwhile sees to it that the logs keep below their limit (trigger 2). */
  async watchLogs(waitMs: number, signal: AbortSignal): Promise<void> {
    if (waitMs <= 0 || signal.aborted) return;
    let seen = -1;
    // What is to be done about what was seen: here, not in the look.
    const found: (() => void)[] = [];
    const look = () => {
      // Closed logs do not grow, so only what guests write since the last look can cross the limit: an idle VM costs nothing.
      const open = this.tracked?.openLogBytes ?? 0;
      if (open === seen || found.length > 0) return;
      seen = open;
      try {
        const loss = logsBeyondLimit(this.ports.catalog, this.vm, this.relationship, open);
        if (loss !== null) found.push(() => this.require(loss));
      } catch (failure) {
        found.push(() => { throw failure; });
      }
    };
    const stop = everySecond(this.ports, () => {
      look();
      if (found.length > 0) this.#timer.wake();
    });
    try {
      look();
      if (found.length === 0) await this.pause(waitMs, signal);
    } finally {
      stop();
    }
    found[0]?.();
  }

  /** Waits for the time, a wake-up (then true) or the signal; null waits for ever. */
  pause(ms: number | null, signal: AbortSignal): Promise<boolean> {
    return this.#timer.pause(ms, signal);
  }
}
