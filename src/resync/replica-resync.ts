/**
 * The replica's part in a resynchronization: diff disks over its disks, the compare's target, and the merge.
 *
 * Invariants
 * - From `begin` to the end of the merge nothing but the merge writes to a base: until the merge is on record every base is the
 *   consistent point that it was (promise 3).
 * - Only the current token writes (R18). A begin with another token drops the diff disks of the one before.
 * - One transaction starts the merge (R19): from then on base + diff is the replica, whatever stops us, and merging is redo.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord, type InboxRecord, type ResyncRecord } from '../model/records.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import { applySet, defectOf } from '../replication/apply.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import { runTarget } from './compare/target.ts';
import { openDiffDisk, removeDiffDisk } from '../disk/diff-disk.ts';
import {
  characteristicsMessage, existingCompareMessage, resyncBeginMessage, resyncCancelMessage, resyncCompareMessage, resyncMergeMessage, resyncProgressMessage,
  verifyCompareMessage, verifyHoldMessage,
} from './messages.ts';

const RETRY_MS = 30_000;
/** A verify of a very large disk over a slow line takes hours; longer than that its primary is gone. */
const HOLD_MS = 24 * 3_600_000;

interface Merge {
  mergedBytes: number;
  totalBytes: number;
  failure: string | null;
  done: Promise<void>;
}

export const diffPath = (disk: Pick<DiskRecord, 'path'>, token: string): string => `${disk.path}.${token.slice(0, 8)}.diff`;

export class ReplicaResync {
  #ports: ReplicationPorts;
  #host: ReplicaHost;
  #merges = new Map<string, Merge>();
  #stop = new AbortController();
  /** Verifies that keep a replica at one epoch, by token. */
  #holds = new Map<string, AbortController>();

  constructor(ports: ReplicationPorts, host: ReplicaHost) {
    this.#ports = ports;
    this.#host = host;
  }

