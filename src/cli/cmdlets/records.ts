/**
 * What cmdlets put out: objects with Hyper-V's property names, in its order, and the columns that are shown when nobody chooses.
 * Short names (State, Health, …) are aliases of properties, as in PowerShell.
 */

import { BLOCK_BYTES } from '../../model/limits.ts';
import type { AuthorizationEntry, Health, RecoveryPoint, Status, Vm } from '../../server/api/contract.ts';
import { TimeSpan } from './values.ts';
import type { Value } from './values.ts';

export type Column = { label: string; of: (record: Row) => Value | undefined };
export type RecordType = {
  name: string;
  columns: readonly Column[];
  /** Alias → property, both as written. */
  aliases: Readonly<Record<string, string>>;
};
export type Row = { type: RecordType | null; properties: ReadonlyMap<string, Value> };

const property = (label: string, name: string = label): Column => ({
  label,
  of: ({ properties }) => properties.get(name),
});
const mebibytes = (label: string, name: string): Column => ({
  label,
  of: ({ properties }) => {
    const bytes = properties.get(name);
    return typeof bytes === 'number' ? (bytes / (256 * BLOCK_BYTES)).toFixed(2) : null;
  },
});

const ALIASES = {
  Name: 'VMName',
  State: 'ReplicationState',
  Health: 'ReplicationHealth',
  Mode: 'ReplicationMode',
  FrequencySec: 'ReplicationFrequencySec',
  PrimaryServer: 'PrimaryServerName',
  ReplicaServer: 'ReplicaServerName',
  ReplicaPort: 'ReplicaServerPort',
  AuthType: 'AuthenticationType',
  Relationship: 'ReplicationRelationshipType',
  RelationshipType: 'ReplicationRelationshipType',
};

export const VM_REPLICATION: RecordType = {
  name: 'VMReplication',
  columns: [
    property('VMName'),
    property('State', 'ReplicationState'),
    property('Health', 'ReplicationHealth'),
    property('Mode', 'ReplicationMode'),
    property('FrequencySec', 'ReplicationFrequencySec'),
    property('PrimaryServer', 'PrimaryServerName'),
    property('ReplicaServer', 'ReplicaServerName'),
    property('ReplicaPort', 'ReplicaServerPort'),
    property('AuthType', 'AuthenticationType'),
    property('Relationship', 'ReplicationRelationshipType'),
  ],
  aliases: ALIASES,
};

export const VM_REPLICATION_HEALTH: RecordType = {
  name: 'VMReplicationHealth',
  columns: [
    property('VMName'),
    property('State', 'ReplicationState'),
    property('Health', 'ReplicationHealth'),
    property('LReplTime', 'LastReplicationTime'),
    mebibytes('PReplSize(M)', 'PendingReplicationSize'),
    property('AvgLatency', 'AverageReplicationLatency'),
    mebibytes('AvgReplSize(M)', 'AverageReplicationSize'),
    property('Relationship', 'ReplicationRelationshipType'),
  ],
  aliases: { ...ALIASES, LReplTime: 'LastReplicationTime', AvgLatency: 'AverageReplicationLatency' },
};

export const AUTHORIZATION_ENTRY: RecordType = {
  name: 'VMReplicationAuthorizationEntry',
  columns: [
    property('AllowedPS', 'AllowedPrimaryServer'),
    property('StorageLoc', 'ReplicaStorageLocation'),
    property('TrustGroup'),
  ],
  aliases: { AllowedPS: 'AllowedPrimaryServer', StorageLoc: 'ReplicaStorageLocation' },
};

export const VM_REPLICATION_SERVER: RecordType = {
  name: 'VMReplicationServer',
  columns: [
    property('RepEnabled', 'ReplicationEnabled'),
    property('AuthType', 'AllowedAuthenticationType'),
    property('AllowAnyServer', 'ReplicationAllowedFromAnyServer'),
    property('CertificateThumbprint'),
  ],
  aliases: { RepEnabled: 'ReplicationEnabled', AuthType: 'AllowedAuthenticationType' },
};

/** What a guest's card gets after a failover, of one address family. */
export type GuestAddress = { card: string; address: string; prefix: number; gateway: string | null; dns: string[] };

export const FAILOVER_CONFIGURATION: RecordType = {
  name: 'VMNetworkAdapterFailoverConfiguration',
  columns: [property('VMName'), property('VMNetworkAdapterName'), property('IPv4Address'), property('IPv4SubnetMask'), property('IPv6Address')],
  aliases: {},
};

export const VM_SNAPSHOT: RecordType = {
  name: 'VMSnapshot',
  columns: [property('VMName'), property('Name'), property('SnapshotType'), property('CreationTime'), property('ParentSnapshotName')],
  aliases: {},
};

