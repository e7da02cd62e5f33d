/** A running server: the host, its API on the Unix socket, and what it answers over TCP. */
import { listenOnSocket, type Listener } from './api/http.ts';
import { listenPublic } from './api/public-http.ts';
import { socketPath } from './api/socket-path.ts';
import type { HostParts } from './host-parts.ts';
import { Host, type HostOptions } from './host.ts';
import { metricsOf } from './metrics.ts';
import { hostOperations } from './operations/index.ts';

export interface ServeOptions extends HostOptions {
  http: { host: string; port: number };
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
  const host = await Host.start(parts, options);
  const opened: Listener[] = [];
  try {
    const api = await listenOnSocket(socketPath(options.dataFolder), { operations: hostOperations(host), log: parts.log, version });
    opened.push(api);
    const http = await listenPublic({ ...options.http, registry: metricsOf(host) });
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
