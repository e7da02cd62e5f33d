/** Setting replication up, steering it, and ending it. */

import type { Status } from '../../server/api/contract.ts';
import { collect, define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { endOf, extendedOption } from '../extended-option.ts';
import type { ExtendedOption } from '../extended-option.ts';
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
  define<{ replica: string; fingerprint: string } & SettingOptions>({
    path: 'extend',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Set up extended replication: from the replica on this host to a third host.',
    details:
      'On the replica host. The third host must know this one: `authorize` it there. It is fed every 300 or 900 seconds, and never more ' +
      'often than the replica itself; unless told, as often as that.\nNothing is copied yet; `start NAME --extended` does that. The other ' +
      'commands about replication take --extended too.',
    options: [
      option('--replica <host:port>', 'peer address of the third host').makeOptionMandatory(),
      option('--fingerprint <fingerprint>', 'of the third host').makeOptionMandatory(),
      ...settingOptions(),
    ],
    examples: ['extend web1 --replica oslo:7743 --fingerprint 51:AA:…:0C --frequency 900', 'start web1 --extended'],
    async run(context, [name], { replica, fingerprint, ...given }) {
      printStatus(context, await context.call('extend', { name: name!, replica, fingerprint, settings: settingsFrom(given) }));
    },
  }),
  define<{ at?: string; export?: string; useExisting?: true } & ExtendedOption>({
    path: 'start',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Start the initial replication, now or at a time.',
    details:
      'The guest goes on meanwhile. A run that was stopped goes on where it was. A start is refused where the replica host, or the ' +
      'medium, lacks the space, or the copy that is there has another size; then nothing has been begun. With --at the space is ' +
      `asked for now, if the replica host answers; an existing copy is looked at only then.\n${TIME_HELP}`,
    options: [
      option('--at <time>', 'start then instead of now'),
      option(
        '--export <dir>',
        'write the copy into a folder, to be carried to the replica host and imported there',
      ).conflicts('useExisting'),
      option('--use-existing', 'the replica host already has a copy: compare, and send what differs').conflicts(
        'export',
      ),
      extendedOption(),
    ],
    examples: ['start web1', 'start web1 --at 22:00', 'start web1 --export /mnt/usb/web1'],
    async run(context, [name], { at, export: exportTo, useExisting, ...which }) {
      const status = await context.call('start', {
        ...endOf(name!, which),
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
  define<ExtendedOption>({
    path: 'sync-now',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Ship and apply what is tracked so far, and wait until the replica has it.',
    options: [extendedOption()],
    examples: ['sync-now web1'],
    async run({ call, output }, [name], which) {
      output.print(
        await call('sync-now', endOf(name!, which)),
        (done) => done.bytes === 0
          ? `Nothing was left to send: the replica is at log ${done.logSequence}.`
          : `Log ${done.logSequence} is applied: ${bytes(done.bytes)} in ${duration(done.seconds)}.`,
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
  define<{ resynchronize?: true; at?: string; offPeak?: true; continue?: true; overwriteReplica?: true } & ExtendedOption>({
    path: 'resume',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Go on with replication or resynchronization.',
    details:
      'After a pause or an error: goes on shipping. A paused resynchronization goes on where it ' +
      'stopped, and one that was interrupted makes its next attempt at once. A required one starts ' +
      `at once, or at --at. After a revert (triggers 5 and 7), and where a disk does not tell whether it was reverted, the replica may know a ` +
      `later state than the primary: what would be lost is named, and only --overwrite-replica goes on.\n${TIME_HELP}`,
    options: [
      option('--resynchronize', 'compare from the start, whatever was compared before').conflicts('continue'),
      option('--at <time>', 'start the resynchronization then'),
      option('--off-peak', 'start it in the hours of its settings').conflicts(['at', 'continue']),
      option('--continue', 'go on with a compare where it stopped').conflicts('resynchronize'),
      option('--overwrite-replica', 'although the replica may have a later state, which is lost'),
      extendedOption(),
    ],
    examples: ['resume web1', 'resume web1 --resynchronize --at 22:00'],
    async run(context, [name], { resynchronize, at, offPeak, continue: goOn, overwriteReplica, ...which }) {
      const status = await context.call('resume', {
        ...endOf(name!, which),
        ...(resynchronize === true ? { resynchronize } : {}),
        ...(at === undefined ? {} : { at: context.startTime(at) }),
        ...(offPeak === true ? { offPeak } : {}),
        ...(goOn === true ? { continue: goOn } : {}),
        ...(overwriteReplica === true ? { overwriteReplica } : {}),
      });
      printStatus(context, status);
    },
  }),
  define<{ replica?: string; fingerprint?: string } & SettingOptions & HypervisorOptions & ExtendedOption>({
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
      extendedOption(),
    ],
    examples: [
      'set web1 --auto-resync 18:30-06:00',
      'set web1 --frequency 900 --recovery-history 4',
      'set web1 --adapter command --adapter-command /usr/local/sbin/web1-guest',
      'set web1 --adapter libvirt --network default=bridge:br0',
    ],
    async run(context, [name], { replica, fingerprint, extended, ...given }) {
      const settings = settingsFrom(given);
      const hypervisor = hypervisorFrom(given, context.path);
      const status = await context.call('set', {
        ...endOf(name!, extended === true ? { extended } : {}),
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
  const ofReplica = operation === 'failover.cancel' || operation === 'failover.complete';
  return define<ExtendedOption>({
    ...rest,
    arguments: '<name>',
    argumentHelp: nameHelp,
    ...(ofReplica ? {} : { options: [extendedOption()] }),
    async run(context, [name], which) {
      printStatus(context, await context.call(operation, ofReplica ? { name: name! } : endOf(name!, which)));
    },
  });
}

export function printStatus({ output, zone }: CommandContext, status: Status): void {
  output.print(status, (shown) => statusList(shown, output, zone));
}
