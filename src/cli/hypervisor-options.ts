/** How this host starts and stops a guest, as options of `set`. */
import type { Option } from 'commander';
import { UnderstudyError } from '../model/errors.ts';
import { ADAPTERS, ADAPTER_TIMEOUT_SEC_MAX } from '../model/hypervisor.ts';
import type { Params } from '../server/api/contract.ts';
import { collect, integer, option } from './command.ts';

type Hypervisor = NonNullable<Params<'set'>['hypervisor']>;

export interface HypervisorOptions {
  adapter?: (typeof ADAPTERS)[number];
  adapterCommand?: string;
  adapterTimeout?: number;
  libvirtUri?: string;
  libvirtDomain?: string;
  network?: string[];
  testNetwork?: string;
  guestAgent?: string;
  guestAddress?: string[];
}

export function hypervisorOptions(): Option[] {
  return [
    option('--adapter <kind>', 'on this host: what starts and stops the guest').choices([...ADAPTERS]),
    option('--adapter-command <path>', 'program of the adapter command'),
    option('--adapter-timeout <seconds>', 'what one action of the adapter may take').argParser(integer(1, ADAPTER_TIMEOUT_SEC_MAX)),
    option('--libvirt-uri <uri>', 'connection of the adapter libvirt'),
    option('--libvirt-domain <name>', 'its domain, when it is not named as the VM; none = as the VM'),
    option('--network <old=new>', 'adapter libvirt: plug cards of the network or bridge OLD (* = any) into NEW, or bridge:NEW; may be repeated; '
      + 'none = leave all unplugged').argParser(collect),
    option('--test-network <name>', 'adapter libvirt: plug test guests into this network, or bridge:NAME; none = leave them unplugged'),
    option('--guest-agent <socket>', "Unix socket of QEMU's guest agent; libvirt = through the domain; none = there is none"),
    option('--guest-address <card=address>', 'after a failover to this host the card (a MAC, or an interface of the guest) gets '
      + 'ADDRESS/PREFIX[,gateway=A][,dns=A]…; may be repeated; none = none').argParser(collect),
  ];
}

/** Only what was given. */
export function hypervisorFrom(given: HypervisorOptions, absolute: (path: string) => string): Hypervisor {
  const change: Hypervisor = {};
  if (given.adapter !== undefined) change.adapter = given.adapter;
  if (given.adapterCommand !== undefined) change.command = orNull(given.adapterCommand, absolute);
  if (given.adapterTimeout !== undefined) change.timeoutSec = given.adapterTimeout;
  if (given.libvirtUri !== undefined) change.libvirtUri = given.libvirtUri;
  if (given.libvirtDomain !== undefined) change.libvirtDomain = orNull(given.libvirtDomain);
  if (given.network !== undefined) change.networks = Object.fromEntries(listed(given.network).map(splitAtEquals));
  if (given.testNetwork !== undefined) change.testNetwork = orNull(given.testNetwork);
  if (given.guestAgent !== undefined) change.guestAgent = given.guestAgent === 'libvirt' ? 'libvirt' : orNull(given.guestAgent, absolute);
  if (given.guestAddress !== undefined) change.addresses = listed(given.guestAddress).map(parseAddress);
  return change;
}

const orNull = (text: string, of: (text: string) => string = (same) => same): string | null => (text === 'none' ? null : of(text));
const listed = (texts: readonly string[]): readonly string[] => (texts.length === 1 && texts[0] === 'none' ? [] : texts);

function splitAtEquals(text: string): [string, string] {
  const [, before, after] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (before === undefined || after === undefined) throw bad(`'${text}' is not of the form A=B`);
  return [before, after];
}

function parseAddress(text: string): NonNullable<Hypervisor['addresses']>[number] {
  const [card, rest] = splitAtEquals(text);
  const [where, ...more] = rest.split(',');
  const [, address, prefix] = /^([^/]+)\/(\d{1,3})$/.exec(where!) ?? [];
  if (address === undefined) throw bad(`'${where}' is not ADDRESS/PREFIX, as in 10.0.0.5/24`);
  const given = more.map(splitAtEquals);
  const strange = given.find(([name]) => name !== 'gateway' && name !== 'dns');
  if (strange !== undefined) throw bad(`'${strange[0]}' is neither gateway nor dns`);
  const gateway = given.find(([name]) => name === 'gateway')?.[1] ?? null;
  return { card, address, prefix: Number(prefix), gateway, dns: given.flatMap(([name, value]) => (name === 'dns' ? [value] : [])) };
}

const bad = (what: string): UnderstudyError => new UnderstudyError('usage', 'BAD_SETTING', what, 'See: understudy set --help');
