/**
 * Drives resynchronizations on the primary: when they start, the seven steps of design §7, and what an interruption means.
 *
 * Invariants
 * - Every step can be repeated: the record names the step, the token and each disk's cursor, and all of it is durable before the
 *   next step. A crash, a lost link or a pause continues there.
 * - Nothing is compared before every write accepted before the step-2 log is on disk (R17; `TrackedVm.begin` sees to it).
 * - The bits of the change map stay until the merge is on record on the replica (R9): they are pinned from `begin` on.
 * - What comes back from a wait changes the record of its own run only: meanwhile the user may have cancelled or begun anew (R18).
 */
import { isRecoverable, retryDelayMs } from '../model/backoff.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { BLOCK_BYTES } from '../model/limits.ts';
import { replicatedDisks, type InitialReplication, type RelationshipRecord, type ResyncDisk, type ResyncRecord } from '../model/records.ts';
import { keepsOlderPoints, mayOverwriteNewer } from '../model/resync-trigger.ts';
import { nextAutomaticStart } from '../model/schedule.ts';
import { hasLostItsReplica } from '../replication/failed-attempt.ts';
import type { CopyOptions, CopyProgress } from '../replication/initial-sender.ts';
import { initialBeginMessage } from '../replication/messages.ts';
import type { AnySendingVm, ResyncDriver } from '../replication/sending-vm.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import type { CompareProgress } from './compare/options.ts';
import { runSource } from './compare/source.ts';
import { checkCharacteristics, planOf, type Plan } from './ladder.ts';
import {
  characteristicsMessage, existingCompareMessage, resyncBeginMessage, resyncCancelMessage, resyncCompareMessage, resyncMergeMessage, resyncProgressMessage,
} from './messages.ts';
import { DiskMap } from './disk-map.ts';
import { Pacer } from './pacer.ts';
import type { ResyncQueue } from './resync-queue.ts';

const STEP_TIMEOUT_MS = 600_000;
const MERGE_POLL_MS = 10_000;
/** For new logs to be made: longer than that their volume hangs. */
const BEGIN_WAIT_MS = 30_000;

/** What moves too fast for the catalog. */
export interface LiveProgress {
  token: string;
  disks: Map<string, CompareProgress>;
  maps: Map<string, DiskMap>;
  startedAt: number;
  /** Bytes compared when this stretch began; for the rate. */
  baseBytes: number;
  mergedBytes: number;
  mergeTotalBytes: number;
}

export class PrimaryResync implements ResyncDriver {
  readonly queue: ResyncQueue;
  readonly live = new Map<string, LiveProgress>();
  #zone: string;
  #checkpointBytes: { compared: number; mended: number } | undefined;

  /** `checkpointBytes`: how far apart the durable cursors are; default: that of the compare engine. Small in the simulation. */
  constructor(queue: ResyncQueue, zone: string, options: { checkpointBytes?: { compared: number; mended: number } } = {}) {
    this.queue = queue;
    this.#zone = zone;
    this.#checkpointBytes = options.checkpointBytes;
  }

  async step(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { state, error } = primary.relationship;
    await this.#dropAbandoned(primary, signal);
    if (state === 'WaitingForStartResynchronize') return this.#awaitStart(primary, signal);
    const retryAt = error?.retryAt ?? null;
    if (retryAt !== null && retryAt > primary.ports.clock.now()) {
      await primary.watchLogs(retryAt - primary.ports.clock.now(), signal);
      if (signal.aborted || retryAt > primary.ports.clock.now()) return;
    }
    await this.#inTurn(primary, signal, () => this.#run(primary, signal));
  }

