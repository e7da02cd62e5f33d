/** What tracking needs of its host, and where it keeps its files. */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { Clock, Compute, Files, Logger, Random } from '../model/ports.ts';
import type { Catalog, DiskRecord, VmRecord } from '../model/records.ts';
import type { TriggerNumber } from '../model/resync-trigger.ts';
import type { TrackedVm } from './tracked-vm.ts';

export interface TrackingPorts {
  files: Files;
  clock: Clock;
  random: Random;
  compute: Compute;
  catalog: Catalog;
  log: Logger;
  /** Of the running kernel: a change means that page caches were lost. */
  bootId: string;
  /** Of this machine. */
  hostId: string;
  /** The data folder. */
  dataFolder: string;
  /** Other than the defaults of the change map; small in the simulation. */
  changeMap?: { regionBytes?: number; hotRegionsMax?: number };
  /** Opens for writing, with the locks that keep others out; rejects with DISK_IN_USE and the like. */
  openDisk(record: DiskRecord): Promise<VirtualDisk>;
}

export interface TrackingLoss {
  trigger: TriggerNumber;
  reason: string;
  /** The change map names every region that may differ, whatever the trigger says. */
  mapKnows?: true;
  /** The disk may be an older state than the replica has: it bears no mark that would tell (R21). */
  mayBeOlder?: true;
}

export interface TrackedVmHooks {
  boundedWaitMs(): number;
  /**
   * Tracking has stopped, or what was tracked is not believed at a start; called inside the catalog transaction that records
   * it.
   */
  trackingLost(loss: TrackingLoss): void;
  /** Runs before anybody else may use the disks; what it writes is tracked. */
  opened?(vm: TrackedVm): Promise<void>;
}

type Where = Pick<TrackingPorts, 'dataFolder'>;

export const vmFolder = (ports: Where, vmId: string): string => `${ports.dataFolder}/vms/${vmId}`;
export const leasePath = (ports: Where, vmId: string): string => `${vmFolder(ports, vmId)}/lease`;
export const mapPath = (ports: Where, vmId: string, diskId: string): string => `${vmFolder(ports, vmId)}/${diskId}.map`;

/**
 * Where the logs of a disk go: the folder the user chose, else beside the disk (as Hyper-V does, and so off the volume of the
 * change maps), else — a block device or an NBD server has no folder — with the VM's other files.
 */
export function logPath(ports: Where, vm: VmRecord, disk: DiskRecord, epoch: number): string {
  const name = disk.path.slice(disk.path.lastIndexOf('/') + 1);
  if (vm.logFolder !== null) return `${vm.logFolder}/${vm.name}.${disk.diskId}.${epoch}.hrl`;
  if (disk.format === 'nbd' || disk.path.startsWith('/dev/')) return `${vmFolder(ports, vm.vmId)}/${disk.diskId}.${epoch}.hrl`;
  return `${disk.path.slice(0, disk.path.lastIndexOf('/'))}/${name}.${epoch}.hrl`;
}
