/**
 * How this host starts and stops the guest of a VM: settings of one side, kept with the VM and never told to the other host, since
 * paths, networks and addresses are different there.
 */
import { z } from 'zod';
import { parseInput } from './settings.ts';

export const ADAPTERS = ['none', 'command', 'libvirt'] as const;
export type AdapterKind = (typeof ADAPTERS)[number];

export const ADAPTER_TIMEOUT_SEC_DEFAULT = 60;
export const ADAPTER_TIMEOUT_SEC_MAX = 3600;
/** Network cards of a guest that can be given an address or a network. */
export const GUEST_CARDS_MAX = 32;

const absolutePath = z.string().max(4096).regex(/^\/[^\0]*$/, 'an absolute path');
const word = z.string().min(1).max(200).regex(/^[^\p{Cc}]+$/u, 'no control characters');
const mac = z.string().regex(/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/, 'six pairs of hexadecimal digits').transform((text) => text.toLowerCase());
const ip = z.union([z.ipv4(), z.ipv6()]);

/** An address that the guest's network card gets after a failover (IP injection). */
export const guestAddressSchema = z.strictObject({
  /** MAC of the card, or the name of the interface inside of the guest. */
  card: z.union([mac, z.string().regex(/^[a-zA-Z][\w.-]{0,14}$/, 'an interface name')]),
  address: ip,
  prefix: z.int().min(0).max(128),
  gateway: ip.nullable().default(null),
  dns: z.array(ip).max(4).default([]),
}).refine(({ address, prefix }) => address.includes(':') || prefix <= 32, { error: 'the prefix of an IPv4 address is at most 32' })
  .refine(({ address, gateway }) => gateway === null || address.includes(':') === gateway.includes(':'), {
    error: 'address and gateway must be of one family' });
export type GuestAddress = z.output<typeof guestAddressSchema>;

export const hypervisorSchema = z.strictObject({
  adapter: z.enum(ADAPTERS).default('none'),
  /** The user's program; for the adapter `command`. */
  command: absolutePath.nullable().default(null),
  /** What one action may take. */
  timeoutSec: z.int().min(1).max(ADAPTER_TIMEOUT_SEC_MAX).default(ADAPTER_TIMEOUT_SEC_DEFAULT),
  /** For `libvirt`: the connection, and the domain when it is not named as the VM. */
  libvirtUri: word.default('qemu:///system'),
  libvirtDomain: word.nullable().default(null),
  /** For `libvirt`: by network or bridge of the primary, or `*`, what the guest is plugged into here; else it is left unplugged. */
  networks: z.record(word, word).default({}),
  /** For `libvirt`: what test guests are plugged into. */
  testNetwork: word.nullable().default(null),
  /** Socket of QEMU's guest agent; `libvirt`: through the domain. */
  guestAgent: z.union([z.literal('libvirt'), absolutePath]).nullable().default(null),
  addresses: z.array(guestAddressSchema).max(GUEST_CARDS_MAX).default([]),
}).refine(({ adapter, command }) => adapter !== 'command' || command !== null, { error: 'the adapter command needs adapterCommand: the path of a program' });
export type HypervisorSettings = z.output<typeof hypervisorSchema>;
export type HypervisorChange = Partial<z.input<typeof hypervisorSchema>>;

/** The settings of a VM, as they are on record or by default. */
export const hypervisorOf = ({ hypervisor }: { hypervisor?: HypervisorSettings }): HypervisorSettings => hypervisorSchema.parse(hypervisor ?? {});

/** What is not named stays. Throws UnderstudyError usage BAD_SETTING. */
export function changeHypervisor(before: HypervisorSettings, change: HypervisorChange): HypervisorSettings {
  return parseInput(hypervisorSchema, { ...before, ...change }, 'BAD_SETTING', 'Correct the value and try again.');
}

/** What an adapter is asked to do. `start`: define if need be, and start. `stop`: shut down, wait until it is off. `power-off`: at once. */
export const GUEST_ACTIONS = ['start', 'stop', 'power-off', 'start-test', 'stop-test'] as const;
export type GuestAction = (typeof GUEST_ACTIONS)[number];

/** The last action of an adapter for one guest, on record before it begins. */
export interface GuestRun {
  action: GuestAction;
  startedAt: number;
  /** Null while it runs, and after a server that was killed meanwhile. */
  endedAt: number | null;
  failure: { code: string; message: string; remedy: string } | null;
  /** The end of what the program said. */
  output: string;
  /** Whether the guest got its new addresses; absent when none were to be given, or not yet. */
  addresses?: { failure: string | null };
}

/** The name of a guest as hypervisors are told it. */
export const guestName = (vmName: string, test: boolean): string => (test ? `${vmName} - Test` : vmName);
