/**
 * The disks of failed-over VMs, or of test VMs, as they are served: opened from what is on record, given to the NBD server under their
 * names, taken away again.
 */
import { openDiffDisk, removeDiffDisk, type PageDiffDisk } from '../disk/diff-disk.ts';
import { LayeredDisk } from '../disk/layered-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { replicatedDisks, type DiskRecord, type FailoverRecord } from '../model/records.ts';
import { diskExport, type NbdExport } from '../nbd/export.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import { latestOf, openLatest, openPoint, pointsFrom } from '../replication/replica-view.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { OnDemandDisk } from './on-demand-disk.ts';
import { ServedDisk } from './served-disk.ts';
import { SettlingDisk } from './settling-disk.ts';

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
  /** Turns the test guest off before its disks go; never rejects. Absent: nobody starts guests here. */
  stopTestGuest?(vmId: string): Promise<void>;
}

export interface OpenedDisk {
  record: DiskRecord;
  /** Under which it is exported. */
  name: string;
  served: ServedDisk;
  /** What the diff disk lies over, until it settles. */
  view: LayeredDisk | null;
}

/** Where the guest of a failed-over VM writes. */
export const failoverDiffPath = (disk: Pick<DiskRecord, 'path'>): string => `${disk.path}.failover.diff`;

export class Serving {
  readonly kind: 'failover' | 'test';
  #parts: FailoverParts;
  #served = new Map<string, OpenedDisk[]>();

  constructor(parts: FailoverParts, kind: 'failover' | 'test') {
    this.#parts = parts;
    this.kind = kind;
  }

  namesOf(vmId: string): string[] | null {
    return this.#served.get(vmId)?.map(({ name }) => name) ?? null;
  }

  of(vmId: string): OpenedDisk[] | undefined {
    return this.#served.get(vmId);
  }

  async begin(vmId: string, record: FailoverRecord): Promise<void> {
    this.publish(vmId, await this.open(vmId, record));
  }

