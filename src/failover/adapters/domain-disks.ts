/** The disks of a domain, replaced by what is served here. Pure. */
import type { Element } from '@xmldom/xmldom';
import { parseNbdUri } from '../../model/hypervisor-lines.ts';
import { append, childOf, childrenOf, keepOnly } from './domain-elements.ts';

export interface DomainDisk {
  /** Where it is served here. */
  uri: string;
  logicalSectorSize: number;
  /** The name under which the domain opens it on the primary. */
  exportedAs: string | null;
}

const KEPT_OF_DISK = new Set(['target', 'address', 'boot', 'serial', 'wwn', 'vendor', 'product', 'blockio', 'geometry', 'iotune', 'shareable']);
const RECONNECT_SECONDS = '60';

/**
 * Each served disk takes the place of the one that the domain opens under its name on the primary. When the domain names none of them
 * and has as many disks, they are the same in order. What is left over of the domain's goes, what is left over of ours is added.
 */
export function editDisks(devices: Element, disks: readonly DomainDisk[], dropped: string[]): void {
  const fixed = childrenOf(devices, 'disk').filter((disk) => ['', 'disk', 'lun'].includes(disk.getAttribute('device') ?? ''));
  for (const disk of childrenOf(devices, 'disk')) if (!fixed.includes(disk)) eject(disk);
  const places = new Map<DomainDisk, Element>();
  for (const element of fixed) {
    const name = nbdName(element);
    const disk = disks.find((one) => one.exportedAs !== null && one.exportedAs === name);
    if (disk !== undefined && !places.has(disk)) places.set(disk, element);
  }
  if (places.size === 0 && fixed.length === disks.length) disks.forEach((disk, index) => places.set(disk, fixed[index]!));
  for (const element of fixed) {
    if ([...places.values()].includes(element)) continue;
    devices.removeChild(element);
    dropped.push(`disk ${childOf(element, 'target')?.getAttribute('dev') ?? ''}, which is not replicated`);
  }
  for (const disk of disks) fill(places.get(disk) ?? added(devices), disk);
}

function nbdName(element: Element): string | null {
  const source = childOf(element, 'source');
  return source?.getAttribute('protocol') === 'nbd' ? source.getAttribute('name') : null;
}

/** A drive without its medium: that is a file of the other host. */
function eject(disk: Element): void {
  keepOnly(disk, new Set([...KEPT_OF_DISK, 'readonly']));
  disk.setAttribute('type', 'file');
}

function added(devices: Element): Element {
  const taken = new Set(childrenOf(devices, 'disk').map((disk) => childOf(disk, 'target')?.getAttribute('dev')));
  const letters = 'abcdefghijklmnopqrstuvwxyz';
  const names = [...letters, ...[...letters].flatMap((first) => [...letters].map((second) => first + second))].map((end) => `vd${end}`);
  const element = append(devices, 'disk', {});
  append(element, 'target', { dev: names.find((name) => !taken.has(name))!, bus: 'virtio' });
  return element;
}

function fill(element: Element, { uri, logicalSectorSize }: DomainDisk): void {
  keepOnly(element, KEPT_OF_DISK);
  for (const name of ['snapshot', 'rawio', 'sgio', 'model']) element.removeAttribute(name);
  element.setAttribute('type', 'network');
  element.setAttribute('device', 'disk');
  append(element, 'driver', { name: 'qemu', type: 'raw', cache: 'none', discard: 'unmap' });
  const { exportName, socket, host, port, tls } = parseNbdUri(uri)!;
  const source = append(element, 'source', { protocol: 'nbd', name: exportName, ...(tls ? { tls: 'yes' } : {}) });
  append(source, 'host', socket === null ? { name: host, port } : { transport: 'unix', socket });
  append(source, 'reconnect', { delay: RECONNECT_SECONDS });
  if (logicalSectorSize !== 512 && childOf(element, 'blockio') === null) {
    append(element, 'blockio', { logical_block_size: String(logicalSectorSize), physical_block_size: String(logicalSectorSize) });
  }
}
