/**
 * The replica's part in a resynchronization: diff disks over its disks, the compare's target, and the merge.
 *
 * Invariants
 * - From `begin` to the end of the merge nothing but the merge writes to a base: until the merge is on record every base is the
 *   consistent point that it was (promise 3).
 * - Only the current token writes (R18). A begin with another token drops the diff disks of the one before.
 * - At most one thing is done with the diff disks of a VM at a time: each opening has a map of its own in memory, and two would
 *   undo each other's bits. A newer message of the primary ends what an older one, whose link may be dead, still does.
 * - What a run has put into its diff disks is never silently replaced by an empty one: the run starts over instead.
 * - One transaction starts the merge (R19): from then on base + diff is the replica, whatever stops us (replica-merge.ts).
 */
import type { Duplex } from 'node:stream';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord, type InboxRecord, type RelationshipRecord, type ResyncRecord } from '../model/records.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import { applySet, defectOf } from '../replication/apply.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { ReplicaMerge } from './replica-merge.ts';
import { refuse } from './compare/conversation.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import { runTarget } from './compare/target.ts';
import { removeDiffDisk } from '../disk/diff-disk.ts';
import { diffPath, heldRanges, openOverlay, sweepDiffDisks } from './diff-files.ts';
import {
  characteristicsMessage, existingCompareMessage, resyncBeginMessage, resyncCancelMessage, resyncCompareMessage, resyncMergeMessage, resyncProgressMessage,
  verifyCompareMessage, verifyHoldMessage,
} from './messages.ts';

/** A window of a verify takes minutes. Longer than that its primary is gone, or is to try a smaller one: apply does not wait for it. */
const HOLD_MS = 1_800_000;

/** What is being done with a VM's diff disks. */
interface Work {
  kind: string;
  stop: AbortController;
  result: Promise<unknown>;
  /** As `result`, but never rejects. */
  done: Promise<void>;
}

export class ReplicaResync {
  #ports: ReplicationPorts;
  #host: ReplicaHost;
  #merges: ReplicaMerge;
  #work = new Map<string, Work>();
  #stop = new AbortController();
  /** Verifies that keep a replica at one epoch, by token. */
  #holds = new Map<string, AbortController>();

  readonly #holdMs: number;

  /** `holdMs`: how long a verify may hold apply back at most; shorter in the simulation. */
  constructor(ports: ReplicationPorts, host: ReplicaHost, { holdMs = HOLD_MS } = {}) {
    this.#holdMs = holdMs;
    this.#ports = ports;
    this.#host = host;
    this.#merges = new ReplicaMerge(ports, host);
  }

