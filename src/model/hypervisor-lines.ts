/** Ready-to-paste lines that make a hypervisor open disks served over NBD. */

/** Long enough for a restart of the server under load: the guest's I/O waits instead of failing. */
const RECONNECT_SECONDS = 60;

/** A disk as a guest gets it. `logicalSectorSize` in bytes; without it 512, which is what hypervisors assume. */
export interface PastedDisk {
  uri: string;
  logicalSectorSize?: number | undefined;
}

interface NbdAddress {
  exportName: string;
  socket: string | null;
  host: string;
  port: string;
  tls: boolean;
}

/** Where the client's certificate is looked for: ca-cert.pem, client-cert.pem, client-key.pem (docs/protocol/nbd.md). */
const CERTIFICATES = '/etc/pki/understudy';

/** Null for what is not an NBD URI of a Unix socket or of TCP. */
export function parseNbdUri(uri: string): NbdAddress | null {
  const match = /^nbd(s)?(\+unix)?:\/\/([^/?]*)\/?([^?]*)(?:\?(.*))?$/.exec(uri);
  if (match === null) return null;
  const [, tls, unix, authority = '', name = '', query = ''] = match;
  const exportName = decodeURIComponent(name);
  if (unix !== undefined) {
    const socket = new URLSearchParams(query).get('socket');
    return socket === null ? null : { exportName, socket, host: '', port: '', tls: tls !== undefined };
  }
  const [, host = '', port = '10809'] = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(authority) ?? [];
  return { exportName, socket: null, host: host.replace(/^\[|\]$/g, ''), port, tls: tls !== undefined };
}

/** Options for a QEMU command line, one disk after another. */
export function qemuLines(disks: readonly PastedDisk[]): string {
  const secured = disks.some(({ uri }) => parseNbdUri(uri)?.tls === true);
  // Both certificates are their own issuers, which QEMU's check of the files would not expect.
  const credentials = `-object tls-creds-x509,id=understudy,endpoint=client,dir=${CERTIFICATES},sanity-check=off \\\n`;
  return (secured ? credentials : '') + disks
    .map(({ uri, logicalSectorSize }, index) => {
      const address = parseNbdUri(uri);
      if (address === null) return `# ${uri}: no line for this kind of address`;
      const server =
        address.socket === null
          ? `server.type=inet,server.host=${comma(address.host)},server.port=${address.port}`
          : `server.type=unix,server.path=${comma(address.socket)}`;
      const node = `driver=nbd,node-name=disk${index},${server},export=${comma(address.exportName)}${address.tls ? ',tls-creds=understudy' : ''}`;
      return (
        `-blockdev ${quoted(`${node},reconnect-delay=${RECONNECT_SECONDS},discard=unmap,cache.direct=on`)} \\\n` +
        `-device virtio-blk-pci,drive=disk${index}${largeSectors(logicalSectorSize)}`
      );
    })
    .join(' \\\n');
}

/** `<disk>` elements for a libvirt domain. */
export function libvirtLines(disks: readonly PastedDisk[]): string {
  return disks
    .map(({ uri, logicalSectorSize }, index) => {
      const address = parseNbdUri(uri);
      if (address === null) return `<!-- ${xml(uri)}: no element for this kind of address -->`;
      const host =
        address.socket === null
          ? `<host name='${xml(address.host)}' port='${address.port}'/>`
          : `<host transport='unix' socket='${xml(address.socket)}'/>`;
      return [
        `<disk type='network' device='disk'>`,
        `  <driver name='qemu' type='raw' cache='none' discard='unmap'/>`,
        `  <source protocol='nbd' name='${xml(address.exportName)}'${address.tls ? " tls='yes'" : ''}>`,
        `    ${host}`,
        `    <reconnect delay='${RECONNECT_SECONDS}'/>`,
        `  </source>`,
        `  <target dev='${targetName(index)}' bus='virtio'/>`,
        ...(needsSectors(logicalSectorSize) ?
          [`  <blockio logical_block_size='${logicalSectorSize}' physical_block_size='${logicalSectorSize}'/>`] : []),
        `</disk>`,
      ].join('\n');
    })
    .join('\n');
}

/**
 * NBD does not tell a guest how large sectors are: QEMU assumes 512 bytes, and then a partition table that was written with
 * sectors of 4096 bytes is not found. QEMU refuses physical blocks that are smaller than logical ones.
 */
const needsSectors = (bytes: number | undefined): bytes is number => bytes !== undefined && bytes !== 512;

const largeSectors = (bytes: number | undefined): string =>
  (needsSectors(bytes) ? `,logical_block_size=${bytes},physical_block_size=${bytes}` : '');

/** vda … vdz, vdaa …, as Linux counts. */
function targetName(index: number): string {
  const letters = (value: number): string =>
    (value >= 26 ? letters(Math.floor(value / 26) - 1) : '') + String.fromCharCode(97 + (value % 26));
  return `vd${letters(index)}`;
}

/** QEMU's option lists end a value at a comma; two stand for one. */
function comma(value: string): string {
  return value.replaceAll(',', ',,');
}

function quoted(word: string): string {
  return /^[\w./:=,+@%-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function xml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&apos;', '"': '&quot;' };
  return text.replace(/[&<>'"]/g, (character) => entities[character]!);
}
