/** What the state of things is, and what happened. */

import { EXIT_DIFFERENT } from '../../model/errors.ts';
import type {
  Health,
  HostEvent,
  OperationName,
  Params,
  RecoveryPoint,
  Result,
  Status,
} from '../../server/api/contract.ts';
import { define, integer, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { endOf, extendedOption } from '../extended-option.ts';
import type { ExtendedOption } from '../extended-option.ts';
import { bytes, duration, orNothing, time } from '../format.ts';
import type { Output, Row } from '../output.ts';
import { statusList, statusTable } from '../status-text.ts';
import { untilInterrupted, watch, watchOptions } from '../watch.ts';
import type { WatchOptions } from '../watch.ts';

const nameHelp = { name: 'name of a virtual machine; all of them when left out' };

export const monitoringCommands: CommandDefinition[] = [
  define<ExtendedOption>({
    path: 'cycles',
    arguments: '<name>',
    argumentHelp: { name: 'name of the virtual machine' },
    summary: 'List the last replication cycles: when, how large, how long.',
    details: 'On the primary. The host keeps the last 180 of each virtual machine.',
    options: [extendedOption()],
    examples: ['cycles web1', 'cycles web1 --json'],
    async run({ call, output, zone }, [name], which) {
      const cycles = await call('cycles', endOf(name!, which));
      output.print(cycles, (rows) => output.table(rows.map((row): Row => [
        ['Time', time(row.time, zone)],
        ['Outcome', row.outcome],
        ['Size', bytes(row.bytes)],
        ['Latency', duration(row.latencySeconds)],
      ]), 'There was no cycle yet.'));
    },
  }),
  define<WatchOptions & ExtendedOption>({
    path: 'status',
    arguments: '[name]',
    argumentHelp: nameHelp,
    summary: 'Show state, health and settings of replication.',
    details:
      'On both hosts. A virtual machine without replication has the state Disabled. Without a name, a replica that is extended from this ' +
      'host has two lines: its own and that of its extended replica.',
    options: [...watchOptions(), extendedOption()],
    examples: ['status', 'status web1', 'status web1 --json | jq -r .state', 'status --watch'],
    async run(context, [name], options) {
      const { output, zone } = context;
      return watch(
        context,
        options,
        () => namedOrAll(context, 'status', name, options),
        (value) =>
          Array.isArray(value) ? statusTable(value as Status[], output) : statusList(value as Status, output, zone),
      );
    },
  }),
  define<{ check?: true } & ExtendedOption>({
    path: 'health',
    arguments: '[name]',
    argumentHelp: nameHelp,
    summary: 'Show health with its reasons, and the statistics of the monitoring interval.',
    options: [option('--check', 'exit with 1 unless everything is Normal'), extendedOption()],
    examples: ['health web1', 'health --check || mail -s "replication" admin < /dev/null'],
    async run(context, [name], { check, ...which }) {
      const { output, zone } = context;
      const value = await namedOrAll(context, 'health', name, which);
      const all = (Array.isArray(value) ? value : [value]) as Health[];
      output.print(value, () =>
        name === undefined
          ? output.table(all.map(healthRow), 'No virtual machine is replicated.')
          : healthList(all[0]!, output, zone),
      );
      return check === true && all.some(({ health }) => health !== 'Normal') ? EXIT_DIFFERENT : 0;
    },
  }),
  define<{ follow?: true; since?: string; limit?: number }>({
    path: 'events',
    arguments: '[name]',
    argumentHelp: nameHelp,
    summary: 'Show what happened, oldest first.',
    details:
      "Ids are Hyper-V's numbers where one exists, else names. With --follow and --json each event is one line.",
    options: [
      option('--follow', 'go on with every new event, until interrupted'),
      option('--since <time>', 'only events after this time'),
      option('--limit <count>', 'only the newest so many (default: 100)').argParser(integer(1, 10_000)),
    ],
    examples: ['events web1', 'events --follow', "events --json --limit 1000 | jq '.[] | select(.id == 29244)'"],
    async run(context, [name], { follow, since, limit }) {
      const { output, zone } = context;
      const params = {
        ...(name === undefined ? {} : { name }),
        ...(since === undefined ? {} : { since: context.anyTime(since) }),
        ...(limit === undefined ? {} : { limit }),
      };
      if (follow === true) {
        const show = (event: HostEvent): string => eventLine(event, zone);
        return untilInterrupted(context, () =>
          context.call('events', { ...params, follow }, (item) => output.printNext(item as HostEvent, show)),
        );
      }
      const events = await context.call('events', params);
      output.print(events, () =>
        output.table(
          events.map((event) => eventRow(event, zone)),
          'Nothing happened yet.',
        ),
      );
      return 0;
    },
  }),
  define({
    path: 'points',
    arguments: '<name>',
    argumentHelp: { name: 'name of the virtual machine' },
    summary: 'List the recovery points of a replica, oldest first.',
    details:
      'The last one is `latest`: all that has arrived. The others are an hour apart, as many as --recovery-history keeps. Size is what ' +
      'a point costs on the volume of the replica disks. Loses is how much of the guest\'s time a failover to it gives up against ' +
      'the latest. A point whose undo log is damaged is listed with the reason, and so is every older one. On a primary only the latest is ' +
      'listed, and the host that keeps the others is named.',
    examples: ['points web1', "points web1 --json | jq -r '.[0].id'"],
    async run({ call, output, zone }, [name]) {
      const points = await call('points', { name: name! });
      output.print(points, () =>
        output.table(
          points.map((point) => pointRow(point, zone)),
          'There is no recovery point yet.',
        ),
      );
      const keptBy = points.at(-1)?.keptBy;
      if (keptBy !== undefined) output.note(`Older recovery points are kept by host ${keptBy}, and listed there: understudy points ${name!}`);
    },
  }),
];

/** One object with a name, an array without; the operation's type allows both. */
function namedOrAll<N extends 'status' | 'health'>(
  { call }: CommandContext,
  operation: N,
  name: string | undefined,
  { extended }: ExtendedOption,
): Promise<Result<N>> {
  const which = { ...(name === undefined ? {} : { name }), ...(extended === true ? { extended } : {}) };
  return call<OperationName>(operation, which as Params<N>) as Promise<Result<N>>;
}

function healthRow(health: Health): Row {
  const { statistics } = health;
  return [
    ['VMName', health.vmName],
    ['State', health.state],
    ['Health', health.health],
    ['LReplTime', health.lastReplicationTime ?? '-'],
    ['PReplSize', bytes(statistics.pendingBytes)],
    ['AvgLatency', duration(statistics.averageLatencySeconds)],
    ['AvgReplSize', bytes(statistics.averageReplicationBytes)],
    ['Relationship', orNothing(health.relationship)],
  ];
}

function healthList(health: Health, output: Output, zone: string): string {
  const { statistics } = health;
  const cycles = statistics.successfulReplications + statistics.missedReplications;
  const percent = cycles === 0 ? '' : ` (${Math.floor((statistics.successfulReplications / cycles) * 100)} %)`;
  return output.list([
    ['VM name', health.vmName],
    ['Health', health.health],
    ['State', health.state],
    ...health.healthDetails.map((detail, index) => [index === 0 ? 'Details' : '', detail] as const),
    ['From', time(statistics.monitoringStartTime, zone)],
    ['To', time(statistics.monitoringEndTime, zone)],
    ['Average size', bytes(statistics.averageReplicationBytes)],
    ['Maximum size', bytes(statistics.maximumReplicationBytes)],
    ['Average latency', duration(statistics.averageLatencySeconds)],
    ['Errors encountered', String(statistics.replicationErrors)],
    ['Successful cycles', `${statistics.successfulReplications} out of ${cycles}${percent}`],
    ['Last synchronized', time(health.lastReplicationTime, zone)],
    ['Not yet replicated', bytes(statistics.pendingBytes)],
  ]);
}

function eventRow(event: HostEvent, zone: string): Row {
  return [
    ['Time', time(event.time, zone)],
    ['Level', event.level],
    ['Id', String(event.id)],
    ['VMName', orNothing(event.vmName)],
    ['Message', event.message],
  ];
}

function eventLine(event: HostEvent, zone: string): string {
  return eventRow(event, zone)
    .map(([, text]) => text)
    .join('  ');
}

function pointRow(point: RecoveryPoint, zone: string): Row {
  return [
    ['Id', point.id],
    ['Time', time(point.time, zone)],
    ['Kind', point.kind],
    ['Size', bytes(point.bytes)],
    ['Loses', duration(point.lossSeconds)],
    ['Usable', (point.damaged ?? null) === null ? 'yes' : `no: ${point.damaged}`],
  ];
}
