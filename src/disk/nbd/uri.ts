/** NBD URIs (the NBD project's doc/uri.md): nbd://host[:port]/name and nbd+unix:///name?socket=PATH. */
import { diskNotSupported } from '../disk-errors.ts';

export const NBD_DEFAULT_PORT = 10809;

export interface NbdAddress {
  /** Where to connect, in the words of node:net. */
  connect: { path: string } | { host: string; port: number };
  /** May be empty: the server's default export. */
  exportName: string;
}

export function isNbdUri(location: string): boolean {
  return /^nbds?(\+[a-z]+)?:/i.test(location);
}

/** Fails with DISK_NOT_SUPPORTED on what is no NBD URI, and on transports other than plain TCP and Unix sockets. */
export function parseNbdUri(uri: string): NbdAddress {
  const remedy = 'Write nbd://host:port/name, or nbd+unix:///name?socket=/path/of/the/socket.';
  if (!URL.canParse(uri)) throw diskNotSupported(uri, 'is not a valid URI', remedy);
  const url = new URL(uri);
  const exportName = decode(uri, url.pathname.replace(/^\//, ''));
  switch (url.protocol) {
    case 'nbd:': {
      // `nbd:unix:/path` and `nbd:host:port` are an older notation of QEMU's and have no host here.
      if (url.hostname === '') throw diskNotSupported(uri, 'names no host', remedy);
      const host = decode(uri, url.hostname.replace(/^\[(.*)\]$/, '$1'));
      return { connect: { host, port: url.port === '' ? NBD_DEFAULT_PORT : Number(url.port) }, exportName };
    }
    case 'nbd+unix:': {
      const path = url.searchParams.get('socket');
      if (path === null || path === '') throw diskNotSupported(uri, 'names no socket', remedy);
      return { connect: { path }, exportName };
    }
    case 'nbds:':
    case 'nbds+unix:':
      throw diskNotSupported(uri, 'asks for TLS, which the NBD client does not speak',
        'Tunnel the connection (ssh -L, stunnel, a VPN) and name the local end with nbd:// or nbd+unix://.');
    default:
      throw diskNotSupported(uri, `has the unknown scheme ${url.protocol}`, remedy);
  }
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw diskNotSupported(uri, 'has a malformed % escape', 'Escape % itself as %25.');
  }
}
