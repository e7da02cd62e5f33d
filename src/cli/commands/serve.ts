/** The server of a host, in the foreground. */

import { UnderstudyError } from '../../model/errors.ts';
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext, RunningServer } from '../context.ts';

/** 0.0.0.0 hears every peer that can reach this host; who is heard is decided by fingerprint. */
const PEER_DEFAULT = '0.0.0.0:7743';
const HTTP_DEFAULT = '127.0.0.1:7780';

export const serveCommands: CommandDefinition[] = [
  define<{ peer: string; http: string; httpCert?: string; httpKey?: string; name?: string; nbd?: string; nbdClient?: string[] }>({
    path: 'serve',
    summary: "Run this host's server in the foreground.",
    details:
      'One server holds one data folder: its identity, what it knows of virtual machines, tracking ' +
      'logs and received logs. It prints one ' +
      'line `ready peer=HOST:PORT http=HOST:PORT socket=PATH` when it serves, and logs to stderr as ' +
      'lines of JSON. SIGINT and SIGTERM stop it ' +
      'cleanly: disks are sealed, and the exit code is 0. Killing it is survived, too.\n' +
      'Disks are served on a Unix socket, for hypervisors of this host. With --nbd they are served over TCP too, and the ready ' +
      'line says nbd=HOST:PORT: plain on loopback, else only with TLS, to clients whose certificates --nbd-client names ' +
      '(docs/protocol/nbd.md shows how to make one).',
    options: [
      option('--peer <host:port>', 'where peers are heard; port 0 = any free one').default(PEER_DEFAULT),
      option('--http <host:port>', 'where the console, /healthz and /metrics are served').default(HTTP_DEFAULT),
      option('--http-cert <file>', 'certificate in PEM: needed for any address but loopback'),
      option('--http-key <file>', 'its key in PEM'),
      option('--nbd <host:port>', 'serve disks over TCP too; other addresses than loopback need --nbd-client'),
      option('--nbd-client <fingerprint...>', 'SHA-256 fingerprints of client certificates; NBD over TCP then speaks TLS only'),
      option('--name <name>', "this host's name towards its peers (default: the machine's)"),
    ],
    examples: [
      'serve --data /var/lib/understudy',
      'serve --data ./berlin --peer 127.0.0.1:0 --http 127.0.0.1:0 --name berlin',
      'serve --nbd 0.0.0.0:10809 --nbd-client "$(openssl x509 -in client-cert.pem -noout -fingerprint -sha256 | cut -d= -f2)"',
    ],
    async run(context, _args, { peer, http, httpCert, httpKey, name, nbd, nbdClient }) {
      if ((httpCert === undefined) !== (httpKey === undefined)) {
        throw new UnderstudyError('usage', 'MISSING_MANDATORY_OPTION_VALUE', '--http-cert and --http-key belong together', 'Give both, or neither.');
      }
      const tls = httpCert === undefined ? null : { certPath: context.path(httpCert), keyPath: context.path(httpKey!) };
      const server = await context.surroundings.makeServer({
        dataFolder: context.dataFolder,
        peer: parseHostPort(peer, '--peer'),
        http: { ...parseHostPort(http, '--http'), tls },
        name: name ?? null,
        ...nbdOverTcp(nbd, nbdClient ?? []),
      });
      await serveUntilStopped(server, context);
    },
  }),
];

function nbdOverTcp(nbd: string | undefined, clients: string[]): { nbd?: { host: string; port: number; clients: string[] } } {
  if (nbd !== undefined) return { nbd: { ...parseHostPort(nbd, '--nbd'), clients } };
  if (clients.length === 0) return {};
  throw new UnderstudyError('usage', 'MISSING_MANDATORY_OPTION_VALUE', '--nbd-client is given, and no --nbd: NBD is not served over TCP then',
    'Add --nbd HOST:PORT, for example --nbd 0.0.0.0:10809.');
}

async function serveUntilStopped(server: RunningServer, { output, signal }: CommandContext): Promise<void> {
  const nbd = server.nbdAddress ?? null;
  const ready = { peer: server.peerAddress, http: server.httpAddress, socket: server.socketPath, ...(nbd === null ? {} : { nbd }) };
  const more = nbd === null ? '' : ` nbd=${nbd}`;
  output.printNext(ready, ({ peer, http, socket }) => `ready peer=${peer} http=${http} socket=${socket}${more}`);
  try {
    await Promise.race([server.ended, aborted(signal)]);
  } finally {
    await server.close();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** `HOST:PORT`, IPv6 addresses in brackets. Throws UnderstudyError usage BAD_ADDRESS. */
export function parseHostPort(text: string, what: string): { host: string; port: number } {
  const match = /^(\[[0-9A-Fa-f:.%\w]+\]|[^:\s[\]]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw new UnderstudyError(
      'usage',
      'BAD_ADDRESS',
      `${what} ${text} is not HOST:PORT`,
      'Give for example 127.0.0.1:7743 or [::1]:7743.',
    );
  }
  return { host: match[1]!.replace(/^\[|\]$/g, ''), port };
}