  /** Goes on with merges that a stop or crash has interrupted, and removes what one has left behind. */
  async start(): Promise<void> {
    for (const relationship of this.#ports.catalog.relationships.list()) {
      const { vmId, side, resync } = relationship;
      if (side !== 'replica') continue;
      await sweepDiffDisks(this.#ports, this.#ports.relationships.vm(vmId), relationship);
      if (resync?.phase === 'merging') this.#merges.start(vmId);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    await Promise.all([...this.#work.values()].map(({ done }) => done));
    await this.#merges.close();
  }

  serve(dispatcher: PeerDispatcher): void {
    const host = this.#host;
    dispatcher.handle(characteristicsMessage, async (caller, { vmId }) => {
      host.of(caller, vmId);
      return { result: { disks: await this.#characteristics(vmId) } };
    });
    dispatcher.handle(resyncBeginMessage, async (caller, { vmId, ...params }) => {
      const vm = host.of(caller, vmId);
      await this.#alone(vm, 'begin', () => this.#begin(vm, params));
      return { result: {} };
    });
    dispatcher.handleStream(resyncCompareMessage, async (caller, { vmId, token, diskId, fresh }, stream) => {
      const vm = host.of(caller, vmId);
      await this.#over(vm, stream, (channel) =>
        this.#alone(vm, 'compare', (signal) => this.#compare(vm, { token, diskId, fresh }, channel, signal)));
    });
    dispatcher.handleStream(existingCompareMessage, async (caller, { vmId, token, diskId }, stream) => {
      const vm = host.of(caller, vmId);
      await this.#over(vm, stream, (channel) => this.#mendExisting(vm, token, diskId, channel));
    });
    dispatcher.handle(verifyHoldMessage, async (caller, { vmId, token, epoch, hold }) => {
      const vm = host.of(caller, vmId);
      if (hold) await this.#holdAt(vm, token, epoch);
      else this.#holds.get(token)?.abort(busy('the hold of this verify has ended'));
      return { result: {} };
    });
    dispatcher.handleStream(verifyCompareMessage, async (caller, { vmId, token, diskId }, stream) => {
      const vm = host.of(caller, vmId);
      await this.#over(vm, stream, (channel) => this.#verify(vm, token, diskId, channel));
    });
    dispatcher.handle(resyncMergeMessage, async (caller, { vmId, token, throughEpoch, keepPoints }) => {
      await this.#merge(host.of(caller, vmId), token, throughEpoch, keepPoints === true);
      return { result: {} };
    });
    dispatcher.handle(resyncProgressMessage, async (caller, { vmId, waitMs }) => {
      const vm = host.of(caller, vmId);
      const merge = this.#merges.of(vmId);
      if (merge !== undefined && waitMs > 0) {
        const timer = new AbortController();
        await Promise.race([merge.done, this.#ports.clock.sleep(waitMs, timer.signal).catch(() => undefined)]);
        timer.abort();
      }
      const { resync, baselineId } = vm.relationship;
      return { result: {
        token: resync?.token ?? null, phase: resync === null ? null : resync.phase === 'merging' ? 'merging' : 'comparing',
        mergedBytes: merge?.mergedBytes ?? 0, totalBytes: merge?.totalBytes ?? 0, baselineId: baselineId === '' ? null : baselineId,
        failure: merge?.failure ?? null,
      } };
    });
    dispatcher.handle(resyncCancelMessage, async (caller, { vmId, token }) => {
      await this.cancel(host.of(caller, vmId), token);
      return { result: {} };
    });
  }

  /** A refusal before the compare has begun goes to the primary as one of the compare does: it must not look like a lost link. */
  async #over(vm: ReplicaVm, stream: Duplex, work: (channel: StreamChannel) => Promise<void>): Promise<void> {
    const channel = new StreamChannel(stream, stream, this.#ports.compute);
    try {
      await work(channel);
    } catch (error) {
      await refuse(channel, error as Error);
      throw error;
    } finally {
      vm.arrived.add(channel.receivedBytes);
      vm.arrived.keep();
    }
  }

  /** Drops a run that has not reached its merge; the base is as it was. A run that is not there is no error. */
  async cancel(vm: ReplicaVm, token: string | null): Promise<void> {
    const { resync } = vm.relationship;
    if (resync === null || (token !== null && resync.token !== token)) return;
    if (resync.phase === 'merging') {
      throw new UnderstudyError('state', 'MERGE_HAS_BEGUN', `the resynchronized data of VM '${vm.vm.name}' is being merged`,
        'Wait until the merge is done.');
    }
    await this.#alone(vm, 'cancel', () => this.#drop(vm, resync.token));
  }

  async #drop(vm: ReplicaVm, token: string): Promise<void> {
    const { resync } = vm.relationship;
    if (resync?.token !== token || resync.phase === 'merging') return;
    // The logs of step 2 belong to the diff disks; over the base they would make a mixture.
    const removals: (() => Promise<void>)[] = [];
    this.#ports.catalog.transaction(() => {
      this.#ports.relationships.update(vm.vmId, { resync: null, lost: vm.relationship.lost ?? resync.lost ?? null });
      for (const set of this.#ports.catalog.inbox.list(vm.vmId)) removals.push(vm.inbox.forget(set));
    });
    for (const remove of removals) await remove();
    await vm.inbox.clear();
    for (const disk of replicatedDisks(vm.vm)) await removeDiffDisk(this.#ports.files, diffPath(disk, token));
    vm.wake();
  }

  /**
   * Runs `work` when what was begun before it for this VM has ended; that is told to stop first, as whoever asked for it has gone or
   * asks anew.
   */
  async #alone<T>(vm: ReplicaVm, kind: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const before = this.#work.get(vm.vmId);
    before?.stop.abort(busy('a newer message of the primary has replaced this one'));
    const stop = new AbortController();
    const result = (before?.done ?? Promise.resolve()).then(() => work(AbortSignal.any([stop.signal, this.#stop.signal])));
    const entry: Work = { kind, stop, result, done: result.then(() => undefined, () => undefined) };
    this.#work.set(vm.vmId, entry);
    try {
      return await result;
    } finally {
      if (this.#work.get(vm.vmId) === entry) this.#work.delete(vm.vmId);
    }
  }

  /** Base + diff as one disk while a merge is under way, else the base alone: what a reader of the replica must see. */
  async openForReading(vm: ReplicaVm, disk: DiskRecord): Promise<VirtualDisk> {
    const { resync } = vm.relationship;
    if (resync?.phase !== 'merging') return this.#ports.openDiskForReading(disk);
    try {
      return await this.#merges.between(vm.vmId, () => openOverlay(this.#ports, disk, resync.token, { readOnly: true }));
    } catch (error) {
      // The merge has ended meanwhile, and its diff disks went: the base alone is the replica now.
      if (vm.relationship.resync === null) return this.#ports.openDiskForReading(disk);
      throw error;
    }
  }

  async #characteristics(vmId: string) {
    const disks = [];
    for (const record of replicatedDisks(this.#ports.relationships.vm(vmId))) {
      const { diskId, path } = record;
      if ((await this.#ports.files.stat(path)) === null) {
        disks.push({ diskId, path, missing: true, format: record.format, virtualSize: record.virtualSize,
          logicalSectorSize: record.logicalSectorSize, geometry: record.geometry });
        continue;
      }
      const disk = await this.#merges.between(vmId, () => this.#ports.openDiskForReading(record)).catch((error: unknown) => {
        throw asOtherFormat(record, error);
      });
      const { format, virtualSize, logicalSectorSize, geometry } = disk;
      await disk.close();
      disks.push({ diskId, path, missing: false, format, virtualSize, logicalSectorSize, geometry });
    }
    return disks;
  }

  async #begin(vm: ReplicaVm, params: Pick<ResyncRecord, 'token' | 'rung' | 'reason' | 'firstEpoch'>): Promise<void> {
    const { relationships, files } = this.#ports;
    refuseFailedOver(vm);
    const before = vm.relationship.resync;
    if (before?.token === params.token) return refuseChanged(vm);
    // Regions of the primary's map say nothing of what was changed here.
    if (params.rung === 'suspect-regions') refuseChanged(vm);
    if (before?.phase === 'merging') throw busy('the merge of the resynchronization before this one is still under way');
    if (before !== null) await this.#drop(vm, before.token);
    vm.refuseWhileServed('a resynchronization');
    if (vm.relationship.lost === null) await vm.drain();
    await vm.inbox.clear();
    await sweepDiffDisks(this.#ports, vm.vm, { resync: null });
    let lost = lostAtBegin(vm.relationship);
    for (const disk of replicatedDisks(vm.vm)) {
      if ((await files.stat(disk.path)) !== null) continue;
      // Rung 3: nothing is there, so everything differs from an empty disk.
      lost ??= { trigger: 7, reason: `replica disk ${disk.path} was missing` };
      await files.makeFolder(disk.path.slice(0, disk.path.lastIndexOf('/')));
      await this.#ports.createDisk(disk);
    }
    relationships.update(vm.vmId, {
      lastReceivedEpoch: params.firstEpoch - 1, wantedAgain: null, applying: null, initial: null,
      // Everything is compared from here on; a base that is changed after this is seen at the next start.
      lost: null, appliedSeals: await vm.seals(), remoteState: 'Resynchronizing',
      resync: { ...params, phase: 'comparing', trigger: 8, startedAt: this.#ports.clock.now(), throughEpoch: null, lost, disks: {} },
    });
    relationships.happened(vm.vmId, { kind: 'primary-changed', state: 'Resynchronizing', reason: 'the primary has begun to compare' });
  }

  async #compare(
    vm: ReplicaVm, { token, diskId, fresh }: { token: string; diskId: string; fresh: boolean }, channel: StreamChannel, signal: AbortSignal,
  ): Promise<void> {
    this.#require(vm, token);
    const record = replicatedDisks(vm.vm).find((disk) => disk.diskId === diskId);
    if (record === undefined) throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `no disk ${diskId}`, 'Enable replication again.');
    if (fresh) await removeDiffDisk(this.#ports.files, diffPath(record, token));
    const target = await overlayOf(this.#ports, record, token, fresh);
    // Asked before every write.
    const admit = () => void this.#require(vm, token);
    try {
      await runTarget(channel, {
        base: target, target, allow: 'mend', compute: this.#ports.compute, session: { token, phase: 'comparing' }, signal, clock: this.#ports.clock, admit,
      });
    } finally {
      await target.close();
    }
  }

  /** Keeps apply from going on, until it is released or, should the primary have gone, for a bounded time. */
  async #holdAt(vm: ReplicaVm, token: string, epoch: number): Promise<void> {
    const release = await vm.pin(token);
    const { lastAppliedEpoch, state } = vm.relationship;
    if (lastAppliedEpoch !== epoch || state !== 'Replicating') {
      release();
      throw busy(`it is at epoch ${lastAppliedEpoch} in state ${state}, asked for was epoch ${epoch}`);
    }
    const held = new AbortController();
    this.#holds.set(token, held);
    void this.#ports.clock.sleep(this.#holdMs, AbortSignal.any([held.signal, this.#stop.signal])).catch(() => undefined).then(() => {
      this.#holds.delete(token);
      // Before the first write of apply: what is compared from here on would not be the point any more.
      held.abort(busy('the hold of this verify has ended'));
      release();
    });
  }

  async #verify(vm: ReplicaVm, token: string, diskId: string, channel: StreamChannel): Promise<void> {
    const held = this.#holds.get(token);
    const record = replicatedDisks(vm.vm).find((disk) => disk.diskId === diskId);
    if (held === undefined || record === undefined) throw busy('the hold of this verify has ended');
    const disk = await this.#ports.openDiskForReading(record);
    try {
      const signal = AbortSignal.any([held.signal, this.#stop.signal]);
      await runTarget(channel, { base: disk, target: disk, allow: 'compare-only', compute: this.#ports.compute,
        session: { token, phase: 'verify' }, signal, clock: this.#ports.clock });
    } finally {
      await disk.close();
    }
  }

  async #mendExisting(vm: ReplicaVm, token: string, diskId: string, channel: StreamChannel): Promise<void> {
    const check = () => {
      const { initial } = vm.relationship;
      if (initial?.token === token && initial.method === 'existing') return;
      throw new UnderstudyError('state', 'STALE_TOKEN', 'this run of initial replication has been replaced by a newer one', 'Start it again.');
    };
    check();
    const record = replicatedDisks(vm.vm).find((disk) => disk.diskId === diskId);
    if (record === undefined) throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `no disk ${diskId}`, 'Enable replication again.');
    const disk = await this.#ports.openDisk(record);
    try {
      await runTarget(channel, { base: disk, target: disk, allow: 'mend', compute: this.#ports.compute,
        session: { token, phase: 'initial' }, signal: this.#stop.signal, admit: check, clock: this.#ports.clock });
    } finally {
      await disk.close();
    }
  }

  /** Steps 5 and 6. A repeat joins what is under way, so that logs which take longer than the primary waits are applied all the same. */
  async #merge(vm: ReplicaVm, token: string, throughEpoch: number, keepPoints: boolean): Promise<void> {
    if (vm.relationship.baselineId === token) {
      if (vm.relationship.resync?.phase === 'merging') this.#merges.start(vm.vmId);
      return;
    }
    const kind = `merge ${token} ${throughEpoch}`;
    const before = this.#work.get(vm.vmId);
    if (before?.kind === kind) return void (await before.result);
    await this.#alone(vm, kind, (signal) => this.#complete(vm, { token, throughEpoch, keepPoints }, signal));
    this.#merges.start(vm.vmId);
  }

  /** The logs of step 2 make the diff disks one instant; then the merge is on record. */
  async #complete(
    vm: ReplicaVm, { token, throughEpoch, keepPoints }: { token: string; throughEpoch: number; keepPoints: boolean }, signal: AbortSignal,
  ): Promise<void> {
    const resync = this.#require(vm, token);
    const disks = replicatedDisks(vm.vm);
    let logs: Record<string, string> = {};
    let closedAt = resync.startedAt;
    const sets: InboxRecord[] = [];
    const ports = { ...this.#ports, openDisk: (disk: DiskRecord) => overlayOf(this.#ports, disk, token, false) };
    for (let epoch = resync.firstEpoch; epoch <= throughEpoch; epoch++) {
      const set = this.#ports.catalog.inbox.get(vm.vmId, epoch);
      if (set?.status !== 'received') throw busy(`epoch ${epoch} has not arrived yet`);
      const defect = await defectOf(this.#ports, set, { ...vm.relationship, lastAppliedLogs: logs }, disks);
      if (defect !== null) throw new UnderstudyError('io', defect.code, defect.reason, 'Resynchronize again.');
      ({ logs } = await applySet(ports, set, disks, signal));
      closedAt = set.closedAt;
      sets.push(set);
    }
    for (const disk of disks) await this.#flushed(disk, token);
    await vm.watch?.beforeChange((disk) => heldRanges(this.#ports, disk, token));
    this.#require(vm, token);
    const removals: (() => Promise<void>)[] = [];
    const keepsPoints = keepPoints && vm.points.list().at(-1)?.damaged === null;
    const record = () => {
      this.#ports.relationships.update(vm.vmId, {
        baselineId: token, resync: { ...resync, phase: 'merging', throughEpoch, keepsPoints }, lastAppliedEpoch: throughEpoch,
        lastAppliedTime: closedAt, lastAppliedLogs: logs, consistentFrom: throughEpoch, lost: null, error: null, required: null,
        lastReplicationTime: this.#ports.clock.now(), mapTrusted: true,
      });
      vm.watch?.changed('the replica was resynchronized with its primary', { known: resync.rung !== 'full-copy' });
      for (const set of sets) removals.push(vm.inbox.forget(set));
    };
    if (keepsPoints) this.#ports.catalog.transaction(record);
    else await vm.forgetPoints('a resynchronization has changed what they rest on', record);
    // On record: the files are only in the way.
    for (const remove of removals) await remove().catch(() => undefined);
  }

  async #flushed(disk: DiskRecord, token: string): Promise<void> {
    const overlay = await overlayOf(this.#ports, disk, token, false);
    await overlay.flush();
    await overlay.close();
  }

  /** The run must still be the one, and comparing; an earlier message changes nothing. */
  #require(vm: ReplicaVm, token: string): ResyncRecord {
    const { resync } = vm.relationship;
    refuseFailedOver(vm);
    if (resync !== null && resync.token === token && resync.phase === 'comparing') {
      refuseChanged(vm);
      return resync;
    }
    throw new UnderstudyError('state', 'STALE_TOKEN', 'this resynchronization was cancelled or replaced by a newer one', 'Start it again.');
  }
}

/** As `openOverlay`; a diff disk that is gone or damaged voids the run, which the primary then starts over. */
async function overlayOf(ports: ReplicationPorts, disk: DiskRecord, token: string, fresh: boolean): Promise<VirtualDisk> {
  try {
    return await openOverlay(ports, disk, token, { fresh });
  } catch (error) {
    if (!(error instanceof UnderstudyError) || !error.code.startsWith('DIFF_DISK_')) throw error;
    throw new UnderstudyError('state', 'STALE_TOKEN', error.message, 'It starts over by itself.', { cause: error });
  }
}

/** A guest may run on what a resynchronization would overwrite (R22). */
function refuseFailedOver(vm: ReplicaVm): void {
  const { state } = vm.relationship;
  if (state !== 'FailedOverWaitingCompletion' && state !== 'FailedOver') return;
  throw new UnderstudyError('state', 'REPLICA_FAILED_OVER', `VM '${vm.vm.name}' runs on the replica since a failover`,
    'Cancel the failover on the replica, or reverse the direction.');
}

/** The diff disk mends what made the disks no instant of the VM; without it they are as they were. */
function lostAtBegin({ lost, applying }: RelationshipRecord): RelationshipRecord['lost'] {
  if (lost !== null || applying === null) return lost;
  return { trigger: 6, reason: `epoch ${applying} was applied in part, and the rest of it could not be` };
}

/** What was compared with the base as it was no longer counts. */
function refuseChanged(vm: ReplicaVm): void {
  const { lost } = vm.relationship;
  if (lost === null) return;
  throw new UnderstudyError('state', 'REPLICA_CHANGED', lost.reason, 'Resynchronize the VM from the start.');
}

const busy = (why: string): UnderstudyError =>
  new UnderstudyError('io', 'REPLICA_BUSY', `the replica cannot go on yet: ${why}`, 'It is tried again by itself.');

/** Whoever made it another format may want it: nothing of it is touched until a person has moved it away (docs/decisions/0012). */
function asOtherFormat({ path, format }: DiskRecord, error: unknown): unknown {
  if (!(error instanceof UnderstudyError) || error.code !== 'DISK_MALFORMED') return error;
  return new UnderstudyError('state', 'REPLICA_DISK_OTHER_FORMAT', `the replica disk ${path} is no ${format} any more: ${error.message}`,
    `On the replica host, put the ${format} back, or move ${path} away: then it is copied anew and whole, as ${format}. Then resume.`, { cause: error });
}
