/** The VMFailover cmdlets, and the recovery points that they take. */

import { UnderstudyError } from '../../model/errors.ts';
import { AS_JOB, endOf, forEachVm, listOf, maybe, namesGiven, PASSTHRU, RELATIONSHIP, statusesOf, truthOf, VM_NAME } from './cmdlet.ts';
import type { Cmdlet } from './cmdlet.ts';
import { findProperty, snapshotRow } from './records.ts';
import type { Row } from './records.ts';

type PlainOperation = 'suspend' | 'cancel-resync' | 'remove' | 'reset-statistics' | 'stop-initial' | 'failover.cancel' | 'failover.complete';

/** A cmdlet that names VMs and does one thing to each. */
export function plain(name: string, summary: string, operation: PlainOperation): Cmdlet {
  return {
    name,
    summary,
    parameters: [VM_NAME, RELATIONSHIP, PASSTHRU, { ...AS_JOB }],
    run: (bound, context, input) =>
      forEachVm(name, bound, context, input, (vm) => context.call(operation, { name: vm, ...endOf(bound) })),
  };
}

const notOne = (): UnderstudyError =>
  new UnderstudyError(
    'usage',
    'ARGUMENT_INVALID',
    'Start-VMFailover takes -Prepare alone, or -AsTest and one recovery point',
    'Prepare on the primary; choose the point on the replica.',
  );

const START_FAILOVER: Cmdlet = {
  name: 'Start-VMFailover',
  summary: 'Fails over on the replica, tests it with -AsTest, or prepares it on the primary with -Prepare',
  parameters: [
    VM_NAME,
    { name: 'Prepare', type: 'switch' },
    { name: 'AsTest', type: 'switch' },
    { name: 'VMRecoverySnapshot', type: 'strings', aliases: ['VMRecoveryCheckpoint'] },
    PASSTHRU,
    AS_JOB,
  ],
  async run(bound, context, input) {
    const snapshots = input?.filter((row) => findProperty(row, 'SnapshotType') !== undefined) ?? [];
    if (snapshots.length > 1) throw notOne();
    const [prepare, test] = [truthOf(bound, 'Prepare') === true, truthOf(bound, 'AsTest') === true];
    const [point, ...more] = listOf(bound, 'VMRecoverySnapshot') ?? snapshots.map((row) => String(findProperty(row, 'Id')?.value));
    if ((prepare && (test || point !== undefined)) || more.length > 0) {
      throw notOne();
    }
    const kind = prepare ? 'prepare' : test ? 'test' : 'unplanned';
    return forEachVm('Start-VMFailover', bound, context, input, (name) =>
      context.call('failover', { name, kind, ...maybe('point', point) }),
    );
  },
};

const GET_SNAPSHOT: Cmdlet = {
  name: 'Get-VMSnapshot',
  summary: 'Recovery points of replica VMs, but for the latest',
  parameters: [VM_NAME, { name: 'SnapshotType', type: ['Replica', 'AppConsistentReplica'] }],
  async run(bound, context, input) {
    const wanted = bound.get('SnapshotType');
    const rows: Row[] = [];
    for (const { vmName, vmId, state } of await statusesOf(context, namesGiven(bound, input) ?? ['*'])) {
      const points = state === 'Disabled' ? [] : await context.call('points', { name: vmName });
      for (const point of points) {
        if (point.kind === 'latest') continue;
        const row = snapshotRow(vmName, vmId, point);
        if (wanted === undefined || findProperty(row, 'SnapshotType')?.value === wanted) rows.push(row);
      }
    }
    return rows;
  },
};

export const FAILOVER_CMDLETS: readonly Cmdlet[] = [
  START_FAILOVER,
  plain('Stop-VMFailover', 'Undoes a failover, a test failover or a preparation', 'failover.cancel'),
  plain('Complete-VMFailover', 'Makes a failover final and deletes its recovery points', 'failover.complete'),
  GET_SNAPSHOT,
];
