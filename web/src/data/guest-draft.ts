/** How this host starts the guest, as a form holds it, and what a change of the form asks the server to change. */
import type { HypervisorSettings } from '../../../src/model/hypervisor.ts';
import type { Params } from '../../../src/server/api/contract.ts';

type HypervisorChange = NonNullable<Params<'set'>['hypervisor']>;

export interface AddressDraft {
  card: string;
  /** ADDRESS/PREFIX */
  address: string;
  gateway: string;
  /** With commas. */
  dns: string;
}

export interface GuestDraft {
  adapter: HypervisorSettings['adapter'];
  command: string;
  timeoutSec: string;
  libvirtUri: string;
  /** Empty: named as the VM. */
  libvirtDomain: string;
  /** OLD=NEW, one in each line. */
  networks: string;
  testNetwork: string;
  agent: 'none' | 'libvirt' | 'socket';
  agentSocket: string;
  addresses: AddressDraft[];
}

export function guestDraftOf(settings: HypervisorSettings): GuestDraft {
  const { guestAgent } = settings;
  return {
    adapter: settings.adapter,
    command: settings.command ?? '',
    timeoutSec: String(settings.timeoutSec),
    libvirtUri: settings.libvirtUri,
    libvirtDomain: settings.libvirtDomain ?? '',
    networks: Object.entries(settings.networks).map(([before, after]) => `${before}=${after}`).join('\n'),
    testNetwork: settings.testNetwork ?? '',
    agent: guestAgent === null ? 'none' : guestAgent === 'libvirt' ? 'libvirt' : 'socket',
    agentSocket: guestAgent === null || guestAgent === 'libvirt' ? '' : guestAgent,
    addresses: settings.addresses.map(({ card, address, prefix, gateway, dns }) =>
      ({ card, address: `${address}/${prefix}`, gateway: gateway ?? '', dns: dns.join(', ') })),
  };
}

const words = (text: string, separator: RegExp): string[] => text.split(separator).map((word) => word.trim()).filter((word) => word !== '');
const orNull = (text: string): string | null => (text.trim() === '' ? null : text.trim());

/** All of a draft as the server takes it; the server judges the values. */
function hypervisorOf(draft: GuestDraft): HypervisorChange {
  return {
    adapter: draft.adapter,
    command: orNull(draft.command),
    timeoutSec: Number(draft.timeoutSec),
    libvirtUri: draft.libvirtUri.trim(),
    libvirtDomain: orNull(draft.libvirtDomain),
    networks: Object.fromEntries(words(draft.networks, /\n/).map((line) => {
      const [before = '', ...after] = line.split('=');
      return [before, after.join('=')];
    })),
    testNetwork: orNull(draft.testNetwork),
    guestAgent: draft.agent === 'none' ? null : draft.agent === 'libvirt' ? 'libvirt' : draft.agentSocket.trim(),
    addresses: draft.addresses.map(({ card, address, gateway, dns }) => {
      const [ip = '', prefix] = address.trim().split('/');
      return { card: card.trim(), address: ip, prefix: Number(prefix), gateway: orNull(gateway), dns: words(dns, /,/) };
    }),
  };
}

/** Only what differs; null when nothing does. */
export function guestChangesOf(before: GuestDraft, after: GuestDraft): HypervisorChange | null {
  const [was, is] = [hypervisorOf(before), hypervisorOf(after)] as [Record<string, unknown>, Record<string, unknown>];
  const changed = Object.entries(is).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(was[key]));
  return changed.length === 0 ? null : Object.fromEntries(changed);
}