  /** When the pending resync of this VM will start by itself; null when only a person starts it. */
  startOf(relationship: RelationshipRecord, now: number): number | null {
    const { required, settings, tookOver = null } = relationship;
    // Nothing is sent to a host that has taken over: after its failover has been cancelled this starts as it would have (R21).
    if (required === null || tookOver !== null) return null;
    if (required.startAt !== null) return required.startAt;
    if (required.held === true || mayOverwriteNewer(required)) return null;
    return nextAutomaticStart(settings.autoResync, now, this.#zone);
  }

  /** What would be done now. Asks the replica how its disks look. */
  async plan(primary: AnySendingVm, signal: AbortSignal): Promise<Plan> {
    const { vm, relationship } = primary;
    const disks = replicatedDisks(vm);
    const { result } = await primary.link().call(characteristicsMessage, { vmId: vm.vmId }, undefined, { signal });
    checkCharacteristics(vm.name, disks, result.disks);
    const missing = new Set(result.disks.filter((disk) => disk.missing).map(({ diskId }) => diskId));
    const tracked = await primary.hold('resync-plan');
    try {
      return planOf(relationship.required ?? { trigger: 8 }, disks, tracked.suspects(), missing);
    } finally {
      await primary.letGo('resync-plan');
    }
  }

  async mendExisting(primary: AnySendingVm, initial: InitialReplication, options: CopyOptions): Promise<CopyProgress> {
    const { ports, vmId, vm } = primary;
    const { token, method, firstEpoch } = initial;
    const { signal } = options;
    await primary.link().call(initialBeginMessage, { vmId, token, method, firstEpoch }, undefined, { signal });
    const disks = replicatedDisks(vm);
    const { result } = await primary.link().call(characteristicsMessage, { vmId }, undefined, { signal });
    checkCharacteristics(vm.name, disks, result.disks);
    const total: CopyProgress = { doneBytes: 0, totalBytes: disks.reduce((sum, { virtualSize }) => sum + virtualSize, 0), sentBytes: 0, wireBytes: 0 };
    for (const { diskId, virtualSize } of disks) {
      const before = { ...total };
      const stream = await primary.link().stream(existingCompareMessage, { vmId, token, diskId }, { signal });
      const tracked = primary.tracked!.disk(diskId);
      const pacer = new Pacer(ports, () => primary.relationship.settings.resyncShare, tracked, signal);
      const done = await runSource(new StreamChannel(stream, stream, ports.compute), {
        disk: tracked.disk, mode: 'mend', compute: ports.compute, session: { token, phase: 'initial' }, signal,
        pace: (bytes) => pacer.read(bytes), readRate: () => pacer.readRate, paceWire: (bytes) => pacer.sent(bytes), othersWait: () => pacer.isGuestAtWork,
        onProgress: ({ comparedBytes, sentBytes, wireBytes }) => options.progress({ ...total,
          doneBytes: before.doneBytes + comparedBytes, sentBytes: before.sentBytes + sentBytes, wireBytes: before.wireBytes + wireBytes }),
      });
      total.doneBytes += virtualSize;
      total.sentBytes += done.sentBytes;
      total.wireBytes += done.wireBytes;
    }
    return total;
  }

  async #awaitStart(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, relationship } = primary;
    const now = ports.clock.now();
    const startAt = this.startOf(relationship, now);
    if (startAt === null || startAt > now) {
      await primary.report(signal).catch(() => undefined);
      const nextLook = relationship.settings.frequencySec * 1000;
      return void (await primary.pause(startAt === null ? nextLook : Math.min(nextLook, startAt - now), signal));
    }
    await this.#inTurn(primary, signal, async () => {
      const { required } = primary.relationship;
      if (required === null || primary.relationship.state !== 'WaitingForStartResynchronize') return;
      const resync = newRun(primary, required.trigger, required.reason);
      ports.relationships.happened(vmId, { kind: 'resync-started', rung: required.rung, reason: required.reason }, { resync, error: null });
      await this.#run(primary, signal);
    });
  }

  async #inTurn(primary: AnySendingVm, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    const { ports, vmId, vm, relationship } = primary;
    if (this.queue.running.length > 0 && !this.queue.running.includes(vmId)) {
      const running = this.queue.running.map((other) => ports.relationships.vm(other).name);
      ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.resyncQueued, vm.name, { position: this.queue.waiting.length + 1, running }));
    }
    const leave = await this.#watched(primary, signal, (both) => this.queue.enter(vmId, relationship.settings.resyncPriority, both));
    try {
      await work();
    } finally {
      leave();
    }
  }

  /** The logs may outgrow their limit meanwhile: while a run waits for its turn just as while it runs. */
  async #watched<T>(primary: AnySendingVm, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    const watch = this.#watchLogs(primary, both);
    try {
      return await work(both);
    } finally {
      stop.abort();
      await watch;
    }
  }

  /** One attempt, from wherever the record says. Interruptions keep the state; what cannot heal changes it. */
  async #run(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, vm } = primary;
    try {
      await this.#watched(primary, signal, (both) => this.#steps(primary, both));
    } catch (error) {
      if (signal.aborted || primary.relationship.state !== 'Resynchronizing') throw error;
      const known = error instanceof UnderstudyError ? error : new UnderstudyError('io', 'RESYNC_FAILED', messageOf(error), 'See the log.', { cause: error });
      // It starts by itself when the failover has been cancelled, as it would have (R21): it is not held.
      if (await hasLostItsReplica(primary, known, signal)) {
        primary.tracked?.goMapOnly();
        return await this.#dropAbandoned(primary, signal);
      }
      if (primary.relationship.state !== 'Resynchronizing') throw error;
      const failures = (primary.relationship.error?.failures ?? 0) + 1;
      if (known.code === 'REPLICA_CHANGED') return primary.require({ trigger: 7, reason: known.message });
      const now = ports.clock.now();
      const change = (retryAt: number | null) => ({ error: { code: known.code, message: known.message, remedy: known.remedy,
        since: primary.relationship.error?.since ?? now, retryAt, failures } });
      const facts = { reason: known.message, code: known.code };
      if (!isRecoverable(known) && known.code !== 'STALE_TOKEN') {
        const required = { ...primary.relationship.required!, held: true, startAt: null };
        const { resync } = primary.relationship;
        ports.relationships.happened(vmId, { kind: 'resync-failed', ...facts, resumable: false }, { ...change(null), required, resync: null,
          ...(resync === null ? {} : { abandoned: resync.token }) });
        // Required again: only the map goes on, as before it had begun.
        primary.tracked?.goMapOnly();
        return;
      }
      const delayMs = retryDelayMs(failures, primary.relationship.settings.frequencySec);
      const resync = known.code === 'STALE_TOKEN' ? freshCursors(primary) : primary.relationship.resync;
      ports.relationships.update(vmId, { ...change(now + delayMs), resync });
      ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.resyncInterrupted, vm.name, { ...facts, delaySeconds: Math.round(delayMs / 1000) }));
    } finally {
      this.live.delete(vmId);
    }
  }

  async #watchLogs(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await primary.watchLogs(60_000, signal).catch((error: unknown) => primary.ports.log.warn({ error: messageOf(error) }, 'the logs cannot be watched'));
      // A wake-up stays until the VM's loop looks again, which is after this run: without a pause this would never yield.
      await primary.ports.clock.sleep(1000, signal).catch(() => undefined);
    }
  }

  async #steps(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const tracked = await primary.hold('resync');
    try {
      const unbroken = () => primary.relationship.resync!.firstEpoch > 0 && tracked.logging;
      if (!unbroken()) await this.#track(primary, signal);
      if (primary.relationship.resync!.phase === 'comparing') await this.#compare(primary, signal);
      if (primary.relationship.resync!.phase === 'completing') await this.#complete(primary, signal);
      await this.#awaitMerge(primary, signal);
    } finally {
      await primary.letGo('resync');
    }
  }

  /** Steps 1 to 3: characteristics, tracking from here on, diff disks. */
  async #track(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, vm } = primary;
    const { token } = primary.relationship.resync!;
    const plan = await this.plan(primary, signal);
    runOf(primary, token);
    const tracked = primary.tracked!;
    const firstEpoch = await begun(primary, signal);
    if (primary.relationship.resync?.token !== token) tracked.goMapOnly();
    const { required } = primary.relationship;
    ports.relationships.update(vmId, {
      required: required === null ? null : { ...required, rung: plan.rung },
      resync: { ...runOf(primary, token), phase: 'comparing', rung: plan.rung, reason: plan.reason, firstEpoch,
        disks: disksOf(plan, new Map(vm.disks.map((disk) => [disk.diskId, disk.virtualSize]))) },
    });
    await primary.link().call(resyncBeginMessage, { vmId, token, rung: plan.rung, reason: plan.reason, firstEpoch }, undefined,
      { signal, timeoutMs: STEP_TIMEOUT_MS });
    const disks = replicatedDisks(vm).map(({ diskId, path }) => rangeEvent(path, plan.ranges.get(diskId) ?? []));
    ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.compareStarted, vm.name, { disks }));
  }

  /** Step 4. */
  async #compare(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, vm } = primary;
    const { token, rung, reason, firstEpoch } = primary.relationship.resync!;
    await primary.link().call(resyncBeginMessage, { vmId, token, rung, reason, firstEpoch }, undefined, { signal, timeoutMs: STEP_TIMEOUT_MS });
    const startedAt = ports.clock.now();
    const compared = Object.values(primary.relationship.resync!.disks).reduce((sum, disk) => sum + disk.comparedBytes, 0);
    this.live.set(vmId, { token, disks: new Map(), maps: new Map(), startedAt, baseBytes: compared, mergedBytes: 0, mergeTotalBytes: 0 });
    for (const { diskId } of replicatedDisks(vm)) {
      if (!primary.relationship.resync!.disks[diskId]!.compared) await this.#compareDisk(primary, diskId, signal);
    }
    const resync = runOf(primary, token);
    const seconds = Math.round((ports.clock.now() - resync.startedAt) / 1000);
    const disks = replicatedDisks(vm).map(({ diskId, path }) =>
      ({ path, blocksSent: Math.ceil(resync.disks[diskId]!.sentBytes / BLOCK_BYTES) }));
    ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.compareFinished, vm.name, { disks, seconds, result: 'success' }));
    ports.relationships.update(vmId, { resync: { ...resync, phase: 'completing' } });
  }

  async #compareDisk(primary: AnySendingVm, diskId: string, signal: AbortSignal): Promise<void> {
    const { ports, vmId, relationship } = primary;
    const { token, rung, disks } = relationship.resync!;
    const before = disks[diskId]!;
    const tracked = primary.tracked!.disk(diskId);
    const suspects = rung === 'suspect-regions' ? primary.tracked!.suspects() : null;
    if (rung === 'suspect-regions' && suspects === null) {
      throw new UnderstudyError('io', 'STALE_TOKEN', 'the change map was lost during the resynchronization', 'It starts over by itself.');
    }
    const pacer = new Pacer(ports, () => primary.relationship.settings.resyncShare, tracked, signal);
    const stream = await primary.link().stream(resyncCompareMessage, { vmId, token, diskId, fresh: before.cursor === 0 }, { signal });
    const channel = new StreamChannel(stream, stream, ports.compute);
    let latest = { comparedBytes: 0, differingBytes: 0, sentBytes: 0, wireBytes: 0 };
    const told = { pages: 0, wire: 0 };
    /** The counters never forget a stretch that was cut: they are on record with each cursor, and with the end, however it comes. */
    const transferred = () => {
      const { transferred: before } = primary.relationship;
      const more = { pages: latest.sentBytes - told.pages, wire: channel.sentBytes - told.wire };
      Object.assign(told, { pages: latest.sentBytes, wire: channel.sentBytes });
      return { ...before, resyncBytes: before.resyncBytes + more.pages, wireBytes: before.wireBytes + more.wire };
    };
    const withDisk = (resync: ResyncRecord, change: Partial<ResyncDisk>): ResyncRecord =>
      ({ ...resync, disks: { ...resync.disks, [diskId]: { ...resync.disks[diskId]!, ...change } } });
    const keep = (change: Partial<ResyncDisk>) => {
      // It has come further: what failed before has passed, and the next failure is the first one again.
      ports.relationships.update(vmId, { error: null, transferred: transferred(), resync: withDisk(runOf(primary, token), change) });
    };
    const counted = (progress: { comparedBytes: number; differingBytes: number; sentBytes: number; wireBytes: number }) => ({
      comparedBytes: before.comparedBytes + progress.comparedBytes, differingBytes: before.differingBytes + progress.differingBytes,
      sentBytes: before.sentBytes + progress.sentBytes, wireBytes: before.wireBytes + progress.wireBytes });
    /** After the last cursor: what is found equal next time need not be sent again, so it counts now. */
    const keepSent = () => {
      const record = ports.relationships.find(vmId);
      if (record === undefined) return;
      const { sentBytes, wireBytes } = counted(latest);
      const isOurs = record.resync?.token === token;
      ports.relationships.update(vmId, { transferred: transferred(),
        ...(isOurs && { resync: withDisk(record.resync!, { sentBytes, wireBytes }) }) });
    };
    const ranges = suspects?.get(diskId) ?? [{ offset: 0, length: tracked.disk.virtualSize }];
    const map = new DiskMap(tracked.disk.virtualSize, ranges, before.map === undefined ? null : { text: before.map, cursor: before.cursor });
    this.live.get(vmId)?.maps.set(diskId, map);
    const result = await runSource(channel, {
      disk: tracked.disk, mode: 'mend', compute: ports.compute, session: { token, phase: 'comparing' }, signal, cursor: before.cursor,
      ...(suspects === null ? {} : { ranges: suspects.get(diskId)! }),
      ...(this.#checkpointBytes && { checkpointBytes: this.#checkpointBytes }),
      pace: (bytes) => pacer.read(bytes), readRate: () => pacer.readRate, paceWire: (bytes) => pacer.sent(bytes), othersWait: () => pacer.isGuestAtWork,
      onCursor: (cursor, bytes) => keep({ ...counted({ ...latest, comparedBytes: bytes }), cursor, map: String(map) }),
      onDecided: (decision, range) => map.decided(decision, range),
      onProgress: (progress) => {
        latest = progress;
        this.live.get(vmId)?.disks.set(diskId, { ...progress, ...counted(progress) });
      },
    }).catch((error: unknown) => {
      try {
        keepSent();
      } catch (unwritten) {
        ports.log.debug({ error: messageOf(unwritten) }, 'what was sent is not on record');
      }
      throw error;
    });
    latest = result;
    keep({ ...counted(result), cursor: tracked.disk.virtualSize, compared: true, map: String(map) });
  }

  /** Steps 5 and 6: one log switch makes what will be merged one instant; then the merge is on record. */
  async #complete(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId } = primary;
    const { token, throughEpoch: known } = primary.relationship.resync!;
    if (known === null) await primary.tracked!.switchLog();
    const throughEpoch = known ?? primary.outbox.newestClosed();
    ports.relationships.update(vmId, { resync: { ...runOf(primary, token), throughEpoch } });
    await primary.ship(signal);
    const keepPoints = keepsOlderPoints(primary.relationship.settings, runOf(primary, token).trigger);
    await primary.link().call(resyncMergeMessage, { vmId, token, throughEpoch, keepPoints }, undefined, { signal, timeoutMs: STEP_TIMEOUT_MS });
    const resync = runOf(primary, token);
    const disks = Object.entries(resync.disks).map(([diskId, { sentBytes }]) =>
      ({ path: primary.vm.disks.find((disk) => disk.diskId === diskId)!.path, bytes: sentBytes }));
    ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.mergeStarted, primary.vm.name, { disks }));
    ports.relationships.update(vmId, {
      baselineId: token, lastAppliedEpoch: throughEpoch, consistentFrom: throughEpoch, mapTrusted: true,
      resync: { ...resync, phase: 'merging' },
    });
  }

  /** Until the replica has merged. From here on the old suspects are repaired (R9). */
  async #awaitMerge(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, vm } = primary;
    const { token, startedAt } = primary.relationship.resync!;
    for (;;) {
      const { result } = await primary.link().call(resyncProgressMessage, { vmId, waitMs: MERGE_POLL_MS }, undefined, { signal, timeoutMs: 60_000 });
      const live = this.live.get(vmId);
      if (live !== undefined) Object.assign(live, { mergedBytes: result.mergedBytes, mergeTotalBytes: result.totalBytes });
      if (result.token !== token && result.baselineId === token) break;
      this.#tellOfMerge(primary, token, result.failure);
      if (result.token !== token) throw new UnderstudyError('state', 'STALE_TOKEN', 'the replica lost this resynchronization', 'It starts over by itself.');
      signal.throwIfAborted();
    }
    await primary.tracked!.repaired();
    runOf(primary, token);
    const seconds = Math.round((ports.clock.now() - startedAt) / 1000);
    ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.mergeFinished, vm.name, { deletedPoints: 0, seconds }));
    ports.relationships.happened(vmId, { kind: 'resync-finished', reason: 'the replica disks are merged' },
      { resync: null, required: null, error: null });
    await primary.report(signal);
  }

  /** A merge that cannot go on, by the replica's own word: shown until it does. */
  #tellOfMerge(primary: AnySendingVm, token: string, failure: string | null): void {
    const { ports, vmId, relationship } = primary;
    runOf(primary, token);
    if ((relationship.error?.message ?? null) === failure) return;
    const now = ports.clock.now();
    ports.relationships.update(vmId, { error: failure === null ? null : { code: 'MERGE_DELAYED', message: failure,
      remedy: 'Correct the cause on the replica host; the merge is tried again by itself.', since: now, retryAt: null, failures: 1 } });
  }

  /** A run that was cancelled or became void: its diff disks on the replica go as soon as the replica can be reached. */
  async #dropAbandoned(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
    const abandoned = primary.relationship.abandoned ?? null;
    if (abandoned === null) return;
    try {
      await primary.link().call(resyncCancelMessage, { vmId: primary.vmId, token: abandoned }, undefined, { signal });
      primary.ports.relationships.update(primary.vmId, { abandoned: null });
    } catch (error) {
      primary.ports.log.debug({ error: messageOf(error) }, 'the replica could not be told of a cancelled resynchronization yet');
    }
  }
}

