/** A copy that is on the replica host already (a restored backup, a disk carried over) as the start of initial replication. */
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord, type VmRecord } from '../model/records.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/**
 * Finds the copy of each disk and makes it the replica disk where it lies. Looked for, in this order: where the replica disk
 * would be made, in the VM's folder of the storage location, and in the storage location itself.
 * @throws EXISTING_COPY_NOT_FOUND naming the places
 */
export async function adoptExisting(ports: Pick<ReplicationPorts, 'files' | 'catalog'>, vm: VmRecord): Promise<void> {
  const found = new Map<string, string>();
  for (const disk of replicatedDisks(vm)) found.set(disk.diskId, await findCopy(ports, disk));
  const disks = vm.disks.map((disk) => ({ ...disk, path: found.get(disk.diskId) ?? disk.path }));
  ports.catalog.transaction(() => ports.catalog.vms.put({ ...ports.catalog.vms.get(vm.vmId)!, disks }));
}

/** @throws EXISTING_COPY_NOT_FOUND naming the places */
export async function findCopy(ports: Pick<ReplicationPorts, 'files'>, disk: DiskRecord): Promise<string> {
  // STORAGE/VM/ID/FILE, as replica-host.ts lays them out.
  const parts = disk.path.split('/');
  const file = parts.at(-1)!;
  const places = [disk.path, [...parts.slice(0, -2), file].join('/'), [...parts.slice(0, -3), file].join('/')];
  for (const place of places) if ((await ports.files.stat(place))?.kind === 'file') return place;
  throw new UnderstudyError('state', 'EXISTING_COPY_NOT_FOUND', `the replica has no copy of ${file} at ${places.join(' or ')}`,
    `Put it at ${places[1]!} on the replica host, then start again; or start without --use-existing.`);
}
