/** A running server: the host, its API on the Unix socket, and what it answers over TCP. */
import { listenOnSocket, type Listener } from './api/http.ts';
import { socketPath } from './api/socket-path.ts';
import { Access } from './console/access.ts';
import { listenHttp, type HttpAddress } from './console/listener.ts';
import { LiveFeed } from './console/live-feed.ts';
import { readPage } from './console/page-files.ts';
import type { HostParts } from './host-parts.ts';
import { Host, type HostOptions } from './host.ts';
import { metricsOf } from './metrics.ts';
import { checkListening } from './listening.ts';
import { hostOperations } from './operations/index.ts';

export interface ServeOptions extends HostOptions {
  http: HttpAddress;
  /** Where the built page of the console lies. */
  pageFolder: string;
}

export interface RunningServer {
  /** HOST:PORT, with the real port. */
  readonly peerAddress: string;
  readonly httpAddress: string;
  readonly socketPath: string;
  /** HOST:PORT; null when NBD is served on the Unix socket alone. */
  readonly nbdAddress: string | null;
  /** Rejects when the server ends by itself. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
}

export async function serve(parts: HostParts, options: ServeOptions, version: string): Promise<RunningServer> {
  await checkListening(options);
  const host = await Host.start(parts, options);
  const opened: Listener[] = [];
  try {
    const access = new Access({ catalog: host.catalog, clock: parts.clock, random: parts.random });
    const page = readPage(options.pageFolder);
    let url = '';
    const operations = hostOperations(host, { access, address: () => url, pageBuilt: page.size > 0 });
    const apiOptions = { operations, log: parts.log, version };
    const api = await listenOnSocket(socketPath(options.dataFolder), apiOptions);
    opened.push(api);
    const http = await listenHttp(options.http, {
      ...apiOptions, access, page, clock: parts.clock, fingerprint: host.identity.fingerprint, hostName: host.name,
      metrics: metricsOf(host), feed: new LiveFeed(host, version),
    });
    url = http.url;
    if (page.size === 0) parts.log.warn({ folder: options.pageFolder }, 'the console was not built: run npm run build, then restart');
    opened.push(http);
    const { address, port, family } = host.peer.address;
    return {
      peerAddress: `${family === 'IPv6' ? `[${address}]` : address}:${port}`,
      httpAddress: http.address,
      socketPath: api.address,
      nbdAddress: nbdAddressOf(host),
      ended: new Promise(() => {}),
      async close() {
        for (const listener of opened) await listener.close();
        await host.close();
      },
    };
  } catch (error) {
    for (const listener of opened) await listener.close();
    await host.close();
    throw error;
  }
}

function nbdAddressOf(host: Host): string | null {
  const tcp = host.nbd.address().find(({ kind }) => kind === 'tcp');
  if (tcp?.kind !== 'tcp') return null;
  return `${tcp.host.includes(':') ? `[${tcp.host}]` : tcp.host}:${tcp.port}`;
}