const date = (iso: string | null | undefined): Date | null =>
  iso === null || iso === undefined ? null : new Date(iso);
const span = (seconds: number | null | undefined): TimeSpan | null =>
  seconds === null || seconds === undefined ? null : new TimeSpan(seconds);
const clock = (timeOfDay: string): TimeSpan => {
  const [hours = 0, minutes = 0, seconds = 0] = timeOfDay.split(':').map(Number);
  return new TimeSpan(hours * 3600 + minutes * 60 + seconds);
};
const known = (status: Status, name: string): Value => {
  const value = status[name];
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
};

/** Properties that VMReplication and VMReplicationHealth share. */
function common(status: Status): [string, Value][] {
  return [
    ['TestVirtualMachine', (status.testFailover ?? null) === null ? null : `${status.vmName} - Test`],
    ['AllowedPrimaryServer', null],
    // A replicated disk is none of a checkpoint's.
    ['VMSnapshotId', null],
    ['VMSnapshotName', null],
    ['CimSession', null],
    ['ComputerName', status.mode === 'Replica' ? status.replicaServer : status.primaryServer],
    ['IsDeleted', false],
    ['CurrentReplicaServerName', status.replicaServer],
    ['LastAppliedLogTime', date(status.lastAppliedLogTime)],
    ['LastReplicationTime', date(status.lastReplicationTime)],
    ['PrimaryServerName', status.primaryServer],
    ['ReplicaServerName', status.replicaServer],
    ['ReplicatedDisks', (status.disks ?? []).map(({ path }) => path)],
    ['ReplicationHealth', status.health],
    ['ReplicationMode', status.mode],
    ['ReplicationRelationshipType', status.relationship],
    ['ReplicationState', status.state],
    ['VMId', status.vmId],
    ['VMName', status.vmName],
  ];
}

export function replicationRow(status: Status): Row {
  return {
    type: VM_REPLICATION,
    properties: new Map<string, Value>([
      ['AuthenticationType', 'Certificate'],
      ['AutoResynchronizeEnabled', status.autoResynchronizeEnabled],
      ['AutoResynchronizeIntervalEnd', clock(status.autoResynchronizeIntervalEnd)],
      ['AutoResynchronizeIntervalStart', clock(status.autoResynchronizeIntervalStart)],
      ['BypassProxyServer', false],
      ['CertificateThumbprint', known(status, 'certificateThumbprint')],
      ['CompressionEnabled', known(status, 'compression')],
      ['EnableWriteOrderPreservationAcrossDisks', true],
      ['ExcludedDisks', status.excludedDisks ?? []],
      ['InitialReplicationStartTime', date(status.initialReplicationStartTime)],
      ['RecoveryHistory', status.recoveryHistory ?? null],
      ['ReplicaServerPort', status.replicaPort ?? null],
      ['ReplicationFrequencySec', status.frequencySec],
      ['ResynchronizeStartTime', date(status.resynchronizeStartTime)],
      ['VSSSnapshotFrequencyHour', known(status, 'applicationConsistentHours')],
      ['VSSSnapshotReplicationEnabled', Number(known(status, 'applicationConsistentHours') ?? 0) > 0],
      // A host's settings of its guests do not travel.
      ['ReplicateHostKvpItems', false],
      ...common(status),
      ['ReplicationHealthDetails', status.healthDetails],
    ]),
  };
}

export function healthRow(status: Status, { statistics }: Health): Row {
  const atRest = (status.applicationConsistentAttempt ?? null) as { time: string; failure: unknown } | null;
  return {
    type: VM_REPLICATION_HEALTH,
    properties: new Map<string, Value>([
      ['CurrentTask', /^(Resynchronizing|InitialReplicationInProgress)$/.test(status.state) ? [status.state] : []],
      ['MonitoringStartTime', date(statistics.monitoringStartTime)],
      ['MonitoringEndTime', date(statistics.monitoringEndTime)],
      ['LastReplicationType', status.lastReplicationTime === null ? 'None' : 'Regular'],
      ['FailedOverReplicationType', (status.failover ?? null) === null ? 'None' : 'Regular'],
      ['LastVSSSnapshotTime', atRest === null || atRest.failure !== null ? null : date(atRest.time)],
      ['LastTestFailoverInitiatedTime', date(statistics.lastTestFailoverTime)],
      ['InitialReplicationSize', statistics.initialReplicationBytes ?? null],
      ['PendingReplicationSize', statistics.pendingBytes],
      ['AverageReplicationSize', statistics.averageReplicationBytes],
      ['MaximumReplicationSize', statistics.maximumReplicationBytes],
      ['AverageReplicationLatency', span(statistics.averageLatencySeconds)],
      ['MaximumReplicationLatency', span(statistics.maximumLatencySeconds)],
      ['ReplicationErrors', statistics.replicationErrors],
      ['SuccessfulReplicationCount', statistics.successfulReplications],
      ['MissedReplicationCount', statistics.missedReplications],
      ['ReplicationHealthDetails', status.healthDetails],
      ...common(status),
    ]),
  };
}

