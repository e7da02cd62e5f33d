/** The VMReplication cmdlets: what each takes, and the operation of the host that it calls. */

import { UnderstudyError } from '../../model/errors.ts';
import { HEALTH_NUMBERS, MODE_NUMBERS, REPLICATION_STATES } from '../../model/replication-state.ts';
import type { Health, Status } from '../../server/api/contract.ts';
import {
  allStatuses,
  AS_JOB,
  endOf,
  forEachVm,
  maybe,
  namesGiven,
  PASSTHRU,
  RELATIONSHIP,
  required,
  statusesOf,
  textOf,
  truthOf,
  VM_NAME,
} from './cmdlet.ts';
import type { Cmdlet, CmdletContext } from './cmdlet.ts';
import { FAILOVER_CMDLETS, plain } from './failover-cmdlets.ts';
import type { Bound, Parameter } from './parameters.ts';
import { healthRow, replicationRow } from './records.ts';
import type { Row } from './records.ts';
import { replicaAddress, SETTING_PARAMETERS, settingsFrom } from './setting-parameters.ts';
import { matches } from './wildcard.ts';

const FILTERS: readonly Parameter[] = [
  VM_NAME,
  { name: 'ReplicaServerName', type: 'string', aliases: ['ReplicaServer'] },
  { name: 'PrimaryServerName', type: 'string', aliases: ['PrimaryServer'] },
  { name: 'ReplicationState', type: Object.keys(REPLICATION_STATES), aliases: ['State'] },
  { name: 'ReplicationHealth', type: Object.keys(HEALTH_NUMBERS), aliases: ['Health'] },
  { name: 'ReplicationMode', type: Object.keys(MODE_NUMBERS), aliases: ['Mode'] },
  RELATIONSHIP,
  { name: 'TrustGroup', type: 'string', unsupported: 'filter by it with Get-VMReplicationAuthorizationEntry' },
];

/** Replicated VMs that are meant. A name that is not replicated is an error, a wildcard passes over it. */
async function statuses(
  cmdlet: string,
  bound: Bound,
  context: CmdletContext,
  input: readonly Row[] | null,
): Promise<Status[]> {
  const meant = await statusesOf(context, namesGiven(bound, input) ?? ['*']);
  const disabled = meant.find(({ state }) => state === 'Disabled');
  if (disabled !== undefined) {
    throw new UnderstudyError(
      'state',
      'NOT_APPLICABLE',
      `'${cmdlet}' is not applicable on virtual machine '${disabled.vmName}': ` + 'replication is not enabled',
      `Enable it first: Enable-VMReplication -VMName '${disabled.vmName}' …`,
    );
  }
  const is = (name: string, value: string | null): boolean => {
    const wanted = textOf(bound, name);
    return wanted === undefined || (value !== null && matches(wanted, value));
  };
  return meant.filter(
    (status) =>
      is('ReplicaServerName', status.replicaServer) &&
      is('PrimaryServerName', status.primaryServer) &&
      is('ReplicationState', status.state) &&
      is('ReplicationHealth', status.health) &&
      is('ReplicationMode', status.mode) &&
      is('ReplicationRelationshipType', status.relationship),
  );
}

const GET: Cmdlet = {
  name: 'Get-VMReplication',
  summary: 'State, health and settings of replication',
  parameters: FILTERS,
  run: async (bound, context, input) =>
    (await statuses('Get-VMReplication', bound, context, input)).map(replicationRow),
};

const MEASURE: Cmdlet = {
  name: 'Measure-VMReplication',
  summary: 'Statistics and health of the monitoring interval',
  parameters: FILTERS,
  async run(bound, context, input) {
    const rows: Row[] = [];
    for (const status of await statuses('Measure-VMReplication', bound, context, input)) {
      // On the third host the extended relationship is the only one of the VM.
      const leg = status.relationship === 'Extended' && status.mode !== 'ExtendedReplica' ? { extended: true } : {};
      const health = await context.call('health', { name: status.vmName, ...leg });
      rows.push(healthRow(status, (Array.isArray(health) ? health[0] : health) as Health));
    }
    return rows;
  },
};

