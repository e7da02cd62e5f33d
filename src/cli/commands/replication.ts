/** Setting replication up, steering it, and ending it. */

import type { Status } from '../../server/api/contract.ts';
import { collect, define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { bytes, duration } from '../format.ts';
import { hypervisorFrom, hypervisorOptions, type HypervisorOptions } from '../hypervisor-options.ts';
import { settingOptions, settingsFrom } from '../setting-options.ts';
import type { SettingOptions } from '../setting-options.ts';
import { statusList } from '../status-text.ts';

const nameHelp = { name: 'name of the virtual machine' };
const TIME_HELP =
  'TIME is HH:MM (its next occurrence), "YYYY-MM-DD HH:MM", ISO 8601 or MM/DD/YYYY HH:MM:SS; ' +
  'local unless a zone is given, at most 7 days ahead.';

export const replicationCommands: CommandDefinition[] = [
  define<{ replica: string; fingerprint: string; excludeDisk?: string[] } & SettingOptions>({
    path: 'enable',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Set up replication of a virtual machine to a replica host.',
    details:
      "Both hosts must know each other: run `fingerprint` on each, give the replica's here, and " +
      "`authorize` this one's there.\n" +
      'Nothing is copied yet; `start` does that.',
    options: [
      option('--replica <host:port>', 'peer address of the replica host').makeOptionMandatory(),
      option('--fingerprint <fingerprint>', 'of the replica host').makeOptionMandatory(),
      option('--exclude-disk <path>', 'a disk that is not replicated; may be repeated').argParser(collect),
      ...settingOptions(),
    ],
    examples: [
      'enable web1 --replica munich:7743 --fingerprint 9F:86:D0:…:0A:08 --frequency 30',
      'enable db --replica 10.0.0.2:7743 --fingerprint 9F:86:…:08 --recovery-history 24',
    ],
    async run(context, [name], { replica, fingerprint, excludeDisk, ...given }) {
      const excludedDisks = excludeDisk?.map(context.diskLocation);
      const settings = { ...settingsFrom(given), ...(excludedDisks === undefined ? {} : { excludedDisks }) };
      printStatus(context, await context.call('enable', { name: name!, replica, fingerprint, settings }));
    },
  }),
  define<{ at?: string; export?: string; useExisting?: true }>({
    path: 'start',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Start the initial replication, now or at a time.',
    details: `The guest goes on meanwhile. A run that was stopped goes on where it was.\n${TIME_HELP}`,
    options: [
      option('--at <time>', 'start then instead of now'),
      option(
        '--export <dir>',
        'write the copy into a folder, to be carried to the replica host and imported there',
      ).conflicts('useExisting'),
      option('--use-existing', 'the replica host already has a copy: compare, and send what differs').conflicts(
        'export',
      ),
    ],
    examples: ['start web1', 'start web1 --at 22:00', 'start web1 --export /mnt/usb/web1'],
    async run(context, [name], { at, export: exportTo, useExisting }) {
      const status = await context.call('start', {
        name: name!,
        ...(at === undefined ? {} : { at: context.startTime(at) }),
        ...(exportTo === undefined ? {} : { exportTo: context.path(exportTo) }),
        ...(useExisting === true ? { useExisting } : {}),
      });
      printStatus(context, status);
    },
  }),
  statusCommand({
    path: 'stop-initial',
    operation: 'stop-initial',
    summary: 'Cancel a running or scheduled initial replication.',
    details: 'What has been copied is kept; `start` goes on from there.',
    examples: ['stop-initial web1'],
  }),
  define<{ from: string }>({
    path: 'import',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Take an exported initial copy in, on the replica host.',
    options: [option('--from <dir>', 'the folder that `start --export` wrote').makeOptionMandatory()],
    examples: ['import web1 --from /mnt/usb/web1'],
    async run(context, [name], { from }) {
      printStatus(context, await context.call('import', { name: name!, from: context.path(from) }));
    },
  }),
  define({
    path: 'sync-now',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Ship and apply what is tracked so far, and wait until the replica has it.',
    examples: ['sync-now web1'],
    async run({ call, output }, [name]) {
      output.print(
        await call('sync-now', { name: name! }),
        (done) => `Log ${done.logSequence} is applied: ${bytes(done.bytes)} in ${duration(done.seconds)}.`,
      );
    },
  }),
  statusCommand({
    path: 'suspend',
    operation: 'suspend',
    summary: 'Pause replication, or a running resynchronization.',
    details: 'Writes are still tracked. Beyond the log limit a resynchronization will be required.',
    examples: ['suspend web1'],
  }),
  define<{ resynchronize?: true; at?: string; offPeak?: true; continue?: true }>({
    path: 'resume',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Go on with replication or resynchronization.',
    details:
      'After a pause or an error: goes on shipping. A paused resynchronization goes on where it ' +
      'stopped. A required one starts ' +
      `at once, or at --at.\n${TIME_HELP}`,
    options: [
      option('--resynchronize', 'compare from the start, whatever was compared before').conflicts('continue'),
      option('--at <time>', 'start the resynchronization then'),
      option('--off-peak', 'start it in the hours of its settings').conflicts(['at', 'continue']),
      option('--continue', 'go on with a compare where it stopped').conflicts('resynchronize'),
    ],
    examples: ['resume web1', 'resume web1 --resynchronize --at 22:00'],
    async run(context, [name], { resynchronize, at, offPeak, continue: goOn }) {
      const status = await context.call('resume', {
        name: name!,
        ...(resynchronize === true ? { resynchronize } : {}),
        ...(at === undefined ? {} : { at: context.startTime(at) }),
        ...(offPeak === true ? { offPeak } : {}),
        ...(goOn === true ? { continue: goOn } : {}),
      });
      printStatus(context, status);
    },
  }),
  define<{ replica?: string; fingerprint?: string } & SettingOptions & HypervisorOptions>({
    path: 'set',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Change settings of replication. What is not named stays.',
    details:
      'Settings of replication are changed on the primary. What starts and stops the guest (--adapter and what follows it) is a setting of ' +
      'the host where the command runs, on either side, and stays there: paths, networks and addresses differ between hosts.',
    options: [
      ...settingOptions(),
      option('--replica <host:port>', 'the replica host has a new address'),
      option('--fingerprint <fingerprint>', 'the replica host has a new certificate'),
      ...hypervisorOptions(),
    ],
    examples: [
      'set web1 --auto-resync 18:30-06:00',
      'set web1 --frequency 900 --recovery-history 4',
      'set web1 --adapter command --adapter-command /usr/local/sbin/web1-guest',
      'set web1 --adapter libvirt --network default=bridge:br0',
    ],
    async run(context, [name], { replica, fingerprint, ...given }) {
      const settings = settingsFrom(given);
      const hypervisor = hypervisorFrom(given, context.path);
      const status = await context.call('set', {
        name: name!,
        ...(Object.keys(settings).length === 0 ? {} : { settings }),
        ...(replica === undefined ? {} : { replica }),
        ...(fingerprint === undefined ? {} : { fingerprint }),
        ...(Object.keys(hypervisor).length === 0 ? {} : { hypervisor }),
      });
      printStatus(context, status);
    },
  }),
  statusCommand({
    path: 'remove',
    operation: 'remove',
    summary: 'End replication on this side. Disks stay.',
    details: 'Run it on both hosts: each forgets its own side.',
    examples: ['remove web1'],
  }),
  statusCommand({
    path: 'reset-statistics',
    operation: 'reset-statistics',
    summary: 'Begin a new monitoring interval: counters at zero, warnings forgotten.',
    examples: ['reset-statistics web1'],
  }),
];

/** A command that takes a name and answers with the status after the change. */
export function statusCommand(
  definition: Pick<CommandDefinition, 'path' | 'summary' | 'details' | 'examples'> & {
    operation: 'stop-initial' | 'suspend' | 'remove' | 'reset-statistics' | 'cancel-resync' | 'failover.cancel' | 'failover.complete';
  },
): CommandDefinition {
  const { operation, ...rest } = definition;
  return define({
    ...rest,
    arguments: '<name>',
    argumentHelp: nameHelp,
    async run(context, [name]) {
      printStatus(context, await context.call(operation, { name: name! }));
    },
  });
}

export function printStatus({ output, zone }: CommandContext, status: Status): void {
  output.print(status, (shown) => statusList(shown, output, zone));
}
