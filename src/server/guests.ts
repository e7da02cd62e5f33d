/** The guests of a host: which adapter stands for which setting, and where their disks are served. */
import { commandAdapter } from '../failover/adapters/command.ts';
import type { GuestDisk, HypervisorAdapter } from '../failover/adapters/adapter.ts';
import { noAdapter } from '../failover/adapters/none.ts';
import { GuestControl } from '../failover/guest-control.ts';
import type { HypervisorSettings } from '../model/hypervisor.ts';
import type { VmRecord } from '../model/records.ts';
import type { Host } from './host.ts';

export function guestControlOf(host: Host): GuestControl {
  return new GuestControl({
    relationships: host.relationships, clock: host.parts.clock, log: host.parts.log, hostName: host.name,
    adapterFor: (settings) => adapterFor(host, settings), disks: (vm, test) => disksOf(host, vm, test),
    connections: (vmId) => host.guests(vmId),
  });
}

function adapterFor({ parts }: Host, settings: HypervisorSettings): HypervisorAdapter {
  if (settings.adapter === 'command') return commandAdapter(parts.programs, settings);
  return noAdapter;
}

/** What a guest is to open now; empty when nothing is served. */
function disksOf(host: Host, vm: VmRecord, test: boolean): GuestDisk[] {
  if (vm.side === 'replica') {
    return host.failover.served(vm.vmId, test ? 'test' : 'failover').map(({ name, ...disk }) => ({ ...disk, uri: host.exportUri(name) }));
  }
  if (test || vm.attach === 'stopped') return [];
  return vm.disks.map(({ diskId, virtualSize, logicalSectorSize }, index) =>
    ({ diskId, uri: host.uri(vm, index), bytes: virtualSize, logicalSectorSize }));
}
