/** Access to the console and to the API over HTTP. */

import { InvalidArgumentError } from 'commander';
import { SESSION_HOURS_DEFAULT, SESSION_HOURS_MAX, SIGN_IN_MINUTES, TOKEN_DAYS_DEFAULT, TOKEN_DAYS_MAX } from '../../model/roles.ts';
import { define, integer, option, positive } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { Row } from '../output.ts';

const readOnly = option('--read-only', 'see everything, change nothing');
const roleOf = (reads: true | undefined) => (reads === true ? 'reader' as const : 'administrator' as const);

export const consoleCommands: CommandDefinition[] = [
  define<{ readOnly?: true; session?: number; endSessions?: true }>({
    path: 'console',
    summary: 'Print a link that signs one browser in to the console.',
    details:
      `The link works once, within ${SIGN_IN_MINUTES} minutes. The server must run. The console is served on loopback; from another ` +
      'machine forward its port: `ssh -L 7780:127.0.0.1:7780 HOST`, or give `serve` a certificate.',
    options: [
      readOnly,
      option('--session <hours>', `how long the session lasts (default: ${SESSION_HOURS_DEFAULT})`).argParser(sessionHours),
      option('--end-sessions', 'sign every browser out instead').conflicts(['readOnly', 'session']),
    ],
    examples: ['console', 'console --read-only --session 1', 'console --end-sessions'],
    async run({ call, output }, _args, { readOnly: reads, session, endSessions }) {
      if (endSessions === true) {
        output.print(await call('console.end-sessions', {}), ({ ended }) => `${ended} sessions ended.`);
        return;
      }
      const result = await call('console.sign-in', { role: roleOf(reads), ...(session === undefined ? {} : { sessionHours: session }) });
      output.print(result, ({ url, pageBuilt }) =>
        (pageBuilt ? url : `${url}\nThe console was not built: run \`npm run build\` where Understudy is installed, then restart the server.`));
    },
  }),
  define<{ readOnly?: true; days?: number }>({
    path: 'token add',
    arguments: '<name>',
    argumentHelp: { name: 'what it is for' },
    summary: 'Make a token with which a program may use the API over HTTP.',
    details: 'Send it as `Authorization: Bearer TOKEN`. It is shown this once.',
    options: [readOnly, option('--days <n>', `how long it is valid (default: ${TOKEN_DAYS_DEFAULT})`).argParser(integer(1, TOKEN_DAYS_MAX))],
    examples: ['token add prometheus --read-only', 'token add deploy --days 30'],
    async run({ call, output }, [name], { readOnly: reads, days }) {
      const result = await call('token.add', { name: name!, role: roleOf(reads), ...(days === undefined ? {} : { days }) });
      output.print(result, ({ token }) => token);
    },
  }),
  define({
    path: 'token list',
    summary: 'List the tokens of programs, without their secrets.',
    examples: ['token list'],
    async run({ call, output }) {
      output.print(await call('token.list', {}), (tokens) => output.table(tokens.map(tokenRow), 'There is no token.'));
    },
  }),
  define({
    path: 'token remove',
    arguments: '<name>',
    argumentHelp: { name: 'of the token' },
    summary: 'Take a token back at once.',
    examples: ['token remove deploy'],
    async run({ call, output }, [name]) {
      output.print(await call('token.remove', { name: name! }), (token) => output.list(tokenRow(token)));
    },
  }),
];

function tokenRow({ name, role, createdAt, expiresAt }: { name: string; role: string; createdAt: string; expiresAt: string }): Row {
  return [['Name', name], ['Role', role], ['Created', createdAt], ['Expires', expiresAt]];
}

function sessionHours(text: string): number {
  const hours = positive(text);
  if (hours > SESSION_HOURS_MAX) throw new InvalidArgumentError(`It must be at most ${SESSION_HOURS_MAX} hours.`);
  return hours;
}
