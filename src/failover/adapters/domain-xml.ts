/**
 * A libvirt domain of the primary made into one that this host may run: on the disks that are served here, under its own name, its
 * network cards unplugged unless told otherwise. Pure.
 *
 * The definition comes from another host, and a domain can name any file, device or program of this one. So what is not known to be
 * harmless is left out, and told: an allow-list (promise 7: a peer changes nothing but its own VM).
 */
import { createHash } from 'node:crypto';
import { DOMParser, XMLSerializer, type Document, type Element } from '@xmldom/xmldom';
import { UnderstudyError } from '../../model/errors.ts';
import { editDisks, type DomainDisk } from './domain-disks.ts';
import { append, childOf, childrenOf, keepOnly } from './domain-elements.ts';

/** Real ones have 3 to 30 KiB. */
export const DOMAIN_XML_BYTES_MAX = 256 * 1024;

export interface DomainEdit {
  name: string;
  /** For a test guest: other identities than the guest's. Else they stay. */
  test: { uuid: string; macSeed: string } | null;
  disks: DomainDisk[];
  /** What a card is plugged into here, by network, bridge or device of the primary, or `*`: NETWORK, or bridge:NAME. */
  networks: Readonly<Record<string, string>>;
}

const KEPT = new Set(['name', 'uuid', 'genid', 'title', 'description', 'metadata', 'memory', 'currentMemory', 'maxMemory', 'vcpu', 'vcpus', 'iothreads',
  'iothreadids', 'sysinfo', 'os', 'features', 'cpu', 'clock', 'on_poweroff', 'on_reboot', 'on_crash', 'pm', 'devices']);
const KEPT_OF_OS = new Set(['type', 'boot', 'bootmenu', 'smbios', 'bios', 'firmware', 'loader', 'nvram']);
const KEPT_DEVICES = new Set(['disk', 'controller', 'interface', 'input', 'graphics', 'video', 'sound', 'memballoon', 'rng', 'channel', 'serial', 'console',
  'tpm', 'watchdog', 'panic', 'hub', 'iommu']);
const KEPT_OF_INTERFACE = new Set(['mac', 'model', 'boot', 'address', 'mtu']);
const CHANNELS = new Set(['unix', 'spicevmc', 'qemu-vdagent']);
/** Firmware that packages install; anything else could be any file. */
const FIRMWARE = /^\/usr\/share\/(?!.*\.\.)[\w./+-]+$/;
const RANDOM_DEVICES = new Set(['/dev/urandom', '/dev/random', '/dev/hwrng']);

/** @throws DOMAIN_XML_INVALID */
export function parseDomain(xml: string): Document {
  if (Buffer.byteLength(xml) > DOMAIN_XML_BYTES_MAX) throw invalid(`it has ${Buffer.byteLength(xml)} bytes, at most ${DOMAIN_XML_BYTES_MAX} are taken`);
  // Nothing that libvirt writes has one, and entities are how a small text becomes a large one.
  if (/<!(DOCTYPE|ENTITY)/i.test(xml)) throw invalid('it has a document type');
  let document: Document;
  try {
    document = new DOMParser({ onError: (_level, message) => {
      throw new Error(message);
    } }).parseFromString(xml, 'text/xml');
  } catch (error) {
    throw invalid((error as Error).message.split('\n')[0]!);
  }
  const root = document.documentElement;
  if (root?.tagName !== 'domain') throw invalid(`its root is <${root?.tagName ?? 'nothing'}>`);
  return document;
}

/** `dropped`: what was left out, for people. @throws DOMAIN_XML_INVALID */
export function editDomain(xml: string, edit: DomainEdit): { xml: string; dropped: string[] } {
  const document = parseDomain(xml);
  const root = document.documentElement!;
  const dropped: string[] = [];
  root.removeAttribute('id');
  keepOnly(root, KEPT, dropped);
  setText(root, 'name', edit.name);
  if (edit.test !== null) setText(root, 'uuid', edit.test.uuid);
  else if (childOf(root, 'uuid') === null) throw invalid('it has no uuid');
  if (edit.test !== null) childOf(root, 'genid')?.parentNode?.removeChild(childOf(root, 'genid')!);
  for (const sysinfo of childrenOf(root, 'sysinfo')) editSysinfo(sysinfo, edit.test?.uuid ?? null, dropped);
  childOf(root, 'vcpu')?.removeAttribute('cpuset');
  const os = childOf(root, 'os');
  if (os !== null) editOs(os, dropped);
  const devices = childOf(root, 'devices') ?? append(root, 'devices', {});
  editDevices(devices, edit, dropped);
  return { xml: new XMLSerializer().serializeToString(document), dropped };
}

function editDevices(devices: Element, edit: DomainEdit, dropped: string[]): void {
  // Which program emulates the machine is this host's own choice.
  for (const emulator of childrenOf(devices, 'emulator')) devices.removeChild(emulator);
  keepOnly(devices, KEPT_DEVICES, dropped);
  for (const device of childrenOf(devices)) {
    for (const alias of childrenOf(device, 'alias')) device.removeChild(alias);
    const strange = editDevice(device, edit);
    if (strange === null) continue;
    devices.removeChild(device);
    dropped.push(strange);
  }
  editDisks(devices, edit.disks, dropped);
}

