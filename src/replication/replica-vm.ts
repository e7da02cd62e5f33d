/**
 * The replica side of one VM: takes what the primary sends, applies it, and says how far it is.
 *
 * Invariants
 * - Receiving never waits for applying; applying takes the next link of the chain only (R13).
 * - `lastAppliedEpoch`, the seals and the chain of all disks change in one transaction (R14), and so does the point that this set ends at.
 * - While a failover or a test failover is on record nothing is applied (R15): what it serves rests on the disks as they are.
 * - A message of an earlier token or baseline changes nothing (R18).
 * - What the replica cannot use it asks for again; only when nobody can supply it is it a reason for a resync (R12).
 */
import { changedMarks } from '../disk/seal.ts';
import type { Clock } from '../model/ports.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { generationOf } from '../model/direction.ts';
import { isRecoverable } from '../model/backoff.ts';
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import {
  replicatedDisks, type InboxRecord, type InitialReplication, type RelationshipRecord, type SealRecord, type VmRecord,
} from '../model/records.ts';
import { applySet, defectOf } from './apply.ts';
import { ArrivedBytes } from './arrived-bytes.ts';
import { Inbox, type OfferAnswer } from './inbox.ts';
import { InitialReceiver } from './initial-receiver.ts';
import type { AnsweredVm, OfferedLog } from './messages.ts';
import { servedMeanwhile } from './replica-failures.ts';
import type { BaseWatch } from './base-watch.ts';
import { growForSet } from './replica-resize.ts';
import { RecoveryPoints } from './recovery-points.ts';
import type { Change } from './relationships.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** After an error that may pass by itself (a full disk, say). */
const RETRY_MS = 30_000;

export class ReplicaVm {
  readonly vmId: string;
  readonly inbox: Inbox;
  readonly initial: InitialReceiver;
  readonly points: RecoveryPoints;
  #ports: ReplicationPorts;
  #clock: Clock;
  #stop = new AbortController();
  #loop: Promise<void> | null = null;
  #wake = Promise.withResolvers<void>();
  #waiting: (() => void)[] = [];
  /** Holds apply back at a log boundary: by name, who does (R15). */
  #pins = new Set<string>();
  #applying: Promise<void> = Promise.resolve();
  /** Stops the set that is being applied, for `halt`. */
  #halted = new AbortController();
  /** A failover is being carried out; the primary must not think that it was cancelled. */
  takingOver = false;
  /** What came over the network for it. */
  readonly arrived: ArrivedBytes;
  /** Told of whatever is written to the disks: the leg to an extended replica (R27). */
  watch: BaseWatch | null = null;

  constructor(ports: ReplicationPorts, vmId: string) {
    this.#ports = ports;
    this.#clock = ports.clock;
    this.vmId = vmId;
    this.arrived = new ArrivedBytes(ports.relationships, vmId);
    this.inbox = new Inbox(ports, vmId);
    this.initial = new InitialReceiver(ports, vmId);
    this.points = new RecoveryPoints(ports, vmId);
  }

  get relationship(): RelationshipRecord {
    return this.#ports.relationships.get(this.vmId);
  }

  get vm(): VmRecord {
    return this.#ports.relationships.vm(this.vmId);
  }

  /** Begins to apply what waits. Looks first whether the disks are those that were left (trigger 7). */
  async start(): Promise<void> {
    await this.points.start();
    await this.#checkSeals();
    this.#loop = this.#run();
  }

