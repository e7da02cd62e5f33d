/** A VM's disks and change maps as they are opened: checked against what is on record, also where a crash has interrupted a resize. */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { OpenFile } from '../model/ports.ts';
import { replicatedDisks, type DiskRecord, type VmRecord } from '../model/records.ts';
import { ChangeMap } from './change-map.ts';
import type { TrackedDisk } from './tracked-disk.ts';
import { mapPath, type TrackingPorts } from './tracking-ports.ts';

/** @throws DISK_SIZE_CHANGED when it has neither the size on record nor the one that a resize was about to give it */
export async function openChecked(ports: TrackingPorts, record: DiskRecord): Promise<VirtualDisk> {
  const disk = await ports.openDisk(record);
  const { virtualSize } = disk;
  if (virtualSize === record.virtualSize || virtualSize === record.growTo) return disk;
  await disk.close();
  const back = record.format === 'raw' ? ` (truncate -s ${record.virtualSize} '${record.path}', if nothing has used the rest yet)` : '';
  throw new UnderstudyError('usage', 'DISK_SIZE_CHANGED',
    `disk ${record.path} has ${virtualSize} bytes, it was added with ${record.virtualSize}`,
    virtualSize > record.virtualSize
      ? `Bring it back to its size${back}, then grow it with: understudy vm resize NAME --disk '${record.path}' --size ${virtualSize}`
      : 'Bring it back to its size, or remove the VM and add it again.');
}

/** Opens the maps of all disks. False when one was damaged; it is replaced by one that suspects everything. */
export async function openMaps(ports: TrackingPorts, vm: VmRecord, diskOf: (diskId: string) => TrackedDisk): Promise<boolean> {
  let whole = true;
  for (const disk of replicatedDisks(vm)) {
    const path = mapPath(ports, vm.vmId, disk.diskId);
    let map: ChangeMap;
    try {
      map = await ChangeMap.open(ports.files, path, {
        ...ports.changeMap, diskSize: disk.virtualSize, orSize: disk.growTo, currentEpoch: vm.tracking!.epoch });
    } catch (error) {
      ports.log.error({ vm: vm.name, error: messageOf(error) }, 'the change map is damaged: everything is suspect');
      whole = false;
      map = await freshMap(ports, vm, disk, true);
    }
    // Without logs nothing but a resync explains the bits.
    if (vm.tracking!.mode === 'map-only') map.pin();
    diskOf(disk.diskId).setMap(map);
  }
  return whole;
}

export function freshMap(ports: TrackingPorts, vm: VmRecord, disk: DiskRecord, everything: boolean): Promise<ChangeMap> {
  return ChangeMap.create(ports.files, mapPath(ports, vm.vmId, disk.diskId), { ...ports.changeMap, diskSize: disk.virtualSize, everything });
}

export async function openOrCreate(ports: TrackingPorts, path: string): Promise<OpenFile> {
  const folder = path.slice(0, path.lastIndexOf('/'));
  await ports.files.makeFolder(folder);
  if ((await ports.files.stat(path)) !== null) return ports.files.open(path, 'write');
  const file = await ports.files.open(path, 'create');
  await ports.files.syncFolder(folder);
  return file;
}

/** The records with one disk that is about to get another size, or has it. */
export function resizedDisks(disks: DiskRecord[], diskId: string, change: Partial<Pick<DiskRecord, 'growTo' | 'virtualSize' | 'geometry'>>): DiskRecord[] {
  return disks.map((disk) => {
    if (disk.diskId !== diskId) return disk;
    const { growTo: _, ...settled } = disk;
    return { ...settled, ...change };
  });
}
