/**
 * Merges the diff disks of a resynchronization into the replica disks, once that is on record.
 *
 * Invariants
 * - Merging is redo: it may stop anywhere and begins again from the start; until it has ended readers see base + diff (R19).
 * - The diff disks go only after the end is on record. Nobody waits for that: on a volume that discards what is freed it takes seconds.
 * - A diff disk that is gone, or a base that is another file than the one that was compared, ends the merge as a loss (trigger 7):
 *   what is there is then no instant of the VM, and nothing may say that it is.
 */
import { removeDiffDisk } from '../disk/diff-disk.ts';
import { openDiffDiskFor } from '../disk/differencing-diff.ts';
import { Lane } from '../disk/vhd/lane.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { marksOf } from '../disk/seal.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord } from '../model/records.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { diffPath, openOverlay } from './diff-files.ts';

/** After a failure that may pass: no space, a disk that somebody holds. */
const RETRY_MS = 30_000;

export interface Merge {
  mergedBytes: number;
  totalBytes: number;
  /** Why the last attempt failed; null while it goes well. */
  failure: string | null;
  done: Promise<void>;
  /** Every change that it makes, and every opening of what it changes: a VHDX is opened whole, or not at all. */
  lane: Lane;
}

export class ReplicaMerge {
  #ports: ReplicationPorts;
  #host: ReplicaHost;
  #under = new Map<string, Merge>();
  /** Of diff disks whose merge is on record. */
  #removals = new Set<Promise<void>>();
  #stop = new AbortController();

  constructor(ports: ReplicationPorts, host: ReplicaHost) {
    this.#ports = ports;
    this.#host = host;
  }

  of(vmId: string): Merge | undefined {
    return this.#under.get(vmId);
  }

  /** Begins or goes on; nothing happens when it is under way already. */
  start(vmId: string): void {
    if (this.#under.has(vmId)) return;
    const merge: Merge = { mergedBytes: 0, totalBytes: 0, failure: null, done: Promise.resolve(), lane: new Lane() };
    this.#under.set(vmId, merge);
    merge.done = this.#run(vmId, merge).finally(() => this.#under.delete(vmId));
  }

  /** Opens a replica disk between two changes of the merge that may be under way. */
  between<T>(vmId: string, open: () => Promise<T>): Promise<T> {
    return this.#under.get(vmId)?.lane.run(open) ?? open();
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    await Promise.all([...this.#under.values()].map(({ done }) => done));
    await Promise.all(this.#removals);
  }

  async #run(vmId: string, merge: Merge): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const vm = this.#host.get(vmId);
      // Replication may have been removed meanwhile.
      if (vm === undefined || this.#ports.relationships.find(vmId)?.resync?.phase !== 'merging') return;
      try {
        return await this.#mergeAll(vm, merge);
      } catch (error) {
        if (signal.aborted) return;
        if (isLoss(error)) return vm.lose(7, messageOf(error), { resync: null });
        merge.failure = messageOf(error);
        this.#ports.log.error({ vm: vmId, error: merge.failure }, 'the merge of a resynchronization failed and is tried again');
        await this.#ports.clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  async #mergeAll(vm: ReplicaVm, merge: Merge): Promise<void> {
    const { token, keepsPoints, throughEpoch } = vm.relationship.resync!;
    const disks = replicatedDisks(vm.vm);
    if (keepsPoints === true) await this.#keepPoints(vm, token, throughEpoch!);
    const { lane } = merge;
    let before = 0;
    for (const disk of disks) {
      const base = await lane.run(() => this.#ports.openDisk(disk));
      try {
        // A seal brings a VHD to rest, and a crash may have left its tail to mend: whoever opens the base meanwhile must not see half of that.
        await lane.run(() => this.#checkIdentity(vm, disk, base));
        const diff = await lane.run(() => openDiffDiskFor(this.#ports.files, diffPath(disk, token), base, { mustExist: true }));
        merge.totalBytes = before + diff.heldBytes;
        try {
          await diff.merge(base, { signal: this.#stop.signal, clock: this.#ports.clock, exclusive: (work) => lane.run(work),
            onProgress: (bytes) => (merge.mergedBytes = before + bytes) });
          before += diff.heldBytes;
        } finally {
          // And the base with it.
          await lane.run(() => diff.close());
        }
      } catch (error) {
        await lane.run(() => base.close());
        throw error;
      }
    }
    this.#ports.relationships.update(vm.vmId, { resync: null, appliedSeals: await vm.seals() });
    const removal = this.#remove(disks, token).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    vm.wake();
  }

  /** What stays is swept before the next run (`sweepDiffDisks`). */
  async #remove(disks: readonly DiskRecord[], token: string): Promise<void> {
    try {
      for (const disk of disks) await removeDiffDisk(this.#ports.files, diffPath(disk, token));
    } catch (error) {
      this.#ports.log.warn({ error: messageOf(error) }, 'a diff disk that was merged could not be removed yet');
    }
  }

  /** The merge's undo unit: all that it overwrites, before it does (R14, R19). */
  async #keepPoints(vm: ReplicaVm, token: string, throughEpoch: number): Promise<void> {
    let bytes = 0;
    const open = (disk: DiskRecord) => openOverlay(this.#ports, disk, token, { readOnly: true });
    for (const disk of replicatedDisks(vm.vm)) {
      const diff = await open(disk);
      bytes += diff.heldBytes;
      await diff.close();
    }
    await vm.points.keep(throughEpoch, bytes, async function* heldBy(disk, base) {
      const diff = await open(disk);
      try {
        for await (const run of diff.runs(0, base.virtualSize)) if (run.held) yield run;
      } finally {
        await diff.close();
      }
    }, this.#stop.signal);
  }

  /** The merge itself changes times, never which file it is. */
  async #checkIdentity(vm: ReplicaVm, { diskId, path }: DiskRecord, base: VirtualDisk): Promise<void> {
    const [was, is] = [marksOf(vm.relationship.appliedSeals[diskId] ?? { kind: 'none' }), marksOf(await base.seal())];
    if (was['inode'] === undefined || is['inode'] === undefined) return;
    if (was['inode'] === is['inode'] && was['device'] === is['device']) return;
    throw new UnderstudyError('state', 'REPLICA_CHANGED',
      `replica disk ${path} was replaced while it was being merged: it is inode ${String(is['inode'])}, compared was ${String(was['inode'])}`,
      'Resynchronize the VM from the start.');
  }
}

const isLoss = (error: unknown): boolean =>
  error instanceof UnderstudyError && (error.code === 'DIFF_DISK_MISSING' || error.code === 'DIFF_DISK_DAMAGED' || error.code === 'REPLICA_CHANGED');
