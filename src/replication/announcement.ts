/** How a primary introduces a VM to its replica: at enabling, and again when settings change. */
import { replicatedDisks, type VmRecord } from '../model/records.ts';
import type { RelationshipSettings } from '../model/settings.ts';
import type { OfferedDisk } from './messages.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** The parameters of `enableMessage`. */
export function announcementOf(ports: Pick<ReplicationPorts, 'hostName' | 'peerPort'>, vm: VmRecord, settings: RelationshipSettings) {
  const disks: OfferedDisk[] = replicatedDisks(vm).map((disk) => ({
    diskId: disk.diskId, fileName: fileNameOf(disk.path), virtualSize: disk.virtualSize, geometry: disk.geometry,
    format: disk.format === 'vhd' || disk.format === 'vhdx' ? disk.format : 'raw',
    logicalSectorSize: disk.logicalSectorSize === 4096 ? 4096 : 512,
  }));
  const { frequencySec, recoveryHistory } = settings;
  return { vmId: vm.vmId, name: vm.name, primaryName: ports.hostName, primaryPort: ports.peerPort(), frequencySec, recoveryHistory, disks };
}

/** A block device or an NBD export becomes a file of a like name. */
function fileNameOf(path: string): string {
  const name = path.replace(/[?#].*$/, '').split('/').findLast((part) => part !== '') ?? 'disk';
  if (/\.qcow2$/i.test(name)) return name.replace(/\.qcow2$/i, '.raw');
  return /\.(raw|img|vhdx?)$/i.test(name) ? name : `${name}.raw`;
}
