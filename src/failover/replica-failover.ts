/**
 * Unplanned failover in its simplest form: the replica's latest consistent point, served over NBD.
 *
 * Invariants
 * - The replica disk itself is not written: what the guest writes goes to a diff disk, so that cancelling is deleting it.
 * - From the moment the state is on record nothing is received or applied for the VM; a resync that is under way is cancelled,
 *   or, once its merge is on record, base and diff together are what is served (R19).
 * - A restart of the server serves again what it served.
 */
import { openDiffDisk, removeDiffDisk } from '../disk/diff-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord } from '../model/records.ts';
import { diskExport, type NbdExport } from '../nbd/export.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';

export interface FailoverParts {
  ports: ReplicationPorts;
  replicas: ReplicaHost;
  /** A replica disk as a reader must see it now. */
  openForReading(vm: ReplicaVm, disk: DiskRecord): Promise<VirtualDisk>;
  /** Drops a resync that has not reached its merge. */
  cancelResync(vm: ReplicaVm): Promise<void>;
  exports: {
    add(name: string, served: NbdExport): void;
    /** Resolves when the last request of its clients has ended. */
    remove(name: string): Promise<void>;
  };
  exportName(vmName: string, index: number): string;
}

const failoverPath = (disk: DiskRecord): string => `${disk.path}.failover.diff`;

export class ReplicaFailover {
  #parts: FailoverParts;
  #served = new Map<string, VirtualDisk[]>();

  constructor(parts: FailoverParts) {
    this.#parts = parts;
  }

  /** Serves again what was served before a stop or crash. */
  async start(): Promise<void> {
    for (const { vmId, side, state } of this.#parts.ports.catalog.relationships.list()) {
      if (side === 'replica' && state === 'FailedOverWaitingCompletion') await this.#serve(vmId);
    }
  }

  async close(): Promise<void> {
    for (const vmId of [...this.#served.keys()]) await this.#stopServing(vmId);
  }

  isServed(vmId: string): boolean {
    return this.#served.has(vmId);
  }

  /** Serves the latest point. Refused by state, and while the replica holds no consistent point yet. */
  async unplanned(vmId: string): Promise<void> {
    const { ports, replicas } = this.#parts;
    const { relationships } = ports;
    relationships.check(vmId, 'failover');
    const vm = replicas.get(vmId);
    if (vm === undefined) throw new Error(`replica ${vmId} is not adopted`);
    const { resync } = vm.relationship;
    if (resync !== null && resync.phase !== 'merging') await this.#parts.cancelResync(vm);
    if (vm.relationship.resync === null && vm.relationship.lost === null) await vm.drain();
    const { lastAppliedEpoch, consistentFrom } = vm.relationship;
    if (lastAppliedEpoch < consistentFrom) {
      throw new UnderstudyError('state', 'NOT_CONSISTENT_YET',
        `the replica of VM '${vm.vm.name}' has applied epoch ${lastAppliedEpoch}; it is one instant of the VM only from ${consistentFrom} on`,
        'Wait until the logs of the initial replication have arrived and are applied.');
    }
    for (const disk of replicatedDisks(vm.vm)) await removeDiffDisk(ports.files, failoverPath(disk));
    relationships.perform(vmId, 'failover');
    await this.#serve(vmId);
  }

  /** Takes a failover back: what was written since is deleted, and replication goes on where it was. */
  async cancel(vmId: string): Promise<void> {
    const { ports, replicas } = this.#parts;
    ports.relationships.check(vmId, 'cancel-failover');
    await this.#stopServing(vmId);
    ports.relationships.perform(vmId, 'cancel-failover');
    for (const disk of replicatedDisks(ports.relationships.vm(vmId))) await removeDiffDisk(ports.files, failoverPath(disk));
    replicas.get(vmId)?.wake();
  }

  async #serve(vmId: string): Promise<void> {
    const { ports, replicas, exports, exportName } = this.#parts;
    const vm = replicas.get(vmId)!;
    const opened: VirtualDisk[] = [];
    this.#served.set(vmId, opened);
    for (const [index, disk] of vm.vm.disks.entries()) {
      const base = await this.#parts.openForReading(vm, disk);
      const overlay = await openDiffDisk(ports.files, failoverPath(disk), base);
      opened.push(overlay);
      const name = exportName(vm.vm.name, index);
      exports.add(name, diskExport(name, overlay, { description: `failed over from ${vm.relationship.remote.name}` }));
    }
  }

  async #stopServing(vmId: string): Promise<void> {
    const { name } = this.#parts.ports.relationships.vm(vmId);
    const disks = this.#served.get(vmId) ?? [];
    this.#served.delete(vmId);
    for (const index of disks.keys()) await this.#parts.exports.remove(this.#parts.exportName(name, index));
    for (const disk of disks) {
      await disk.flush();
      await disk.close();
    }
  }
}