/** Fresh logs, within a bounded time: a log volume that hangs ends the run. Logs that come later than that are not kept. */
async function begun(primary: AnySendingVm, signal: AbortSignal): Promise<number> {
  const tracked = primary.tracked!;
  const timer = new AbortController();
  const late = primary.ports.clock.sleep(BEGIN_WAIT_MS, AbortSignal.any([timer.signal, signal])).then(() => null);
  const begins = tracked.begin({ keepMap: true });
  late.catch(() => undefined);
  try {
    const epoch = await Promise.race([begins, late]);
    if (epoch !== null) return epoch;
  } catch (error) {
    begins.then(() => tracked.goMapOnly(), () => undefined);
    throw error;
  } finally {
    timer.abort();
  }
  begins.then(() => tracked.goMapOnly(), () => undefined);
  throw new UnderstudyError('state', 'LOG_VOLUME_HANGS',
    `the volume of the tracking logs of VM '${primary.vm.name}' has not answered for ${BEGIN_WAIT_MS / 1000} s`,
    'Mend the volume, then resume; or let the logs go elsewhere: vm add --log-dir.');
}

/** The record of this run; throws when the user has cancelled it or begun anew while something was waited for. */
function runOf(primary: AnySendingVm, token: string): ResyncRecord {
  const { resync } = primary.relationship;
  if (resync?.token === token) return resync;
  throw new UnderstudyError('state', 'RESYNC_FENCED', 'this resynchronization was cancelled or replaced meanwhile', 'See its status.');
}