  /** Ends at a point from which a later start goes on. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    this.#wake.resolve();
    await this.#loop;
    await this.inbox.close();
    await this.initial.close();
    this.#tellWaiting();
  }

  async offer(
    baselineId: string, epoch: number, closedAt: number, disks: OfferedLog[], applicationConsistent = false,
  ): Promise<OfferAnswer> {
    const { relationship } = this;
    if (relationship.state === 'FailedOverWaitingCompletion' || relationship.state === 'FailedOver') {
      throw new UnderstudyError('state', 'REPLICA_FAILED_OVER', `VM '${this.vm.name}' runs on the replica since a failover`,
        'Cancel the failover on the replica, or reverse the direction.');
    }
    this.#checkBaseline(relationship, baselineId);
    const known = new Set(replicatedDisks(this.vm).map(({ diskId }) => diskId));
    if (disks.length !== known.size || disks.some(({ diskId }) => !known.has(diskId))) {
      throw new UnderstudyError('usage', 'LOG_SET_INCOMPLETE',
        `a set of ${disks.length} logs for ${known.size} disks`, 'Remove and enable replication again if the disk set has changed.');
    }
    const offer = () => this.inbox.offer(this.relationship, epoch, closedAt, disks, applicationConsistent);
    return offer().catch(async (error: unknown) => {
      const full = error instanceof UnderstudyError && error.code === 'REPLICA_STORAGE_FULL';
      if (full && (await this.watch?.makeRoom(error.message)) === true) return offer();
      throw error;
    });
  }

  async commit(epoch: number): Promise<void> {
    if (epoch <= this.relationship.lastReceivedEpoch) return;
    await this.inbox.commit(epoch, ({ disks }) => {
      const { relationship } = this;
      const bytes = disks.reduce((sum, { size }) => sum + size, 0);
      this.#ports.relationships.update(this.vmId, {
        lastReceivedEpoch: epoch, lastReplicationTime: this.#clock.now(), wantedAgain: null,
        transferred: { ...this.arrived.taken(), logBytes: relationship.transferred.logBytes + bytes },
      });
      this.#ports.relationships.count(this.vmId,
        { outcome: 'success', bytes, latencyMs: Math.max(0, this.#clock.now() - this.#closedAt(epoch)) });
    });
    this.wake();
  }

  /** Takes up a run of initial replication. What an earlier one has left is dropped. */
  async beginInitial(token: string, method: InitialReplication['method'], firstEpoch: number): Promise<Record<string, number>> {
    // A repeat from before the primary has heard that this run is complete.
    if (this.relationship.initial === null && this.relationship.baselineId === token) return {};
    this.refuseWhileServed('an initial copy');
    if (this.relationship.initial?.token !== token) await this.inbox.clear();
    return this.initial.begin(token, method, firstEpoch);
  }

  /** The copy is whole: it becomes the baseline, named by the token of its run; the logs that came meanwhile belong to it. */
  async completeInitial(token: string, consistentFrom: number): Promise<void> {
    if (this.relationship.initial === null && this.relationship.baselineId === token) return;
    const baseline = await this.#newBaseline(token, consistentFrom);
    await this.forgetPoints('a new initial copy is their baseline', () => {
      this.watch?.changed('the replica has a new initial copy', { known: false });
      this.#ports.relationships.happened(this.vmId, { kind: 'initial-finished', reason: 'the initial copy is complete' }, baseline);
    });
    this.wake();
  }

  /** As `completeInitial`, for a copy that the user has brought. */
  async completeImport(token: string, consistentFrom: number): Promise<void> {
    const baseline = await this.#newBaseline(token, consistentFrom);
    await this.forgetPoints('an imported copy is their baseline', () => {
      this.watch?.changed('a copy was imported on the replica', { known: false });
      this.#ports.relationships.perform(this.vmId, 'import', baseline);
    });
    this.wake();
  }