  /**
   * All disks of the VM as the record says, or none. Changes nothing but its diff disks. `fresh`: makes those; else what they hold counts, and
   * one that is gone is an error.
   */
  async open(vmId: string, record: FailoverRecord, { fresh = false } = {}): Promise<OpenedDisk[]> {
    const vm = this.#parts.replicas.get(vmId)!;
    const { name } = vm.vm;
    const opened: OpenedDisk[] = [];
    const sets = record.pointEpoch === null && record.settling !== 'diff' && record.settling !== 'done'
      ? (await latestOf(this.#parts.ports, vm, record.throughEpoch)).sets : [];
    try {
      for (const [index, disk] of vm.vm.disks.entries()) {
        const { served, view } = await this.#openDisk(vm, disk, record, sets, fresh);
        opened.push({ record: disk, name: this.#parts.exportName(this.kind === 'test' ? `${name} - Test` : name, index), served, view });
      }
      return opened;
    } catch (error) {
      await this.discard(opened);
      throw error;
    }
  }

  publish(vmId: string, opened: OpenedDisk[]): void {
    const { exports, replicas } = this.#parts;
    this.#served.set(vmId, opened);
    const from = replicas.get(vmId)!.relationship.remote.name;
    const description = this.kind === 'test' ? `test of a failover from ${from}` : `failed over from ${from}`;
    for (const { name, served } of opened) exports.add(name, countingClients(diskExport(name, served, { description }), served));
  }

  /** Bytes that guests have written since, in whole pages, and that are not in the replica disks; null when nothing is served. */
  writtenBytes(vmId: string): number | null {
    return sumOrNull(this.#served.get(vmId));
  }

  /** Takes the VM's disks away from its guests, after their last requests; returns what they had written, as `writtenBytes`. */
  async end(vmId: string): Promise<number> {
    const opened = this.#served.get(vmId) ?? [];
    this.#served.delete(vmId);
    for (const { name } of opened) await this.#parts.exports.remove(name);
    const written = sumOrNull(opened) ?? 0;
    for (const { served } of opened) await served.close();
    return written;
  }

  async discard(opened: OpenedDisk[]): Promise<void> {
    for (const { served } of opened) await served.current.close();
  }

  /** Deletes what guests have written; the replica disks are as they were. */
  async removeDisks(vmId: string): Promise<void> {
    const { ports } = this.#parts;
    for (const disk of replicatedDisks(ports.relationships.vm(vmId))) await removeDiffDisk(ports.files, this.diffPath(disk));
  }

  async close(): Promise<void> {
    for (const vmId of [...this.#served.keys()]) await this.end(vmId);
  }

  diffPath(disk: Pick<DiskRecord, 'path'>): string {
    return this.kind === 'failover' ? failoverDiffPath(disk) : `${disk.path}.${this.kind}.diff`;
  }

  /** The replica disk itself, with what its guest wrote over it: from when the layers are settled on. */
  async openSettling(disk: DiskRecord, size: number): Promise<SettlingDisk> {
    const { ports } = this.#parts;
    const base = await this.#openForGuest(disk);
    let diff: PageDiffDisk;
    try {
      diff = await openDiffDisk(ports.files, this.diffPath(disk), new LayeredDisk(base, [], size), { mustExist: true, bootId: ports.bootId });
    } catch (error) {
      await base.close();
      throw error;
    }
    return new SettlingDisk(base, diff);
  }

  plainDisk(disk: DiskRecord, size: number, opened?: VirtualDisk): VirtualDisk {
    return new OnDemandDisk(() => this.#openForGuest(disk), disk, size, opened);
  }

  /** What a guest was answered survives the death of this process: a VHD or VHDX has to be told. */
  async #openForGuest(disk: DiskRecord): Promise<VirtualDisk> {
    const opened = await this.#parts.ports.openDisk(disk);
    opened.serveGuest?.(() => null);
    return opened;
  }

  async #openDisk(
    vm: ReplicaVm, disk: DiskRecord, record: FailoverRecord, sets: Parameters<typeof openLatest>[3], fresh: boolean,
  ): Promise<Pick<OpenedDisk, 'served' | 'view'>> {
    const { ports } = this.#parts;
    const size = record.sizes?.[disk.diskId] ?? disk.virtualSize;
    if (record.settling === 'done') return { served: new ServedDisk(this.plainDisk(disk, size)), view: null };
    if (record.settling === 'diff') return { served: new ServedDisk(await this.openSettling(disk, size)), view: null };
    const view = await this.#openView(vm, disk, record, sets);
    try {
      return { served: new ServedDisk(await openDiffDisk(ports.files, this.diffPath(disk), view, { mustExist: !fresh, bootId: ports.bootId })), view };
    } catch (error) {
      await view.close();
      throw error;
    }
  }

  async #openView(vm: ReplicaVm, disk: DiskRecord, { pointEpoch }: FailoverRecord, sets: Parameters<typeof openLatest>[3]) {
    const { ports } = this.#parts;
    if (pointEpoch === null) return openLatest(ports, await this.#parts.openForReading(vm, disk), disk, sets);
    const points = pointsFrom(vm.points.list(), pointEpoch);
    return openPoint(ports, await ports.openDiskForReading(disk), disk, points, (epoch, reason) => vm.points.damaged(epoch, reason));
  }
}

function sumOrNull(opened: readonly OpenedDisk[] | undefined): number | null {
  if (opened === undefined) return null;
  return opened.reduce((sum, { served: { current } }) => sum + ('heldBytes' in current ? (current.heldBytes as number) : 0), 0);
}

/** Lets a plain disk go when its last client has: so that others may open the file. */
function countingClients(served: NbdExport, disk: ServedDisk): NbdExport {
  let clients = 0;
  return {
    ...served,
    clientConnected: (client) => {
      served.clientConnected(client);
      clients++;
    },
    clientGone: (client) => {
      served.clientGone(client);
      if (--clients === 0 && disk.current instanceof OnDemandDisk) disk.current.release().catch(() => undefined);
    },
  };
}