function newRun(primary: AnySendingVm, trigger: ResyncRecord['trigger'], reason: string): ResyncRecord {
  return { token: primary.ports.random.uuid(), phase: 'characteristics', rung: 'full-compare', trigger, reason,
    startedAt: primary.ports.clock.now(), firstEpoch: 0, throughEpoch: null, disks: {} };
}

/** Starts over with a new token, still in the same state. */
const freshCursors = (primary: AnySendingVm): ResyncRecord =>
  newRun(primary, primary.relationship.required?.trigger ?? 8, primary.relationship.required?.reason ?? 'it starts over');

function disksOf(plan: Plan, sizes: ReadonlyMap<string, number>): Record<string, ResyncDisk> {
  return Object.fromEntries([...plan.ranges].map(([diskId, ranges]) => [diskId, {
    totalBytes: ranges.reduce((sum, { length }) => sum + length, 0), cursor: 0, compared: false, comparedBytes: 0, differingBytes: 0,
    sentBytes: 0, wireBytes: 0, map: String(new DiskMap(sizes.get(diskId) ?? 0, ranges, null)) }]));
}

/** Blocks of 4096 bytes, both ends inside. */
function rangeEvent(path: string, ranges: { offset: number; length: number }[]) {
  const first = ranges[0];
  const last = ranges.at(-1);
  return { path, ranges: ranges.length, startBlock: first === undefined ? 0 : Math.floor(first.offset / BLOCK_BYTES),
    endBlock: last === undefined ? 0 : Math.floor((last.offset + last.length - 1) / BLOCK_BYTES) };
}