  /** Goes on with merges that a stop or crash has interrupted. */
  start(): void {
    for (const { vmId, side, resync } of this.#ports.catalog.relationships.list()) {
      if (side === 'replica' && resync?.phase === 'merging') this.#startMerge(vmId);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    await Promise.all([...this.#merges.values()].map(({ done }) => done));
  }

  serve(dispatcher: PeerDispatcher): void {
    const host = this.#host;
    dispatcher.handle(characteristicsMessage, async (caller, { vmId }) => {
      host.of(caller, vmId);
      return { result: { disks: await this.#characteristics(vmId) } };
    });
    dispatcher.handle(resyncBeginMessage, async (caller, { vmId, ...params }) => {
      await this.#begin(host.of(caller, vmId), params);
      return { result: {} };
    });
    dispatcher.handleStream(resyncCompareMessage, async (caller, { vmId, token, diskId, fresh }, stream) => {
      const channel = new StreamChannel(stream, stream, this.#ports.compute);
      await this.#compare(host.of(caller, vmId), token, diskId, fresh, channel);
    });
    dispatcher.handleStream(existingCompareMessage, async (caller, { vmId, token, diskId }, stream) => {
      const channel = new StreamChannel(stream, stream, this.#ports.compute);
      await this.#mendExisting(host.of(caller, vmId), token, diskId, channel);
    });
    dispatcher.handle(verifyHoldMessage, async (caller, { vmId, token, epoch, hold }) => {
      const vm = host.of(caller, vmId);
      if (hold) await this.#holdAt(vm, token, epoch);
      else this.#holds.get(token)?.abort();
      return { result: {} };
    });
    dispatcher.handleStream(verifyCompareMessage, async (caller, { vmId, token, diskId }, stream) => {
      await this.#verify(host.of(caller, vmId), token, diskId, new StreamChannel(stream, stream, this.#ports.compute));
    });
    dispatcher.handle(resyncMergeMessage, async (caller, { vmId, token, throughEpoch, keepPoints }) => {
      await this.#merge(host.of(caller, vmId), token, throughEpoch, keepPoints === true);
      return { result: {} };
    });
    dispatcher.handle(resyncProgressMessage, async (caller, { vmId, waitMs }) => {
      const vm = host.of(caller, vmId);
      const merge = this.#merges.get(vmId);
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

  /** Drops a run that has not reached its merge; the base is as it was. A run that is not there is no error. */
  async cancel(vm: ReplicaVm, token: string | null): Promise<void> {
    const { resync } = vm.relationship;
    if (resync === null || (token !== null && resync.token !== token)) return;
    if (resync.phase === 'merging') {
      throw new UnderstudyError('state', 'MERGE_HAS_BEGUN', `the resynchronized data of VM '${vm.vm.name}' is being merged`,
        'Wait until the merge is done.');
    }
    this.#ports.relationships.update(vm.vmId, { resync: null });
    for (const disk of replicatedDisks(vm.vm)) await removeDiffDisk(this.#ports.files, diffPath(disk, resync.token));
    // The logs of step 2 belong to the diff disks; over the base they would make a mixture.
    await vm.inbox.clear();
    vm.wake();
  }

  /** Base + diff as one disk while a merge is under way, else the base alone: what a reader of the replica must see. */
  async openForReading(vm: ReplicaVm, disk: DiskRecord): Promise<VirtualDisk> {
    const { resync } = vm.relationship;
    return resync?.phase === 'merging' ? this.#overlay(disk, resync.token) : this.#ports.openDiskForReading(disk);
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
      const disk = await this.#ports.openDiskForReading(record);
      const { format, virtualSize, logicalSectorSize, geometry } = disk;
      await disk.close();
      disks.push({ diskId, path, missing: false, format, virtualSize, logicalSectorSize, geometry });
    }
    return disks;
  }

  async #begin(vm: ReplicaVm, params: Pick<ResyncRecord, 'token' | 'rung' | 'reason' | 'firstEpoch'>): Promise<void> {
    const { relationships, files } = this.#ports;
    const before = vm.relationship.resync;
    if (before?.token === params.token) return refuseChanged(vm);
    // Regions of the primary's map say nothing of what was changed here.
    if (params.rung === 'suspect-regions') refuseChanged(vm);
    if (before?.phase === 'merging') throw busy('the merge of the resynchronization before this one is still under way');
    if (before !== null) await this.cancel(vm, null);
    vm.refuseWhileServed('a resynchronization');
    if (vm.relationship.lost === null) await vm.drain();
    await vm.inbox.clear();
    for (const disk of replicatedDisks(vm.vm)) {
      if ((await files.stat(disk.path)) !== null) continue;
      // Rung 3: nothing is there, so everything differs from an empty disk.
      await files.makeFolder(disk.path.slice(0, disk.path.lastIndexOf('/')));
      await this.#ports.createDisk(disk);
    }
    relationships.update(vm.vmId, {
      lastReceivedEpoch: params.firstEpoch - 1, wantedAgain: null, applying: null, initial: null,
      // Everything is compared from here on; a base that is changed after this is seen at the next start.
      lost: null, appliedSeals: await vm.seals(),
      resync: { ...params, phase: 'comparing', trigger: 8, startedAt: this.#ports.clock.now(), throughEpoch: null, disks: {} },
    });
  }

  async #compare(vm: ReplicaVm, token: string, diskId: string, fresh: boolean, channel: StreamChannel): Promise<void> {
    this.#require(vm, token);
    const record = replicatedDisks(vm.vm).find((disk) => disk.diskId === diskId);
    if (record === undefined) throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `no disk ${diskId}`, 'Enable replication again.');
    if (fresh) await removeDiffDisk(this.#ports.files, diffPath(record, token));
    const target = await this.#overlay(record, token);
    const base = fresh ? await this.#ports.openDiskForReading(record) : target;
    try {
      await runTarget(channel, {
        base, target, allow: 'mend', compute: this.#ports.compute, session: { token, phase: 'comparing' }, signal: this.#stop.signal,
        admit: () => this.#require(vm, token),
      });
    } finally {
      if (base !== target) await base.close();
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
    void this.#ports.clock.sleep(HOLD_MS, AbortSignal.any([held.signal, this.#stop.signal])).catch(() => undefined).then(() => {
      this.#holds.delete(token);
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
        session: { token, phase: 'verify' }, signal });
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
        session: { token, phase: 'initial' }, signal: this.#stop.signal, admit: check });
    } finally {
      await disk.close();
    }
  }

  /** Steps 5 and 6: the logs of step 2 make the diff disks one instant; then the merge is on record and begins. */
  async #merge(vm: ReplicaVm, token: string, throughEpoch: number, keepPoints: boolean): Promise<void> {
    if (vm.relationship.baselineId === token) return;
    const resync = this.#require(vm, token);
    const disks = replicatedDisks(vm.vm);
    let logs: Record<string, string> = {};
    let closedAt = resync.startedAt;
    const sets: InboxRecord[] = [];
    for (let epoch = resync.firstEpoch; epoch <= throughEpoch; epoch++) {
      const set = this.#ports.catalog.inbox.get(vm.vmId, epoch);
      if (set?.status !== 'received') throw busy(`epoch ${epoch} has not arrived yet`);
      const defect = await defectOf(this.#ports, set, { ...vm.relationship, lastAppliedLogs: logs }, disks);
      if (defect !== null) throw new UnderstudyError('io', defect.code, defect.reason, 'Resynchronize again.');
      const ports = { ...this.#ports, openDisk: (disk: DiskRecord) => this.#overlay(disk, token) };
      ({ logs } = await applySet(ports, set, disks, this.#stop.signal));
      closedAt = set.closedAt;
      sets.push(set);
    }
    for (const disk of disks) await this.#flushed(disk, token);
    this.#require(vm, token);
    const removals: (() => Promise<void>)[] = [];
    const keepsPoints = keepPoints && vm.points.list().at(-1)?.damaged === null;
    const record = () => {
      this.#ports.relationships.update(vm.vmId, {
        baselineId: token, resync: { ...resync, phase: 'merging', throughEpoch, keepsPoints }, lastAppliedEpoch: throughEpoch,
        lastAppliedTime: closedAt, lastAppliedLogs: logs, consistentFrom: throughEpoch, lost: null, error: null, required: null,
        lastReplicationTime: this.#ports.clock.now(), mapTrusted: true,
      });
      for (const set of sets) removals.push(vm.inbox.forget(set));
    };
    if (keepsPoints) this.#ports.catalog.transaction(record);
    else await vm.forgetPoints('a resynchronization has changed what they rest on', record);
    for (const remove of removals) await remove();
    this.#startMerge(vm.vmId);
  }

  async #flushed(disk: DiskRecord, token: string): Promise<void> {
    const overlay = await this.#overlay(disk, token);
    await overlay.flush();
    await overlay.close();
  }

  #startMerge(vmId: string): void {
    const merge: Merge = { mergedBytes: 0, totalBytes: 0, failure: null, done: Promise.resolve() };
    merge.done = this.#runMerge(vmId, merge);
    this.#merges.set(vmId, merge);
  }

  /** Redo until it is done: a failure (no space, a locked disk) is tried again; meanwhile readers see base + diff. */
  async #runMerge(vmId: string, merge: Merge): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#mergeAll(vmId, merge);
        this.#merges.delete(vmId);
        return;
      } catch (error) {
        if (signal.aborted) return;
        merge.failure = messageOf(error);
        this.#ports.log.error({ vm: vmId, error: merge.failure }, 'the merge of a resynchronization failed and is tried again');
        await this.#ports.clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  async #mergeAll(vmId: string, merge: Merge): Promise<void> {
    const vm = this.#host.get(vmId)!;
    const { token, keepsPoints, throughEpoch } = vm.relationship.resync!;
    const disks = replicatedDisks(vm.vm);
    if (keepsPoints === true) await this.#keepPoints(vm, token, throughEpoch!);
    let before = 0;
    for (const disk of disks) {
      const base = await this.#ports.openDisk(disk);
      const diff = await openDiffDisk(this.#ports.files, diffPath(disk, token), base);
      try {
        merge.totalBytes = before + diff.heldBytes;
        await diff.merge(base, { signal: this.#stop.signal, onProgress: (bytes) => (merge.mergedBytes = before + bytes) });
        before += diff.heldBytes;
      } finally {
        await diff.close();
      }
    }
    this.#ports.relationships.update(vmId, { resync: null, appliedSeals: await vm.seals() });
    for (const disk of disks) await removeDiffDisk(this.#ports.files, diffPath(disk, token));
    vm.wake();
  }

  /** The merge's undo unit: all that it overwrites, before it does (R14, R19). */
  async #keepPoints(vm: ReplicaVm, token: string, throughEpoch: number): Promise<void> {
    let bytes = 0;
    const open = (disk: DiskRecord) => this.#ports.openDiskForReading(disk)
      .then((base) => openDiffDisk(this.#ports.files, diffPath(disk, token), base));
    for (const disk of replicatedDisks(vm.vm)) {
      const diff = await open(disk);
      bytes += diff.heldBytes;
      await diff.close();
    }
    await vm.points.keep(throughEpoch, bytes, async function* heldBy(disk, base) {
      const diff = await open(disk);
      try {
        for (const run of diff.runs(0, base.virtualSize)) if (run.held) yield run;
      } finally {
        await diff.close();
      }
    }, this.#stop.signal);
  }

  /** The run must still be the one, and comparing; an earlier message changes nothing. */
  #require(vm: ReplicaVm, token: string): ResyncRecord {
    const { resync } = vm.relationship;
    if (resync !== null && resync.token === token && resync.phase === 'comparing') {
      refuseChanged(vm);
      return resync;
    }
    throw new UnderstudyError('state', 'STALE_TOKEN', 'this resynchronization was cancelled or replaced by a newer one', 'Start it again.');
  }

  async #overlay(disk: DiskRecord, token: string): Promise<VirtualDisk> {
    return openDiffDisk(this.#ports.files, diffPath(disk, token), await this.#ports.openDiskForReading(disk));
  }
}

/** What was compared with the base as it was no longer counts. */
function refuseChanged(vm: ReplicaVm): void {
  const { lost } = vm.relationship;
  if (lost === null) return;
  throw new UnderstudyError('state', 'REPLICA_CHANGED', lost.reason, 'Resynchronize the VM from the start.');
}

const busy = (why: string): UnderstudyError =>
  new UnderstudyError('io', 'REPLICA_BUSY', `the replica cannot go on yet: ${why}`, 'It is tried again by itself.');