const SERVER: readonly Parameter[] = [
  { name: 'ReplicaServerName', type: 'string', aliases: ['ReplicaServer'], position: 1 },
  { name: 'ReplicaServerPort', type: 'int', aliases: ['ReplicaPort'], position: 2 },
];
const OF_REPLICAS: readonly Parameter[] = [
  { name: 'AllowedPrimaryServer', type: 'string', aliases: ['AllowedPS'],
    unsupported: 'the replica knows its primary by fingerprint; see Set-VMReplicationAuthorizationEntry' },
];
const AS_REPLICA: Parameter = {
  name: 'AsReplica',
  type: 'switch',
  unsupported: 'a replica is made by the primary: enable replication there',
};

const ENABLE: Cmdlet = {
  name: 'Enable-VMReplication',
  summary: 'Sets up replication to a replica server',
  parameters: [
    VM_NAME,
    ...SERVER,
    ...SETTING_PARAMETERS,
    { name: 'ExcludedVhdPath', type: 'strings' },
    { name: 'ExcludedVhd', type: 'strings', unsupported: 'name the disk by its path: -ExcludedVhdPath' },
    ...OF_REPLICAS,
    AS_REPLICA,
    PASSTHRU,
    AS_JOB,
  ],
  async run(bound, context, input) {
    required('Enable-VMReplication', bound, 'ReplicaServerName');
    const fingerprint = required('Enable-VMReplication', bound, 'ReplicaFingerprint');
    const replica = replicaAddress(bound) ?? '';
    const settings = maybe('settings', settingsFrom(bound, context));
    // On a replica it is extended replication that is enabled.
    const replicas = new Set((await allStatuses(context)).filter(({ mode }) => mode === 'Replica').map(({ vmName }) => vmName));
    return forEachVm(
      'Enable-VMReplication',
      bound,
      context,
      input,
      (name) => context.call(replicas.has(name) ? 'extend' : 'enable', { name, replica, fingerprint, ...settings }),
      'all',
    );
  },
};

const SET: Cmdlet = {
  name: 'Set-VMReplication',
  summary: 'Changes settings of replication',
  parameters: [
    VM_NAME,
    ...SERVER,
    ...SETTING_PARAMETERS,
    { name: 'InitialReplicationStartTime', type: 'start-time', aliases: ['IRTime'] },
    RELATIONSHIP,
    { name: 'DisableVSSSnapshotReplication', type: 'switch', aliases: ['DisableVSS'] },
    { name: 'Reverse', type: 'switch' },
    AS_REPLICA,
    ...OF_REPLICAS,
    { name: 'UseBackup', type: 'switch', unsupported: 'give it to Start-VMInitialReplication' },
    ...['ReplicatedDiskPaths', 'ReplicatedDisks'].map((name): Parameter => (
      { name, type: 'strings', unsupported: 'the set of disks is fixed while replication is enabled' })),
    PASSTHRU,
    AS_JOB,
  ],
  async run(bound, context, input) {
    const change = {
      ...maybe('settings', settingsFrom(bound, context)),
      ...maybe('replica', replicaAddress(bound)),
      ...maybe('fingerprint', textOf(bound, 'ReplicaFingerprint')),
      ...maybe('initialReplicationStartTime', textOf(bound, 'InitialReplicationStartTime')),
    };
    if (truthOf(bound, 'Reverse') === true) {
      if (Object.keys(change).length > 0) {
        throw new UnderstudyError(
          'usage',
          'ARGUMENT_INVALID',
          'Set-VMReplication -Reverse changes the direction and no setting',
          'Reverse first, then change settings on the new primary.',
        );
      }
      return forEachVm('Set-VMReplication', bound, context, input, (name) => context.call('reverse', { name }));
    }
    if (Object.keys(change).length === 0) {
      throw new UnderstudyError(
        'usage',
        'ARGUMENT_MISSING',
        'Set-VMReplication is given nothing to change',
        'See: Get-Help Set-VMReplication',
      );
    }
    return forEachVm('Set-VMReplication', bound, context, input, (name) => context.call('set', { name, ...endOf(bound), ...change }));
  },
};

