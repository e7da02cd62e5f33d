/** Who this host is, and which peers it hears. */

import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { duration, orNothing } from '../format.ts';
import type { Row } from '../output.ts';
import type { AuthorizationEntry } from '../../server/api/contract.ts';

export const pairingCommands: CommandDefinition[] = [
  define({
    path: 'fingerprint',
    summary: "Show this host's name and the fingerprint of its certificate.",
    details: 'Give the fingerprint to the other host: `enable` on a primary and `authorize` on a replica ask for it.',
    examples: ['fingerprint', 'fingerprint --json | jq -r .fingerprint'],
    async run({ call, output }) {
      output.print(await call('fingerprint', {}), ({ fingerprint, name }) =>
        output.list([
          ['Name', name],
          ['Fingerprint', fingerprint],
        ]),
      );
    },
  }),
  define<{ fingerprint: string }>({
    path: 'test-connection',
    arguments: '<host:port>',
    argumentHelp: { 'host:port': 'a host that could keep replicas' },
    summary: 'Find out whether a host answers, is the one that is meant, and lets this host in.',
    details: 'Changes nothing on either side. It says what is wrong: nobody listens, another certificate, not authorised there, or a clock that is ' +
      'more than five minutes off.',
    options: [option('--fingerprint <fingerprint>', "of that host: `understudy fingerprint` shows it there").makeOptionMandatory()],
    examples: ['test-connection munich:7743 --fingerprint 8E:82:…:23:33'],
    async run({ call, output }, [replica], { fingerprint }) {
      output.print(await call('test-connection', { replica: replica!, fingerprint }), ({ hostName, clockSkewSeconds, seconds }) =>
        output.list([['Host', hostName], ['Answered in', duration(seconds)], ['Its clock', `${clockSkewSeconds >= 0 ? '+' : ''}${clockSkewSeconds} s`]]));
    },
  }),
  define<{ name?: string; storage?: string; trustGroup?: string }>({
    path: 'authorize',
    arguments: '<fingerprint>',
    argumentHelp: { fingerprint: 'of the primary host, or "any"' },
    summary: 'Let a peer keep replicas on this host.',
    details:
      'A primary whose fingerprint is not authorised is refused before any of its messages is read.\n' +
      'Running it again for the same fingerprint changes its entry.',
    options: [
      option('--name <name>', 'what you call that host'),
      option('--storage <dir>', 'folder for the replica disks of this peer'),
      option('--trust-group <group>', 'hosts of one group may take over from each other'),
    ],
    examples: ['authorize 9F:86:D0:…:0A:08 --name berlin --storage /srv/replicas'],
    async run({ call, output, path }, [fingerprint], { name, storage, trustGroup }) {
      const entry = await call('authorize', {
        fingerprint: fingerprint!,
        ...(name === undefined ? {} : { name }),
        ...(storage === undefined ? {} : { storage: path(storage) }),
        ...(trustGroup === undefined ? {} : { trustGroup }),
      });
      output.print(entry, (shown) => output.list(entryRow(shown)));
    },
  }),
  define({
    path: 'unauthorize',
    arguments: '<fingerprint>',
    summary: "Take a peer's authorisation back.",
    details: 'Replicas that exist stay on this host; nothing new is received for them.',
    examples: ['unauthorize 9F:86:D0:…:0A:08'],
    async run({ call, output }, [fingerprint]) {
      output.print(await call('unauthorize', { fingerprint: fingerprint! }), (entry) => output.list(entryRow(entry)));
    },
  }),
  define({
    path: 'authorizations',
    summary: 'List the peers that may keep replicas on this host.',
    examples: ['authorizations'],
    async run({ call, output }) {
      output.print(await call('authorizations', {}), (entries) =>
        output.table(entries.map(entryRow), 'No peer is authorised.'),
      );
    },
  }),
];

function entryRow(entry: AuthorizationEntry): Row {
  return [
    ['Name', orNothing(entry.name)],
    ['StorageLoc', orNothing(entry.storage)],
    ['TrustGroup', entry.trustGroup],
    ['Fingerprint', entry.fingerprint],
  ];
}