/** Null when the device may stay; else what it is. */
function editDevice(device: Element, edit: DomainEdit): string | null {
  const type = device.getAttribute('type') ?? '';
  const named = `${device.tagName} of type ${type}`;
  switch (device.tagName) {
    case 'interface':
      editInterface(device, edit);
      return null;
    case 'input':
      return type === 'passthrough' || type === 'evdev' ? named : null;
    case 'graphics':
      for (const name of ['listen', 'socket', 'passwd', 'passwdValidTo', 'keymap']) device.removeAttribute(name);
      for (const child of childrenOf(device)) device.removeChild(child);
      if (type === 'vnc' || type === 'spice') device.setAttribute('listen', '127.0.0.1');
      return ['vnc', 'spice'].includes(type) ? null : named;
    case 'serial': case 'console':
      device.setAttribute('type', 'pty');
      device.removeAttribute('tty');
      keepOnly(device, new Set(['target', 'address']));
      return null;
    case 'channel':
      keepOnly(device, new Set(['target', 'address']));
      return CHANNELS.has(type) ? null : named;
    case 'rng':
      return childrenOf(device, 'backend').every((backend) => backend.getAttribute('model') === 'builtin' ||
        (backend.getAttribute('model') === 'random' && RANDOM_DEVICES.has(textOf(backend)))) ? null : 'rng with another source';
    case 'tpm':
      for (const backend of childrenOf(device, 'backend')) keepOnly(backend, new Set(['active_pcr_banks']));
      return childrenOf(device, 'backend').every((backend) => backend.getAttribute('type') === 'emulator') ? null : 'tpm of this machine';
    default:
      return null;
  }
}

function editInterface(device: Element, { networks, test }: DomainEdit): void {
  const source = childOf(device, 'source');
  const before = ['network', 'bridge', 'dev'].map((name) => source?.getAttribute(name) ?? '').find((name) => name !== '') ?? '';
  const plug = networks[before] ?? networks['*'] ?? null;
  const mac = childOf(device, 'mac');
  const address = mac?.getAttribute('address') ?? '';
  if (test !== null && mac !== null) mac.setAttribute('address', testMac(test.macSeed, address));
  keepOnly(device, KEPT_OF_INTERFACE);
  for (const name of ['managed', 'trustGuestRxFilters']) device.removeAttribute(name);
  if (plug === null) {
    // Of all kinds the one that needs nothing of the host; with its link down nothing comes through.
    device.setAttribute('type', 'user');
    append(device, 'link', { state: 'down' });
    return;
  }
  const bridge = /^bridge:(.+)$/.exec(plug)?.[1];
  device.setAttribute('type', bridge === undefined ? 'network' : 'bridge');
  append(device, 'source', bridge === undefined ? { network: plug } : { bridge });
}

/** The same card gets the same address in every test of the same VM; QEMU's own range. */
export function testMac(seed: string, mac: string): string {
  const digest = createHash('sha256').update(`${seed} ${mac.toLowerCase()}`).digest('hex');
  return `52:54:00:${digest.slice(0, 2)}:${digest.slice(2, 4)}:${digest.slice(4, 6)}`;
}

function editOs(os: Element, dropped: string[]): void {
  keepOnly(os, KEPT_OF_OS, dropped);
  for (const loader of childrenOf(os, 'loader')) {
    if (textOf(loader) === '' || FIRMWARE.test(textOf(loader))) continue;
    os.removeChild(loader);
    dropped.push(`loader ${textOf(loader)}`);
  }
  for (const nvram of childrenOf(os, 'nvram')) {
    const template = nvram.getAttribute('template') ?? '';
    os.removeChild(nvram);
    // The file is the other host's; a new one is made from the template.
    if (FIRMWARE.test(template) && childOf(os, 'loader') !== null) append(os, 'nvram', { template });
  }
}

function editSysinfo(sysinfo: Element, uuid: string | null, dropped: string[]): void {
  if (sysinfo.getAttribute('type') !== 'smbios') {
    sysinfo.parentNode!.removeChild(sysinfo);
    dropped.push(`sysinfo of type ${sysinfo.getAttribute('type') ?? ''}`);
    return;
  }
  const entries = childrenOf(sysinfo, 'system').flatMap((system) => childrenOf(system, 'entry'));
  for (const entry of entries) if (uuid !== null && entry.getAttribute('name') === 'uuid') entry.textContent = uuid;
}

function setText(root: Element, name: string, text: string): void {
  const element = childOf(root, name) ?? append(root, name, {});
  element.textContent = text;
}

const textOf = (element: Element): string => (element.textContent ?? '').trim();

const invalid = (why: string): UnderstudyError =>
  new UnderstudyError('usage', 'DOMAIN_XML_INVALID', `the definition of the domain cannot be used: ${why}`,
    'See on the primary: virsh dumpxml DOMAIN. On this host the domain may also be defined by hand.');
