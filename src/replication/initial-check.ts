/**
 * What a replica says before an initial replication begins, so that one that cannot succeed is refused at once. Changes nothing: no file,
 * no folder, no record.
 */
import { replicatedDisks, type DiskRecord } from '../model/records.ts';
import { findCopy } from './existing-copy.ts';
import { incomingPath } from './initial-receiver.ts';
import type { CheckedCopy } from './messages.ts';
import type { ReplicaVm } from './replica-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/**
 * `freeBytes`: for new disks, what an earlier run has left counted in, as that goes first. `disks`: the copies that are there, for the
 * method that needs them. @throws REPLICA_BUSY, EXISTING_COPY_NOT_FOUND
 */
export async function checkInitial(
  ports: ReplicationPorts, vm: ReplicaVm, method: 'network' | 'existing',
): Promise<{ freeBytes: number; disks: CheckedCopy[] }> {
  vm.refuseWhileServed('an initial copy');
  const records = replicatedDisks(vm.vm);
  return { freeBytes: await freeBytes(ports, vm, records), disks: method === 'network' ? [] : await copies(ports, records) };
}

async function freeBytes({ files }: ReplicationPorts, vm: ReplicaVm, records: DiskRecord[]): Promise<number> {
  // The VM's own folder is yet to be made; its storage location is there since the VM was enabled.
  let folder = records[0]!.path;
  do folder = folder.slice(0, folder.lastIndexOf('/')) || '/';
  while (folder !== '/' && (await files.stat(folder)) === null);
  let free = await files.freeBytes(folder);
  const token = vm.relationship.initial?.token ?? '';
  if (token === '') return free;
  for (const record of records) free += (await files.stat(incomingPath(record, token)))?.allocated ?? 0;
  return free;
}

async function copies(ports: ReplicationPorts, records: DiskRecord[]): Promise<CheckedCopy[]> {
  const found: CheckedCopy[] = [];
  for (const record of records) {
    const path = await findCopy(ports, record);
    const disk = await ports.openDiskForReading({ ...record, path });
    const { format, virtualSize, logicalSectorSize, geometry } = disk;
    await disk.close();
    found.push({ diskId: record.diskId, path, missing: false, format, virtualSize, logicalSectorSize, geometry });
  }
  return found;
}
