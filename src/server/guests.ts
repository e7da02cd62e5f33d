/** The guests of a host: which adapter stands for which setting, and where their disks are served. */
import { commandAdapter } from '../failover/adapters/command.ts';
import type { Guest, GuestDisk, HypervisorAdapter } from '../failover/adapters/adapter.ts';
import { testMac } from '../failover/adapters/domain-xml.ts';
import { LibvirtAdapter, type DomainDefinition } from '../failover/adapters/libvirt.ts';
import { noAdapter } from '../failover/adapters/none.ts';
import { DomainDefinitions } from '../failover/domain-definitions.ts';
import { openAgentSocket, type AgentChannel } from '../failover/guest-agent/agent-channel.ts';
import { openAgentOfDomain } from '../failover/guest-agent/agent-of-domain.ts';
import { giveAddresses } from '../failover/guest-agent/guest-addresses.ts';
import { GuestRest } from '../failover/guest-agent/guest-rest.ts';
import { GuestControl } from '../failover/guest-control.ts';
import { UnderstudyError } from '../model/errors.ts';
import { guestName, hypervisorOf, type HypervisorSettings } from '../model/hypervisor.ts';
import type { VmRecord } from '../model/records.ts';
import type { Host } from './host.ts';
import { exportName } from './tracked-export.ts';

export function guestControlOf(host: Host): GuestControl {
  return new GuestControl({
    relationships: host.relationships, clock: host.parts.clock, log: host.parts.log, hostName: host.name,
    adapterFor: (settings) => adapterFor(host, settings), disks: (vm, test) => disksOf(host, vm, test),
    connections: (vmId) => host.guests(vmId), giveAddresses: (guest, signal) => addressesFor(host, guest, signal),
  });
}

function addressesFor(host: Host, guest: Guest, signal: AbortSignal): Promise<void> | null {
  const vm = host.relationships.vm(guest.vmId);
  const { addresses, adapter } = hypervisorOf(vm);
  if (addresses.length === 0) return null;
  const open = agentOf(host, vm, guest.test);
  if (open === null) return Promise.reject(noAgent(vm.name));
  // Test guests of libvirt have MACs of their own; what a program of the user's gives them is not known.
  const macOf = (mac: string): string => (guest.test && adapter === 'libvirt' ? testMac(guest.vmId, mac) : mac);
  return giveAddresses({ clock: host.parts.clock, open, signal, macOf }, addresses);
}

const noAgent = (name: string): UnderstudyError =>
  new UnderstudyError('state', 'NO_GUEST_AGENT', `VM '${name}' has addresses to be set in its guest, and no guest agent on this host`,
    `Name its socket: understudy set '${name}' --guest-agent SOCKET, or --guest-agent libvirt`);

export function domainDefinitionsOf(host: Host): DomainDefinitions {
  return new DomainDefinitions({ ports: host.ports, replicas: host.replicas, read: (vm, signal) => definitionOf(host, vm, signal) });
}

export function guestRestOf(host: Host): GuestRest {
  return new GuestRest({ relationships: host.relationships, clock: host.parts.clock, log: host.parts.log, agentOf: (vm) => agentOf(host, vm, false) });
}

/** Begins a conversation with the agent of the guest, or of the test guest; null when none is set. */
function agentOf({ parts }: Host, vm: VmRecord, test: boolean): ((timeoutMs: number) => Promise<AgentChannel>) | null {
  const settings = hypervisorOf(vm);
  const { guestAgent, libvirtDomain } = settings;
  if (guestAgent === null) return null;
  if (guestAgent !== 'libvirt') return (timeoutMs) => openAgentSocket(parts, guestAgent, timeoutMs);
  const domain = guestName(libvirtDomain ?? vm.name, test);
  return (timeoutMs) => openAgentOfDomain(parts.programs, settings, domain, timeoutMs);
}

function adapterFor(host: Host, settings: HypervisorSettings): HypervisorAdapter {
  if (settings.adapter === 'command') return commandAdapter(host.parts.programs, settings);
  return settings.adapter === 'libvirt' ? libvirtOf(host, settings) : noAdapter;
}

function libvirtOf({ parts, dataFolder, definitions }: Host, settings: HypervisorSettings): LibvirtAdapter {
  const { programs, clock, files, random } = parts;
  return new LibvirtAdapter({ programs, clock, files, random, folder: `${dataFolder}/domains`, definition: (vmId) => definitions.of(vmId),
    isMade: (vmId, domain) => definitions.isMade(vmId, domain), made: (vmId, domain) => definitions.made(vmId, domain) }, settings);
}

async function definitionOf(host: Host, vm: VmRecord, signal: AbortSignal): Promise<DomainDefinition | null> {
  const settings = hypervisorOf(vm);
  if (settings.adapter !== 'libvirt') return null;
  const guest = { vmId: vm.vmId, vmName: vm.name, name: guestName(vm.name, false), test: false, role: vm.side, hostName: host.name, time: null, disks: [] };
  const xml = await libvirtOf(host, settings).definition(guest, signal);
  if (xml === null) return null;
  return { xml, exports: Object.fromEntries(vm.disks.map(({ diskId }, index) => [exportName(vm, index), diskId])) };
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