const RESUME: Cmdlet = {
  name: 'Resume-VMReplication',
  summary: 'Goes on with replication, or starts, schedules or continues a resynchronization',
  parameters: [
    VM_NAME,
    RELATIONSHIP,
    { name: 'Resynchronize', type: 'switch', aliases: ['Resync'] },
    { name: 'ResynchronizeStartTime', type: 'start-time', aliases: ['ResyncStart'] },
    { name: 'Continue', type: 'switch' },
    { name: 'OverwriteReplica', type: 'switch' },
    PASSTHRU,
    AS_JOB,
  ],
  async run(bound, context, input) {
    const how = {
      ...maybe('resynchronize', truthOf(bound, 'Resynchronize') === true ? true : undefined),
      ...maybe('at', textOf(bound, 'ResynchronizeStartTime')),
      ...maybe('continue', truthOf(bound, 'Continue') === true ? true : undefined),
      ...maybe('overwriteReplica', truthOf(bound, 'OverwriteReplica') === true ? true : undefined),
    };
    if (how.continue === true && (how.resynchronize === true || how.at !== undefined)) {
      throw new UnderstudyError(
        'usage',
        'ARGUMENT_INVALID',
        '-Continue goes on where a resynchronization stopped, -Resynchronize starts over',
        'Give one of them.',
      );
    }
    return forEachVm('Resume-VMReplication', bound, context, input, (name) => context.call('resume', { name, ...endOf(bound), ...how }));
  },
};

const START_INITIAL: Cmdlet = {
  name: 'Start-VMInitialReplication',
  summary: 'Starts the initial replication, now or at a time',
  parameters: [
    VM_NAME,
    RELATIONSHIP,
    { name: 'DestinationPath', type: 'string', aliases: ['IRLoc'] },
    { name: 'InitialReplicationStartTime', type: 'start-time', aliases: ['IRTime'] },
    { name: 'UseBackup', type: 'switch' },
    PASSTHRU,
    AS_JOB,
  ],
  async run(bound, context, input) {
    const folder = textOf(bound, 'DestinationPath');
    const how = {
      ...maybe('at', textOf(bound, 'InitialReplicationStartTime')),
      ...maybe('exportTo', folder === undefined ? undefined : context.path(folder)),
      ...maybe('useExisting', truthOf(bound, 'UseBackup') === true ? true : undefined),
    };
    return forEachVm('Start-VMInitialReplication', bound, context, input, (name) =>
      context.call('start', { name, ...endOf(bound), ...how }),
    );
  },
};

const IMPORT: Cmdlet = {
  name: 'Import-VMInitialReplication',
  summary: 'Takes an exported initial copy in, on the replica',
  parameters: [VM_NAME, { name: 'Path', type: 'string', aliases: ['IRLoc'], position: 1 }, PASSTHRU, AS_JOB],
  async run(bound, context, input) {
    const from = context.path(required('Import-VMInitialReplication', bound, 'Path'));
    return forEachVm('Import-VMInitialReplication', bound, context, input, (name) =>
      context.call('import', { name, from }),
    );
  },
};

export const REPLICATION_CMDLETS: readonly Cmdlet[] = [
  GET,
  MEASURE,
  ENABLE,
  SET,
  RESUME,
  plain('Suspend-VMReplication', 'Pauses replication, or a running resynchronization', 'suspend'),
  plain('Stop-VMReplication', 'Cancels a running resynchronization, or drops a scheduled one', 'cancel-resync'),
  plain('Remove-VMReplication', 'Ends replication on this side; run it on both', 'remove'),
  plain('Reset-VMReplicationStatistics', 'Begins a new monitoring interval', 'reset-statistics'),
  START_INITIAL,
  IMPORT,
  plain('Stop-VMInitialReplication', 'Cancels a running or scheduled initial replication', 'stop-initial'),
  ...FAILOVER_CMDLETS,
];
