/** The server of a host, in the foreground. */

import { UnderstudyError } from '../../model/errors.ts';
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext, RunningServer } from '../context.ts';

/** 0.0.0.0 hears every peer that can reach this host; who is heard is decided by fingerprint. */
const PEER_DEFAULT = '0.0.0.0:7743';
const HTTP_DEFAULT = '127.0.0.1:7780';

export const serveCommands: CommandDefinition[] = [
  define<{ peer: string; http: string; name?: string }>({
    path: 'serve',
    summary: "Run this host's server in the foreground.",
    details:
      'One server holds one data folder: its identity, what it knows of virtual machines, tracking ' +
      'logs and received logs. It prints one ' +
      'line `ready peer=HOST:PORT http=HOST:PORT socket=PATH` when it serves, and logs to stderr as ' +
      'lines of JSON. SIGINT and SIGTERM stop it ' +
      'cleanly: disks are sealed, and the exit code is 0. Killing it is survived, too.',
    options: [
      option('--peer <host:port>', 'where peers are heard; port 0 = any free one').default(PEER_DEFAULT),
      option('--http <host:port>', 'where /healthz and /metrics are served without a log-in').default(HTTP_DEFAULT),
      option('--name <name>', "this host's name towards its peers (default: the machine's)"),
    ],
    examples: [
      'serve --data /var/lib/understudy',
      'serve --data ./berlin --peer 127.0.0.1:0 --http 127.0.0.1:0 --name berlin',
    ],
    async run(context, _args, { peer, http, name }) {
      const server = await context.surroundings.makeServer({
        dataFolder: context.dataFolder,
        peer: parseHostPort(peer, '--peer'),
        http: parseHostPort(http, '--http'),
        name: name ?? null,
      });
      await serveUntilStopped(server, context);
    },
  }),
];

async function serveUntilStopped(server: RunningServer, { output, signal }: CommandContext): Promise<void> {
  const ready = { peer: server.peerAddress, http: server.httpAddress, socket: server.socketPath };
  output.printNext(ready, ({ peer, http, socket }) => `ready peer=${peer} http=${http} socket=${socket}`);
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
