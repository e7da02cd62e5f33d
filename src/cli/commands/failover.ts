/** Taking over on the replica. */

import { EXIT_CODE, UnderstudyError } from '../../model/errors.ts';
import type { Status } from '../../server/api/contract.ts';
import { collect, define, integer, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { inOrder } from '../failover-order.ts';
import type { OrderedVm } from '../failover-order.ts';
import { libvirtLines, qemuLines } from '../../model/hypervisor-lines.ts';
import { guestFailure, reportGuest } from '../guest-text.ts';
import type { Output } from '../output.ts';
import { statusList } from '../status-text.ts';
import { statusCommand } from './replication.ts';

interface FailoverOptions {
  test?: true;
  prepare?: true;
  planned?: true;
  point?: string;
  after?: string[];
  wait?: number;
}

/** A day: longer than that a person is not waiting any more. */
const WAIT_SECONDS_MAX = 86_400;

function servedText(status: Status, output: Output, zone: string): string {
  const uris = (status.disks ?? []).flatMap(({ uri, logicalSectorSize }) => (uri === null ? [] : [{ uri, logicalSectorSize }]));
  const adapter = status.hypervisor?.adapter ?? 'none';
  const paste =
    uris.length === 0 || adapter !== 'none' ? '' : `\n\nQEMU:\n${qemuLines(uris)}\n\nlibvirt, inside <devices>:\n${libvirtLines(uris)}`;
  return `${statusList(status, output, zone)}${paste}`;
}

type Failed = { vmName: string; error: { kind: keyof typeof EXIT_CODE; code: string; message: string; remedy: string } };

/** One after another; what fails holds up only those that wait for it. */
async function severalFailovers(
  { surroundings, output, zone, signal }: CommandContext,
  ordered: readonly OrderedVm[],
  waitSeconds: number,
  { one, test }: { one: (name: string) => Promise<Status>; test: boolean },
): Promise<number> {
  const results: (Status | Failed)[] = [];
  const failed = new Map<string, Failed>();
  for (const [index, { name, after }] of ordered.entries()) {
    if (index > 0 && waitSeconds > 0) await surroundings.clock.sleep(waitSeconds * 1000, signal);
    const missing = after.find((other) => failed.has(other));
    try {
      if (missing !== undefined) throw skipped(name, missing);
      const status = await one(name);
      results.push(status);
      // Its disks are served, but what waits for it waits for its guest.
      const error = guestFailure(status, test);
      if (error !== null) failed.set(name, { vmName: name, error });
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      const { kind, code, message, remedy } = error;
      failed.set(name, { vmName: name, error: { kind, code, message, remedy } });
      results.push(failed.get(name)!);
    }
  }
  output.print(results, () =>
    results
      .map((result) =>
        'error' in result && 'kind' in (result.error as object)
          ? `${result.vmName}: ${(result as Failed).error.code}: ${(result as Failed).error.message}\n→ ${(result as Failed).error.remedy}`
          : servedText(result as Status, output, zone),
      )
      .join('\n\n'),
  );
  const [first] = failed.values();
  return first === undefined ? 0 : EXIT_CODE[first.error.kind];
}

const skipped = (name: string, other: string): UnderstudyError =>
  new UnderstudyError(
    'state',
    'FAILOVER_SKIPPED',
    `VM '${name}' was left alone: '${other}', which comes before it, has not failed over`,
    `Mend that, then fail both over; or '${name}' alone, without --after.`,
  );

export const failoverCommands: CommandDefinition[] = [
  define<FailoverOptions>({
    path: 'failover',
    arguments: '<name...>',
    argumentHelp: { name: 'name of the virtual machine, or several' },
    summary: 'Serve the replica: after the loss of the primary, planned, or as a test.',
    details:
      'Without --test, --prepare or --planned this is an unplanned failover: what the replica has not ' +
      'received is lost. It serves within seconds, whatever waits to be applied. A running ' +
      'resynchronization is cancelled, and the consistent disk under it is served. `failover cancel NAME` undoes it; then another ' +
      'point may be tried. `failover complete NAME` makes it final.\n\n' +
      'With --test a throw-away copy is served under the name `NAME - Test`. The replica goes on receiving; what it receives is ' +
      'applied after the test (`pendingBytes` of `status`). `failover cancel NAME` ends the test and deletes what was written.\n\n' +
      'With an adapter (`set NAME --adapter …`) --prepare shuts the guest down, and the others start it. A guest that cannot be started undoes ' +
      'nothing: the disks are served, the failure is in `hypervisor` of the status and on stderr, the exit code is 5, and `guest start NAME` ' +
      'tries again.\n\n' +
      'Several VMs fail over one after another, in the order given; --after puts one behind others, --wait leaves time between ' +
      'them. One that fails is told of, those that wait for it are left alone, the rest goes on; the exit code is that of the ' +
      'first failure. With --json the result is then an array, an element being `vmName` and `error` for a VM that failed.',
    options: [
      option('--test', 'serve a throw-away copy; replication goes on').conflicts(['prepare', 'planned']),
      option('--prepare', 'on the primary, its VM off: send the last changes, and lock it').conflicts([
        'test',
        'planned',
        'point',
      ]),
      option('--planned', 'on the replica, after --prepare on the primary').conflicts(['test', 'prepare', 'point']),
      option('--point <id>', 'an older recovery point (see `points`); the latest unless told'),
      option('--after <name=others>', 'this VM after those: web=db,ldap; may be given several times').argParser(collect),
      option('--wait <seconds>', 'between two VMs').argParser(integer(0, WAIT_SECONDS_MAX)),
    ],
    examples: [
      'failover db web1 --after web1=db --wait 20',
      'failover web1',
      'points web1',
      'failover web1 --test --point 2031-05-04T21:00:00.000Z',
      'failover cancel web1',
    ],
    async run(context, names, { test, prepare, planned, point, after, wait }) {
      const { call, output, zone } = context;
      const kind = test === true ? 'test' : prepare === true ? 'prepare' : planned === true ? 'planned' : 'unplanned';
      const one = (name: string) => call('failover', { name, kind, ...(point === undefined ? {} : { point }) });
      const ordered = inOrder(names, after ?? []);
      if (ordered.length > 1) return severalFailovers(context, ordered, wait ?? 0, { one, test: kind === 'test' });
      const status = await one(ordered[0]!.name);
      output.print(status, () => servedText(status, output, zone));
      return reportGuest(context, status, kind === 'test');
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
    async run(context, [name], { discardPrimary }) {
      const { call, output, zone } = context;
      const status = await call('reverse', { name: name!, ...(discardPrimary === true ? { discardPrimary } : {}) });
      output.print(status, () => statusList(status, output, zone));
      return reportGuest(context, status);
    },
  }),
  statusCommand({
    path: 'failover cancel',
    operation: 'failover.cancel',
    summary: 'Undo a failover, a test failover or a preparation.',
    details:
      'What was written on the failed-over disks is discarded: how much it is, is said by `status` before (`writtenBytes` of `failover`) and by ' +
      'this command and event FailoverCancelled afterwards (`droppedBytes`). Afterwards another recovery point may be tried.',
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
