/** The end of a relationship that sends, which an operation is about: of the VM's primary here, or of the leg to its extended replica. */
import type { RelationshipRecord, VmRecord } from '../model/records.ts';
import type { Relationships } from '../replication/relationships.ts';
import type { AnySendingVm } from '../replication/sending-vm.ts';
import type { Host } from './host.ts';

export interface SendingEnd {
  extended: boolean;
  relationships: Relationships;
  /** Throws when the VM has no such end here. */
  sender(vmId: string): AnySendingVm;
}

export function sendingEnd(host: Host, extended = false): SendingEnd {
  if (!extended) return { extended, relationships: host.relationships, sender: (vmId) => host.primary(vmId) };
  const { extended: legs } = host;
  // Before anything else is asked of it: a VM without a leg is told so.
  return { extended, relationships: legs.relationships, sender: (vmId) => legs.leg(vmId) };
}

/** By name; of a leg that is not there @throws NOT_EXTENDED, VM_NOT_FOUND */
export function vmOfEnd(host: Host, { name, extended = false }: { name: string; extended?: boolean | undefined }): VmRecord {
  const vm = host.vm(name);
  if (extended) host.extended.leg(vm.vmId);
  return vm;
}

/** The relationship itself, and what sends for it while it is here. */
export function partsOf(host: Host, vm: VmRecord, extended: boolean): { relationship: RelationshipRecord | undefined; sender: AnySendingVm | undefined } {
  if (extended) return { relationship: host.extended.relationships.find(vm.vmId), sender: host.extended.get(vm.vmId) };
  return { relationship: host.relationships.find(vm.vmId), sender: host.primaries.get(vm.vmId) };
}