/** A recovery point as Hyper-V shows it: a snapshot of the replica VM. Its name is its id, so that it can be given back. */
export function snapshotRow(vmName: string, vmId: string, point: RecoveryPoint): Row {
  return {
    type: VM_SNAPSHOT,
    properties: new Map<string, Value>([
      ['VMName', vmName],
      ['VMId', vmId],
      ['Name', point.id],
      ['Id', point.id],
      ['SnapshotType', point.kind === 'application-consistent' ? 'AppConsistentReplica' : 'Replica'],
      ['CreationTime', date(point.time)],
      ['ParentSnapshotName', null],
      ['SizeOfSystemFiles', point.bytes],
    ]),
  };
}

export function authorizationRow(entry: AuthorizationEntry): Row {
  return {
    type: AUTHORIZATION_ENTRY,
    properties: new Map<string, Value>([
      ['AllowedPrimaryServer', entry.name ?? (entry.fingerprint === 'any' ? '*' : entry.fingerprint)],
      ['ReplicaStorageLocation', entry.storage],
      ['TrustGroup', entry.trustGroup],
      ['CertificateThumbprint', entry.fingerprint],
    ]),
  };
}

/** `monitoring`: as the host tells it. What an older server does not tell is empty. */
export function serverRow(
  host: { fingerprint: string; name: string; peerPort?: number | undefined; monitoringIntervalSec?: number | undefined;
    monitoringStart?: string | undefined },
  entries: readonly AuthorizationEntry[],
): Row {
  return {
    type: VM_REPLICATION_SERVER,
    properties: new Map<string, Value>([
      ['AllowedAuthenticationType', 'Certificate'],
      ['AuthorizationEntries', entries.map(({ name, fingerprint }) => name ?? fingerprint)],
      ['CertificateAuthenticationPort', host.peerPort ?? null],
      ['CertificateAuthenticationPortMapping', null],
      ['CertificateThumbprint', host.fingerprint],
      ['DefaultStorageLocation', entries.find(({ fingerprint }) => fingerprint === 'any')?.storage ?? null],
      // Hosts know each other by certificates alone.
      ['KerberosAuthenticationPort', null],
      ['KerberosAuthenticationPortMapping', null],
      ['MonitoringInterval', span(host.monitoringIntervalSec)],
      ['MonitoringStartTime', host.monitoringStart === undefined ? null : clock(host.monitoringStart)],
      ['Name', host.name],
      // It has answered.
      ['OperationalStatus', ['Ok']],
      ['StatusDescriptions', []],
      ['ReplicationAllowedFromAnyServer', entries.some(({ fingerprint }) => fingerprint === 'any')],
      ['ReplicationEnabled', entries.length > 0],
    ]),
  };
}

export function failoverConfigurationRow(vm: Vm, card: string, sides: { IPv4?: GuestAddress | undefined; IPv6?: GuestAddress | undefined }): Row {
  const of = (family: 'IPv4' | 'IPv6'): [string, Value][] => {
    const side = sides[family];
    return [
      [`${family}Address`, side?.address ?? null],
      family === 'IPv4' ? ['IPv4SubnetMask', side === undefined ? null : maskOf(side.prefix)] : ['IPv6SubnetPrefixLength', side?.prefix ?? null],
      [`${family}DefaultGateway`, side?.gateway ?? null],
      [`${family}PreferredDNSServer`, side?.dns[0] ?? null],
      [`${family}AlternateDNSServer`, side?.dns[1] ?? null],
    ];
  };
  return {
    type: FAILOVER_CONFIGURATION,
    properties: new Map<string, Value>([
      ['VMName', vm.name], ['VMId', vm.vmId], ['VMNetworkAdapterName', card], ...of('IPv4'), ...of('IPv6'),
    ]),
  };
}

/** 24 → 255.255.255.0 */
const maskOf = (prefix: number): string =>
  [0, 8, 16, 24].map((before) => 256 - 2 ** (8 - Math.min(8, Math.max(0, prefix - before)))).join('.');

/** A property by its name or alias, any case; undefined when there is none. */
export function findProperty({ type, properties }: Row, name: string): { name: string; value: Value } | undefined {
  const wanted = name.toLowerCase();
  for (const [candidate, value] of properties)
    if (candidate.toLowerCase() === wanted) return { name: candidate, value };
  const alias = Object.entries(type?.aliases ?? {}).find(([short]) => short.toLowerCase() === wanted);
  return alias === undefined ? undefined : { name: alias[0], value: properties.get(alias[1]) ?? null };
}
