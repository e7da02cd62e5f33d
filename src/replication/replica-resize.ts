/**
 * Replica disks that follow a resize of the primary's (R26): the first set of logs of the new size grows them before it is applied.
 * A replica disk never becomes smaller, and nothing but such a set, or its administrator, makes it larger.
 */
import { UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { DiskRecord, InboxRecord } from '../model/records.ts';
import type { ReplicaVm } from './replica-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** Both sizes, when the set is of a smaller disk than the replica has; else null. */
export function shrunkDisk(record: InboxRecord, disks: DiskRecord[]): string | null {
  for (const { diskId, diskSize } of record.disks) {
    const disk = disks.find((one) => one.diskId === diskId);
    if (disk === undefined || diskSize >= disk.virtualSize) continue;
    return `the log of epoch ${record.epoch} is of a disk of ${diskSize} bytes, replica disk ${disk.path} has ${disk.virtualSize}`;
  }
  return null;
}

/** Grows the disks that the set needs larger; durable, and on record, when it resolves. Repeatable: the set is on record as `applying`. */
export async function growForSet(ports: ReplicationPorts, vm: ReplicaVm, record: InboxRecord): Promise<void> {
  for (const { diskId, diskSize } of record.disks) {
    const disk = vm.vm.disks.find((one) => one.diskId === diskId)!;
    if (disk.virtualSize < diskSize) await grow(ports, vm, disk, diskSize);
  }
}

/**
 * By its administrator, so that a resynchronization finds disks of one size. Holds apply back meanwhile.
 * @throws REPLICA_BUSY while a copy, a set of logs or a resynchronization is in the disk
 */
export async function growReplica(ports: ReplicationPorts, vm: ReplicaVm, disk: DiskRecord, size: number): Promise<void> {
  const release = await vm.pin('resize');
  try {
    const { initial, resync, applying } = vm.relationship;
    const why = initial !== null ? 'initial replication' : resync !== null ? 'a resynchronization' : applying !== null ? `the log of epoch ${applying}` : null;
    if (why !== null) {
      throw new UnderstudyError('state', 'REPLICA_BUSY', `${why} is being written to ${disk.path}`, 'Wait until it has ended, or cancel it.');
    }
    await grow(ports, vm, disk, size);
    ports.relationships.update(vm.vmId, { appliedSeals: await vm.seals() });
  } finally {
    release();
  }
}

async function grow(ports: ReplicationPorts, vm: ReplicaVm, { diskId, path, virtualSize }: DiskRecord, size: number): Promise<void> {
  let geometry: DiskRecord['geometry'];
  const disk = await ports.openDisk(vm.vm.disks.find((one) => one.diskId === diskId)!);
  try {
    if (disk.virtualSize > size) {
      throw new UnderstudyError('io', 'DISK_SIZE_MISMATCH', `replica disk ${path} has ${disk.virtualSize} bytes, it should grow to ${size}`,
        'Make both disks equally large, then resume replication.');
    }
    if (disk.grow === undefined) {
      throw new UnderstudyError('io', 'DISK_NOT_GROWABLE',
        `replica disk ${path} of format ${disk.format} has ${virtualSize} bytes and cannot be grown to ${size} in place`,
        'Remove replication and enable it again.');
    }
    if (disk.virtualSize < size) await disk.grow(size);
    // A VHD's follows its size.
    ({ geometry } = disk);
  } finally {
    await disk.close();
  }
  const { catalog, relationships } = ports;
  catalog.transaction(() => {
    const { disks, ...record } = vm.vm;
    catalog.vms.put({ ...record, disks: disks.map((one) => (one.diskId === diskId ? { ...one, virtualSize: size, geometry } : one)) });
    relationships.note(vm.vmId, makeEvent(ACTIVITY_EVENTS.diskResized, vm.vm.name, { path, beforeBytes: virtualSize, afterBytes: size }));
  });
}
