/** Resynchronization: how far it is, what it would do, who is next; and the proof that it is not needed. */

import { EXIT_DIFFERENT } from '../../model/errors.ts';
import type { ResyncPlan, ResyncStatus } from '../../server/api/contract.ts';
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { endOf, extendedOption } from '../extended-option.ts';
import type { ExtendedOption } from '../extended-option.ts';
import { bytes, duration, orNothing, rate, time } from '../format.ts';
import type { Output, Row } from '../output.ts';
import { watch, watchOptions } from '../watch.ts';
import type { WatchOptions } from '../watch.ts';
import { statusCommand } from './replication.ts';

const nameHelp = { name: 'name of the virtual machine' };

export const resyncCommands: CommandDefinition[] = [
  define<WatchOptions & ExtendedOption>({
    path: 'resync status',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Show phase, rung with its reason, and progress per disk.',
    details: 'With --watch until it has ended, or none is required.',
    options: [...watchOptions(), extendedOption()],
    examples: ['resync status web1', 'resync status web1 --watch'],
    async run(context, [name], options) {
      const { call, output } = context;
      return watch(
        context,
        options,
        () => call('resync.status', endOf(name!, options)),
        (status) => resyncText(status, output),
        ({ phase }) => phase === 'none',
      );
    },
  }),
  define<ExtendedOption>({
    path: 'resync plan',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Show what would be done now, why, and what it would cost. Changes nothing.',
    options: [extendedOption()],
    examples: ['resync plan web1'],
    async run({ call, output }, [name], which) {
      output.print(await call('resync.plan', endOf(name!, which)), (plan) => planText(plan, output));
    },
  }),
  define({
    path: 'resync queue',
    summary: 'List the resynchronizations of this host: running, waiting, scheduled.',
    examples: ['resync queue'],
    async run({ call, output, zone }) {
      const queue = await call('resync.queue', {});
      const rows = queue.map((entry): Row => [
        ['VMName', entry.vmName],
        ['Standing', entry.standing],
        ['Position', String(entry.position)],
        ['Priority', String(entry.priority)],
        ['NotBefore', time(entry.startTime, zone)],
      ]);
      output.print(queue, () => output.table(rows, 'No resynchronization runs or waits.'));
    },
  }),
  statusCommand({
    path: 'cancel-resync',
    operation: 'cancel-resync',
    summary: 'Cancel a running resynchronization, or drop a scheduled start.',
    details: 'The replica stays as it was before. A resynchronization is still required, and will start from zero.',
    examples: ['cancel-resync web1'],
  }),
  define({
    path: 'resync history',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'List past resynchronizations: why, which rung, how much, how long.',
    examples: ['resync history web1'],
    async run({ call, output, zone }, [name]) {
      const past = await call('resync.history', { name: name! });
      output.print(past, (rows) => output.table(rows.map((row): Row => [
        ['Started', time(row.startTime, zone)],
        ['Result', row.result],
        ['Rung', orNothing(row.rung)],
        ['Sent', row.sentBytes === null ? orNothing(null) : bytes(row.sentBytes)],
        ['Time', duration(row.seconds)],
        ['Reason', row.reason],
      ]), 'There was no resynchronization.'));
    },
  }),
  define<{ repair?: true } & ExtendedOption>({
    path: 'verify',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Prove that the replica equals a point of the primary, while the guest writes.',
    details: 'The replica is held for a few minutes at a time, each time at a point of its own; between two of these windows it applies what has\n' +
      'arrived. One that was cut goes on where it was. `resync status` shows how far it is.\n' +
      'Exit code 1 when a difference was found, with --repair also when it was mended.',
    options: [option('--repair', 'mend what differs'), extendedOption()],
    examples: ['verify web1', 'verify web1 --repair'],
    async run({ call, output, zone }, [name], { repair, ...which }) {
      const result = await call('verify', { ...endOf(name!, which), ...(repair === true ? { repair } : {}) });
      output.print(result, () =>
        output.list([
          ['Equal', result.equal ? 'yes' : 'NO'],
          ['At', time(result.at, zone)],
          ['Compared', bytes(result.comparedBytes)],
          ['Differing', bytes(result.differingBytes)],
          ['Unproven', bytes(result.unprovenBytes)],
          ...(result.windows === undefined ? [] : [['Windows', `${result.windows}, apply held for ${duration(result.longestHoldSeconds ?? 0)} at most`] as const]),
          ...(result.repairedBytes === undefined ? [] : [['Repaired', bytes(result.repairedBytes)] as const]),
        ]),
      );
      return result.equal ? 0 : EXIT_DIFFERENT;
    },
  }),
];

function resyncText(status: ResyncStatus, output: Output): string {
  const head = output.list([
    ['VM name', status.vmName],
    ['Phase', status.phase],
    ['Rung', orNothing(status.rung)],
    ['Reason', orNothing(status.reason)],
    ['Done', status.percent === null ? orNothing(null) : `${status.percent.toFixed(1)} %`],
    ...(typeof status.bytesPerSecond === 'number' ? [['Rate', rate(status.bytesPerSecond)] as const] : []),
    ['Time left', duration(status.etaSeconds)],
    ...verifyRow(status),
  ]);
  if (status.disks.length === 0) return head;
  const disks = status.disks.map((disk): Row => [
    ['Disk', disk.path],
    ['Total', bytes(disk.totalBytes)],
    ['Compared', bytes(disk.comparedBytes)],
    ['Differing', bytes(disk.differingBytes)],
    ['Sent', bytes(disk.sentBytes)],
  ]);
  return `${head}\n\n${output.table(disks, '')}`;
}

function verifyRow({ verify }: ResyncStatus): Row {
  if (verify === null || verify === undefined) return [];
  const { running, comparedBytes, totalBytes, differingBytes, windows, heldSeconds } = verify;
  const held = heldSeconds === null ? '' : `; apply held for ${duration(heldSeconds)}`;
  return [['Verify', `${bytes(comparedBytes)} of ${bytes(totalBytes)} in ${windows} windows${running ? held : '; it was cut, and goes on with the next one'}` +
    (differingBytes > 0 ? `; ${bytes(differingBytes)} differ` : '')]];
}

function planText(plan: ResyncPlan, output: Output): string {
  const head = output.list([
    ['VM name', plan.vmName],
    ['Rung', plan.rung],
    ['Reason', plan.reason],
    ['To be read', `${bytes(plan.readBytes)} on each side`],
    ['Time needed', duration(plan.estimatedSeconds)],
    ...(plan.overwrites === undefined ? [] : [['Overwritten', plan.overwrites] as const]),
    ...(plan.olderPointsLost ? [['Older points', `at most ${plan.olderPointsLost} are deleted`] as const] : []),
    ...(plan.refusals ?? []).map((refusal) => ['Refused now', refusal] as const),
  ]);
  const disks = plan.disks.map((disk): Row => [
    ['Disk', disk.path],
    ['Total', bytes(disk.totalBytes)],
    ['To be read', bytes(disk.readBytes)],
  ]);
  return `${head}\n\n${output.table(disks, 'no disks')}`;
}
