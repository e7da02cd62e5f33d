/** A disk that grows, while its guest runs and while it is replicated (R26). */
import { UnderstudyError } from '../../model/errors.ts';
import type { DiskRecord, VmRecord } from '../../model/records.ts';
import type { ReplicationState } from '../../model/replication-state.ts';
import { growReplica } from '../../replication/replica-resize.ts';
import type { HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { vmShape } from '../status.ts';

/** Formats that can be grown in place. */
const GROWABLE: readonly string[] = ['raw', 'vhd', 'vhdx'];
/** While a copy or a compare of the whole disk runs, or somebody else may hold the newer one, its size stays. */
const ON_PRIMARY: readonly ReplicationState[] =
  ['ReadyForInitialReplication', 'Replicating', 'Suspended', 'Error', 'WaitingForStartResynchronize'];
const ON_REPLICA: readonly ReplicationState[] = ['Error', 'WaitingForStartResynchronize'];

export function resizeOperation(host: Host): Pick<HostOperations, 'vm.resize'> {
  return {
    'vm.resize': async ({ name, path, size }) => {
      const vm = host.vm(name);
      const disk = vm.disks.find((one) => one.path === path);
      if (disk === undefined) {
        throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `VM '${name}' has no disk ${path}`, `Its disks: ${vm.disks.map((one) => one.path).join(', ')}`);
      }
      await checkDisk(host, disk, size);
      checkState(host, vm);
      if (vm.side === 'replica') await growReplica(host.ports, host.replicas.get(vm.vmId)!, disk, size);
      else await growPrimary(host, vm, disk, size);
      return vmShape(host, host.vm(name));
    },
  };
}

async function growPrimary(host: Host, vm: VmRecord, disk: DiskRecord, size: number): Promise<void> {
  const primary = host.primary(vm.vmId);
  const tracked = await primary.hold('resize');
  try {
    await tracked.grow(disk.diskId, size);
  } finally {
    host.sizesChanged(vm.vmId);
    await primary.letGo('resize');
  }
  primary.wake();
}

async function checkDisk(host: Host, { path, format, virtualSize, logicalSectorSize }: DiskRecord, size: number): Promise<void> {
  if (!GROWABLE.includes(format) || (await host.parts.files.stat(path))?.kind !== 'file') {
    throw new UnderstudyError('usage', 'DISK_NOT_GROWABLE', `disk ${path} of format ${format} is no raw, VHD or VHDX file: it cannot be grown here`,
      'End replication, remove the VM, grow the disk with the tool that made it, then add the VM and enable replication again.');
  }
  if (size % logicalSectorSize !== 0) {
    throw new UnderstudyError('usage', 'DISK_SIZE_NOT_SECTORS', `${size} bytes are not a whole number of sectors of ${logicalSectorSize} bytes`,
      `Give for example ${Math.ceil(size / logicalSectorSize) * logicalSectorSize}.`);
  }
  if (size > virtualSize) return;
  throw new UnderstudyError('usage', 'DISK_NOT_LARGER', `disk ${path} has ${virtualSize} bytes, asked for were ${size}: a disk can only grow`,
    `Give more than ${virtualSize} bytes.`);
}

function checkState(host: Host, vm: VmRecord): void {
  const relationship = host.relationships.find(vm.vmId);
  if (relationship === undefined) return;
  const { state, side, initial, resync, remote } = relationship;
  const allowed = side === 'primary' ? ON_PRIMARY : ON_REPLICA;
  if (allowed.includes(state) && resync === null && (initial === null || state === 'ReadyForInitialReplication')) return;
  const what = `VM '${vm.name}' is in state ${state}${side === 'replica' ? ' on this host as replica' : ''}: its disks cannot be resized now`;
  throw new UnderstudyError('state', 'INVALID_STATE', what, side === 'replica' && state === 'Replicating'
    ? `Resize it on the primary, host ${remote.name || remote.host}: the replica follows by itself.`
    : `Wait until that has ended, or cancel it; see understudy status '${vm.name}'.`);
}