  /** Gives the copy its place, durably; what is then to be recorded of it. */
  async #newBaseline(token: string, consistentFrom: number): Promise<Change> {
    await this.initial.finish(token);
    const appliedSeals = await this.#seals();
    const { firstEpoch } = this.relationship.initial!;
    return {
      baselineId: token, initial: null, required: null, lost: null, error: null, wantedAgain: null, applying: null,
      consistentFrom, lastAppliedLogs: {}, appliedSeals, lastAppliedEpoch: firstEpoch - 1, lastReplicationTime: this.#clock.now(),
    };
  }

  /** All recovery points go in one transaction with `change`: what they rest on is no longer there. */
  async forgetPoints(reason: string, change: () => void): Promise<void> {
    let removeFiles = async () => {};
    this.#ports.catalog.transaction(() => {
      const gone = this.points.deleteAll();
      ({ removeFiles } = gone);
      change();
      if (gone.deleted === 0) return;
      this.#ports.relationships.note(this.vmId,
        makeEvent(ACTIVITY_EVENTS.recoveryPointsDeleted, this.vm.name, { points: gone.deleted, reason }));
    });
    await removeFiles();
  }

  /** The primary has changed how many points are kept. */
  async historyChanged(): Promise<void> {
    await this.points.tidy();
  }

  answer(): AnsweredVm {
    const { relationship } = this;
    const extendedTookOver = this.watch?.tookOver() === true;
    const { state, baselineId, lastReceivedEpoch, lastAppliedEpoch, lastAppliedTime, wantedAgain, lost, error } = relationship;
    return {
      side: 'replica', generation: generationOf(relationship), ...(this.takingOver || extendedTookOver ? { takingOver: true as const } : {}),
      ...(extendedTookOver ? { extendedTookOver } : {}),
      vmId: this.vmId, known: true, baselineId: baselineId === '' ? null : baselineId, state,
      receivedEpoch: lastReceivedEpoch, appliedEpoch: lastAppliedEpoch, appliedTime: lastAppliedTime, inboxBytes: this.inbox.bytes(),
      wantedAgain, lost,
      failure: error === null ? null : { code: error.code, message: error.message.slice(0, 2000), remedy: error.remedy.slice(0, 2000) },
    };
  }

  /** Resolves when the epoch is applied, when something keeps it from being applied, or after `waitMs`. */
  async waitApplied(epoch: number, waitMs: number): Promise<void> {
    const deadline = this.#clock.monotonic() + waitMs;
    const timer = new AbortController();
    const waits = ({ lastAppliedEpoch, error, lost }: RelationshipRecord) => lastAppliedEpoch < epoch && error === null && lost === null;
    while (waits(this.relationship) && !this.#stop.signal.aborted) {
      const left = deadline - this.#clock.monotonic();
      if (left <= 0) break;
      const changed = new Promise<void>((resolve) => this.#waiting.push(resolve));
      await Promise.race([changed, this.#clock.sleep(left, timer.signal).catch(() => undefined)]);
    }
    timer.abort();
  }

  wake(): void {
    this.#wake.resolve();
  }

  /** Applies everything that can be applied (R16); what cannot counts as suspect for the resync that asks. */
  async drain(): Promise<void> {
    this.wake();
    while (this.#next() !== undefined && !this.#stop.signal.aborted && this.relationship.error === null) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    await this.#applying;
    const { applying } = this.relationship;
    if (applying === null) return;
    if (this.#ports.catalog.inbox.get(this.vmId, applying)?.status !== 'received') {
      // Its log is gone for good: no redo can end what was begun, only the compare that asks can.
      this.#ports.catalog.transaction(() => {
        this.#ports.relationships.update(this.vmId, { applying: null });
        this.watch?.changed(`epoch ${applying} was applied in part, and its log is lost`, { known: true });
      });
      return;
    }
    throw new UnderstudyError('io', 'REPLICA_BUSY', `epoch ${this.relationship.applying} is half applied on the replica`,
      this.relationship.error?.remedy ?? 'It is tried again by itself.');
  }

  /** Applies, oldest first, until what waits is as its caller wants it, or nothing more can be applied. */
  async applyUntil(enough: (waiting: InboxRecord[]) => boolean): Promise<void> {
    this.wake();
    while (!enough(this.inbox.waiting()) && this.#next() !== undefined && !this.#stop.signal.aborted && this.relationship.error === null) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** How the replica disks look now, for whoever has changed them with leave. */
  seals(): Promise<Record<string, SealRecord>> {
    return this.#seals();
  }

  /** Holds apply at the next log boundary until the returned function is called; resolves when none is running. */
  async pin(who: string): Promise<() => void> {
    this.#pins.add(who);
    await this.#applying;
    return () => {
      this.#pins.delete(who);
      this.wake();
    };
  }

  /**
   * As `pin`, but waits only `graceMs` for the end of a long set, then stops it at its next window. The base is then half-way between two
   * instants, and seen only through the logs or the undo logs; later the set is applied again from its start (R13).
   */
  async halt(who: string, graceMs: number): Promise<() => void> {
    this.#pins.add(who);
    const timer = new AbortController();
    if (graceMs > 0) await Promise.race([this.#applying, this.#clock.sleep(graceMs, timer.signal).catch(() => undefined)]);
    timer.abort();
    this.#halted.abort(new Error(`apply is halted for ${who}`));
    await this.#applying;
    return () => {
      this.#pins.delete(who);
      this.wake();
    };
  }

  /** What is served shows these disks and this inbox. @throws REPLICA_BUSY */
  refuseWhileServed(what: string): void {
    const { failover, testFailover } = this.relationship;
    if ((failover ?? testFailover ?? null) !== null) throw servedMeanwhile(this.vm.name, what, Boolean(testFailover));
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers<void>();
      const next = this.#next();
      if (next === undefined) {
        await this.#wake.promise;
        continue;
      }
      const halted = (this.#halted = new AbortController()).signal;
      const work = this.#applyOne(next, AbortSignal.any([signal, halted]));
      this.#applying = work.catch(() => undefined);
      let later = false;
      try {
        await work;
      } catch (error) {
        if (signal.aborted) return;
        if (!halted.aborted) later = await this.#failed(error).catch((cause: unknown) => this.#notRecorded(cause, signal));
      }
      this.#tellWaiting();
      if (later) await this.#untilRetry();
    }
  }

  /** The next link of the chain, when it may be applied now. */
  #next(): InboxRecord | undefined {
    const relationship = this.#ports.relationships.find(this.vmId);
    if (relationship === undefined || relationship.baselineId === '' || relationship.initial !== null) return undefined;
    if (relationship.lost !== null || relationship.wantedAgain !== null || this.#pins.size > 0) return undefined;
    if (relationship.state === 'FailedOverWaitingCompletion' || relationship.state === 'FailedOver') return undefined;
    if ((relationship.failover ?? relationship.testFailover ?? null) !== null) return undefined;
    // From the diff disk's making to the end of the merge the base belongs to the resync.
    if (relationship.resync !== null) return undefined;
    return this.#ports.catalog.inbox.list(this.vmId)
      .find(({ epoch, status }) => status === 'received' && epoch === relationship.lastAppliedEpoch + 1);
  }

  async #applyOne(record: InboxRecord, signal: AbortSignal): Promise<void> {
    const { relationships } = this.#ports;
    const defect = await defectOf(this.#ports, record, this.relationship, replicatedDisks(this.vm));
    if (defect !== null) return this.#refuseSet(record, defect);
    const lost = this.relationship.applying === null ? await this.#changedBehindOurBack() : null;
    if (lost !== null) return this.lose(7, lost);
    relationships.update(this.vmId, { applying: record.epoch });
    await this.watch?.beforeSet(record);
    await this.points.keepForSet(record, signal);
    await growForSet(this.#ports, this, record);
    const applied = await applySet(this.#ports, record, replicatedDisks(this.vm), signal);
    let removeFiles = async () => {};
    this.#ports.catalog.transaction(() => {
      relationships.update(this.vmId, {
        applying: null, lastAppliedEpoch: record.epoch, lastAppliedTime: record.closedAt, lastAppliedLogs: applied.logs,
        appliedSeals: applied.seals, error: null,
      });
      if (this.relationship.state === 'Error') {
        relationships.happened(this.vmId, { kind: 'primary-changed', state: 'Replicating', reason: 'the logs could be applied again' });
      }
      if (record.epoch >= this.relationship.consistentFrom) {
        this.points.afterApplied({ epoch: record.epoch, time: record.closedAt, applicationConsistent: record.applicationConsistent === true });
      }
      const [move, remove] = [this.watch?.applied(record), this.inbox.forget(record)];
      removeFiles = async () => {
        await move?.();
        await remove();
      };
      const bytes = record.disks.reduce((sum, { size }) => sum + size, 0);
      relationships.chart(this.vmId, { outcome: 'success', bytes, latencyMs: Math.max(0, this.#clock.now() - record.closedAt) });
    });
    await removeFiles();
    await this.points.tidy();
  }

  /**
   * A set that cannot be used. It is asked for again once; a second copy with the same fault means that nobody has a good
   * one.
   */
  async #refuseSet(record: InboxRecord, defect: { reason: string; again: boolean; code: string }): Promise<void> {
    const { relationships } = this.#ports;
    relationships.note(this.vmId,
      makeEvent(ACTIVITY_EVENTS.applyFailed, this.vm.name, { reason: defect.reason, code: defect.code }));
    if (!defect.again) {
      throw new UnderstudyError('io', defect.code, defect.reason, 'Check the disk sizes on both sides, then resume replication.');
    }
    const later = this.#ports.catalog.inbox.list(this.vmId).filter(({ epoch }) => epoch >= record.epoch);
    const removals = later.map((set) => this.inbox.forget(set));
    relationships.update(this.vmId, { wantedAgain: record.epoch, lastReceivedEpoch: record.epoch - 1 });
    for (const remove of removals) await remove();
  }

  /** Puts it on record; false when it may be tried again at once, as there is room again for what had none. */
  async #failed(error: unknown): Promise<boolean> {
    const { relationships } = this.#ports;
    const known = error instanceof UnderstudyError ? error
      : new UnderstudyError('io', errnoOf(error) ?? 'APPLY_FAILED', messageOf(error), 'Check the replica disk and its volume.');
    // What waits for the extended replica goes, then the points; not the replica.
    if (known.code === 'ENOSPC' && (await this.#makeRoom(known.message))) return false;
    const passing = isRecoverable(error);
    const before = this.relationship.error;
    const change = {
      error: { code: known.code, message: known.message, remedy: known.remedy, since: before?.since ?? this.#clock.now(),
        retryAt: passing ? this.#clock.now() + RETRY_MS : null, failures: (before?.failures ?? 0) + 1 },
    };
    relationships.note(this.vmId,
      makeEvent(ACTIVITY_EVENTS.applyIncomplete, this.vm.name, { reason: known.message, code: known.code }));
    if (passing) relationships.update(this.vmId, change);
    else relationships.happened(this.vmId, { kind: 'failed', code: known.code, reason: known.message }, change);
    return true;
  }

  /** A change of anything is a reason to try at once. */
  async #untilRetry(): Promise<void> {
    const timer = new AbortController();
    const woken = this.#wake.promise.then(() => timer.abort());
    await Promise.race([woken, this.#clock.sleep(RETRY_MS, timer.signal).catch(() => undefined)]);
    timer.abort();
  }

  /** Not even that could be put on record: the loop goes on, or nothing would ever be applied again. */
  async #notRecorded(cause: unknown, signal: AbortSignal): Promise<false> {
    this.#ports.log.error({ vm: this.vmId, error: messageOf(cause) }, 'a failure of applying cannot be put on record');
    await this.#clock.sleep(RETRY_MS, signal).catch(() => undefined);
    return false;
  }

  async #makeRoom(reason: string): Promise<boolean> {
    return (await this.watch?.makeRoom(reason)) === true || this.points.makeRoom(reason);
  }

  /** The replica is not what it was: from here the primary must resynchronize. */
  lose(trigger: 6 | 7, reason: string, change: Change = {}): void {
    const { relationships } = this.#ports;
    this.#ports.catalog.transaction(() => {
      // What older points show of the disk itself is no longer what it was.
      if (trigger === 7) {
        this.points.damaged(Number.MAX_SAFE_INTEGER, reason);
        this.watch?.changed(reason, { known: false });
      }
      relationships.update(this.vmId, { ...change, lost: { trigger, reason } });
      relationships.happened(this.vmId, { kind: 'primary-changed', state: 'WaitingForStartResynchronize', reason });
    });
    this.#tellWaiting();
  }

  /** False when somebody else has written to the disks meanwhile: then that is on record (trigger 7). Only while nothing is applied. */
  async stillOurs(): Promise<boolean> {
    const reason = await this.#changedBehindOurBack();
    if (reason !== null) this.lose(7, reason);
    return reason === null;
  }

  async #checkSeals(): Promise<void> {
    const relationship = this.#ports.relationships.find(this.vmId);
    if (relationship === undefined || relationship.baselineId === '' || relationship.lost !== null) return;
    // Half-way through an apply or a merge the disks are as nobody has recorded them; both are redone.
    if (relationship.initial !== null || relationship.applying !== null || relationship.resync?.phase === 'merging') return;
    // The disk takes in what the guest wrote since a completed failover.
    if ((relationship.failover?.settling ?? null) !== null) return;
    const reason = await this.#changedBehindOurBack();
    if (reason !== null) this.lose(7, reason);
  }

  async #changedBehindOurBack(): Promise<string | null> {
    const before = this.relationship.appliedSeals;
    let now: Record<string, SealRecord>;
    try {
      now = await this.#seals();
    } catch (error) {
      // Gone, or another format: our own writing leaves neither, whatever stops it.
      if (error instanceof UnderstudyError && ['DISK_NOT_FOUND', 'DISK_MALFORMED'].includes(error.code)) return error.message;
      throw error;
    }
    for (const { diskId, path } of replicatedDisks(this.vm)) {
      const [old, seen] = [before[diskId], now[diskId]];
      if (old === undefined || seen === undefined || seen.kind === 'none') continue;
      if (old.kind === seen.kind && changedMarks(old, seen).length === 0) continue;
      const sizes = old.size === seen.size ? '' : `: it has ${String(seen.size)} bytes, it was left with ${String(old.size)}`;
      return `replica disk ${path} was changed, replaced or restored behind our back${sizes}`;
    }
    return null;
  }

  async #seals(): Promise<Record<string, SealRecord>> {
    const seals: Record<string, SealRecord> = {};
    for (const record of replicatedDisks(this.vm)) {
      const disk = await this.#ports.openDiskForReading(record);
      seals[record.diskId] = await disk.seal();
      await disk.close();
    }
    return seals;
  }

  #checkBaseline(relationship: RelationshipRecord, baselineId: string): void {
    const { initial, resync } = relationship;
    // A copy or a compare that is under way names the baseline it will be; once a merge is on record it is that.
    const expected = initial?.token ?? (resync !== null && resync.phase !== 'merging' ? resync.token : relationship.baselineId);
    if (baselineId === expected) return;
    throw new UnderstudyError('state', 'BASELINE_MISMATCH',
      `a log for baseline ${baselineId}, the replica holds ${expected === '' ? 'none' : expected}`,
      'Resynchronize the VM: understudy resume NAME --resynchronize');
  }

  #closedAt(epoch: number): number {
    return this.#ports.catalog.inbox.get(this.vmId, epoch)?.closedAt ?? this.#clock.now();
  }

  #tellWaiting(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
