/** Taking over on the replica. */

import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { libvirtLines, qemuLines } from '../hypervisor-lines.ts';
import { statusList } from '../status-text.ts';
import { statusCommand } from './replication.ts';

interface FailoverOptions {
  test?: true;
  prepare?: true;
  planned?: true;
  point?: string;
}

export const failoverCommands: CommandDefinition[] = [
  define<FailoverOptions>({
    path: 'failover',
    arguments: '<name>',
    argumentHelp: { name: 'name of the virtual machine' },
    summary: 'Serve the replica: after the loss of the primary, planned, or as a test.',
    details:
      'Without --test, --prepare or --planned this is an unplanned failover: what the replica has not ' +
      'received is lost. It serves within seconds, whatever waits to be applied. A running ' +
      'resynchronization is cancelled, and the consistent disk under it is served. `failover cancel NAME` undoes it; then another ' +
      'point may be tried. `failover complete NAME` makes it final.\n\n' +
      'With --test a throw-away copy is served under the name `NAME - Test`. The replica goes on receiving; what it receives is ' +
      'applied after the test (`pendingBytes` of `status`). `failover cancel NAME` ends the test and deletes what was written.',
    options: [
      option('--test', 'serve a throw-away copy; replication goes on').conflicts(['prepare', 'planned']),
      option('--prepare', 'on the primary, its VM off: send the last changes, and lock it').conflicts([
        'test',
        'planned',
        'point',
      ]),
      option('--planned', 'on the replica, after --prepare on the primary').conflicts(['test', 'prepare', 'point']),
      option('--point <id>', 'an older recovery point (see `points`); the latest unless told'),
    ],
    examples: [
      'failover web1',
      'points web1',
      'failover web1 --test --point 2031-05-04T21:00:00.000Z',
      'failover cancel web1',
    ],
    async run({ call, output, zone }, [name], { test, prepare, planned, point }) {
      const kind = test === true ? 'test' : prepare === true ? 'prepare' : planned === true ? 'planned' : 'unplanned';
      const status = await call('failover', { name: name!, kind, ...(point === undefined ? {} : { point }) });
      const uris = (status.disks ?? []).flatMap(({ uri }) => (uri === null ? [] : [uri]));
      const paste =
        uris.length === 0 ? '' : `\n\nQEMU:\n${qemuLines(uris)}\n\nlibvirt, inside <devices>:\n${libvirtLines(uris)}`;
      output.print(status, () => `${statusList(status, output, zone)}${paste}`);
    },
  }),
  define<{ discardPrimary?: true }>({
    path: 'reverse',
    arguments: '<name>',
    argumentHelp: { name: 'name of the virtual machine' },
    summary: 'Change the direction: this host becomes the primary, the old primary its replica.',
    details:
      'Runs on the host to which the VM has failed over, with the guest shut down for the moment; it may start again at ' +
      'once. After a planned failover nothing is compared and nothing is lost. After an unplanned one the old primary is ' +
      'resynchronized: only the regions that either side has written since, where these are known, else everything. ' +
      'What only the old primary holds is dropped; the event ReplicationReversed says how much. If the guest has run on ' +
      'both sides at once (split brain), that must be asked for by name: --discard-primary.',
    options: [
      option('--discard-primary', 'split brain: keep this side, drop what the old primary has written since'),
    ],
    examples: ['reverse web1', 'reverse web1 --discard-primary'],
    async run({ call, output, zone }, [name], { discardPrimary }) {
      const status = await call('reverse', { name: name!, ...(discardPrimary === true ? { discardPrimary } : {}) });
      output.print(status, () => statusList(status, output, zone));
    },
  }),
  statusCommand({
    path: 'failover cancel',
    operation: 'failover.cancel',
    summary: 'Undo a failover, a test failover or a preparation.',
    details:
      'What was written on the failed-over disks is discarded. Afterwards another recovery point may be tried.',
    examples: ['failover cancel web1'],
  }),
  statusCommand({
    path: 'failover complete',
    operation: 'failover.complete',
    summary: 'Make a failover final.',
    details:
      'All recovery points are deleted, and there is no way back. The VM goes on running; behind it, what was written since the ' +
      'failover is moved into the replica disks. Event FailoverDisksReady (`settling` of `failover` in `status` is `done`) says that ' +
      'they are plain files again, which any program may open while no guest is connected.',
    examples: ['failover complete web1'],
  }),
];
