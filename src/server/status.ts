/** Records as clients see them: the shapes of the API contract. Reads only. */
import { healthOf } from '../model/health.ts';
import { hypervisorOf, type GuestRun } from '../model/hypervisor.ts';
import { pointId } from '../model/recovery-points.ts';
import type { FailoverRecord, RelationshipRecord, VmRecord } from '../model/records.ts';
import { HEALTH_NUMBERS, MODE_NUMBERS, REPLICATION_STATES } from '../model/replication-state.ts';
import { averageBytes, averageLatencyMs } from '../model/statistics.ts';
import { exportFolderOf } from '../replication/export-folder.ts';
import { logBytesOf, logLimitOf } from '../replication/log-limit.ts';
import { hasBaseline } from '../replication/relationships.ts';
import { requiredAfter } from '../replication/required-resync.ts';
import { failureOf } from './api/failure.ts';
import type { Health, Statistics, Status, Vm } from './api/contract.ts';
import type { Host } from './host.ts';
import { partsOf } from './sending-end.ts';

const isoOrNull = (time: number | null): string | null => (time === null ? null : new Date(time).toISOString());

export function vmShape(host: Host, vm: VmRecord): Vm {
  const attached = vm.side === 'primary' && (host.primaries.get(vm.vmId)?.tracked ?? null) !== null && vm.attach === 'attached';
  return {
    vmId: vm.vmId, name: vm.name, attached, side: vm.side, guests: host.guests(vm.vmId), logDir: vm.logFolder,
    hypervisor: { ...hypervisorOf(vm), ...guestShapes(vm) },
    disks: vm.disks.map((disk, index) => ({
      path: disk.path, format: disk.format, virtualSize: disk.virtualSize, logicalSectorSize: disk.logicalSectorSize,
      uri: vm.side === 'primary' && vm.attach !== 'stopped' ? host.uri(vm, index) : null,
      tcpUri: vm.side === 'primary' && vm.attach !== 'stopped' ? host.tcpUri(vm, index) : null,
    })),
  };
}

/** `extended`: of the leg to the extended replica that this host feeds. */
export function statusShape(host: Host, vm: VmRecord, extended = false): Status {
  const relationship = knownOf(host, vm, extended);
  return relationship === undefined ? notReplicated(vm) : replicated(host, vm, relationship, extended);
}

/** Of all VMs, each followed by its leg to an extended replica. */
export function eachRelationship<T>(host: Host, shape: (host: Host, vm: VmRecord, extended: boolean) => T): T[] {
  return host.catalog.vms.list().flatMap((vm) =>
    [shape(host, vm, false), ...(host.extended.get(vm.vmId) === undefined ? [] : [shape(host, vm, true)])]);
}

export function healthShape(host: Host, vm: VmRecord, extended = false): Health {
  const relationship = knownOf(host, vm, extended);
  if (relationship === undefined) {
    return { vmName: vm.name, health: 'NotApplicable', state: 'Disabled', relationship: 'Simple', lastReplicationTime: null,
      healthDetails: [], statistics: noStatistics };
  }
  const { health, details } = judge(host, vm, relationship, extended);
  return {
    vmName: vm.name, health, state: relationship.state, relationship: typeOf(relationship, extended),
    lastReplicationTime: isoOrNull(relationship.lastReplicationTime), healthDetails: details,
    statistics: statisticsShape(host, vm, relationship, extended),
  };
}

function guestShapes({ guest, testGuest }: VmRecord) {
  return { guest: guestRunShape(guest), testGuest: guestRunShape(testGuest) };
}

function guestRunShape(run: GuestRun | undefined) {
  if (run === undefined) return null;
  const { action, startedAt, endedAt, failure, output, addresses } = run;
  return { action, startTime: new Date(startedAt).toISOString(), endTime: isoOrNull(endedAt), failure, output, addresses: addresses ?? null };
}

const noStatistics: Statistics = {
  monitoringStartTime: null, monitoringEndTime: null, averageReplicationBytes: 0, maximumReplicationBytes: 0,
  averageLatencySeconds: null, maximumLatencySeconds: null, replicationErrors: 0, successfulReplications: 0, missedReplications: 0,
  pendingBytes: 0,
};

/** A catalog that cannot be written comes before what is in it; it is tried again within seconds. */
function failureNow(host: Host, { vmId }: VmRecord, relationship: RelationshipRecord, extended: boolean) {
  const unwritten = extended ? undefined : (host.primaries.get(vmId)?.tracked?.owed?.failure ?? host.relationships.notWritten(vmId));
  if (unwritten !== undefined) return { ...failureOf(unwritten), retryAt: host.parts.clock.now() + 10_000 };
  const failed = extended ? undefined : host.failureOf(vmId);
  return relationship.error ?? (failed === undefined ? null : { ...failed.toJSON(), retryAt: null });
}

/** The record, with a loss that the catalog could not be told yet (promise 1). */
function knownOf(host: Host, vm: VmRecord, extended: boolean): RelationshipRecord | undefined {
  const { relationship: record } = partsOf(host, vm, extended);
  const owed = extended ? null : (host.primaries.get(vm.vmId)?.tracked?.owed ?? null);
  if (record?.state !== 'Replicating' || owed === null || owed.loss === null) return record;
  const required = requiredAfter(record.required, owed.loss, owed.mapHolds, host.parts.clock.now());
  return { ...record, state: 'WaitingForStartResynchronize', required };
}

const typeOf = (relationship: RelationshipRecord, extended: boolean) => (extended || relationship.extended === true ? 'Extended' : 'Simple');

function judge(host: Host, vm: VmRecord, relationship: RelationshipRecord, extended: boolean) {
  return healthOf({
    vmName: vm.name, side: relationship.side, state: relationship.state, now: host.parts.clock.now(), since: relationship.createdAt,
    hasBaseline: hasBaseline(relationship), lastReplicationTime: relationship.lastReplicationTime, statistics: relationship.statistics,
    failure: failureNow(host, vm, relationship, extended), required: relationship.required === null ? null
      : { ...relationship.required, startAt: host.resync.startOf(relationship, host.parts.clock.now()) },
    oldPrimaryHolds: relationship.failover?.primaryHolds === true,
    log: relationship.side === 'primary' ? logFacts(host, vm, relationship, extended) : null,
    feederWaits: extended ? (host.extended.get(vm.vmId)?.waitsFor ?? null) : null,
    testFailover: relationship.testFailover ? { since: relationship.testFailover.startedAt, waitingBytes: host.replicas.get(vm.vmId)?.inbox.bytes() ?? 0 } : null,
    guests: extended ? [] : [vm.guest, vm.testGuest].flatMap((run) => (run === undefined ? [] : [run])),
    damagedPoints: extended ? 0 : host.catalog.points.list(vm.vmId).filter(({ damaged }) => damaged !== null).length,
  });
}

function logFacts(host: Host, vm: VmRecord, relationship: RelationshipRecord, extended: boolean) {
  const open = partsOf(host, vm, extended).sender?.tracked?.openLogBytes ?? 0;
  const bytes = logBytesOf(extended ? host.extended.ports.catalog : host.catalog, vm.vmId) + open;
  const limitBytes = logLimitOf(vm, relationship);
  return { bytes, limitBytes, limitReachedAt: forecast(host, relationship, bytes, limitBytes) };
}

/** At the rate at which the present logs have grown since the last delivery; null when it is not in sight. */
function forecast(host: Host, relationship: RelationshipRecord, bytes: number, limit: number): number | null {
  const now = host.parts.clock.now();
  const since = relationship.lastReplicationTime ?? relationship.createdAt;
  const elapsed = now - since;
  // An idle VM has little more than empty logs: what they grow by says nothing.
  if (bytes < limit / 100 || elapsed <= 0) return null;
  return bytes >= limit ? now : Math.round(now + ((limit - bytes) * elapsed) / bytes);
}

function notReplicated(vm: VmRecord): Status {
  return {
    vmId: vm.vmId, vmName: vm.name, state: 'Disabled', stateNumber: 0, wmiState: 0, health: 'NotApplicable', mode: 'None',
    relationship: 'Simple', frequencySec: null, primaryServer: null, replicaServer: null, lastReplicationTime: null,
    lastAppliedLogTime: null, pendingBytes: 0, autoResynchronizeEnabled: false, autoResynchronizeIntervalStart: '18:30:00',
    autoResynchronizeIntervalEnd: '06:00:00', resynchronizeStartTime: null, healthDetails: [], healthNumber: 0, modeNumber: 0,
  };
}

function replicated(host: Host, vm: VmRecord, relationship: RelationshipRecord, extended: boolean): Status {
  const { state, side, settings, remote, initial } = relationship;
  const { sender } = partsOf(host, vm, extended);
  const { health, details } = judge(host, vm, relationship, extended);
  const mode = extended ? 'Replica' : side === 'primary' ? 'Primary' : relationship.extended === true ? 'ExtendedReplica' : 'Replica';
  const progress = sender?.initialProgress ?? null;
  const log = side === 'primary' ? logFacts(host, vm, relationship, extended) : null;
  return {
    vmId: vm.vmId, vmName: vm.name, state, stateNumber: REPLICATION_STATES[state].powershell, wmiState: REPLICATION_STATES[state].wmi,
    stateText: REPLICATION_STATES[state].text, health, healthNumber: HEALTH_NUMBERS[health], healthDetails: details,
    mode, modeNumber: MODE_NUMBERS[mode], relationship: typeOf(relationship, extended), frequencySec: settings.frequencySec,
    primaryServer: side === 'primary' ? host.name : remote.name, replicaServer: side === 'primary' ? remote.name || remote.host : host.name,
    replicaPort: side === 'primary' ? remote.port : host.peer.address.port,
    lastReplicationTime: isoOrNull(relationship.lastReplicationTime), lastAppliedLogTime: isoOrNull(relationship.lastAppliedTime),
    lagSeconds: relationship.lastAppliedTime === null ? null : Math.max(0, (host.parts.clock.now() - relationship.lastAppliedTime) / 1000),
    pendingBytes: side === 'primary' ? (sender?.pendingBytes() ?? 0) : (host.replicas.get(vm.vmId)?.inbox.bytes() ?? 0),
    autoResynchronizeEnabled: settings.autoResync.enabled, autoResynchronizeIntervalStart: settings.autoResync.intervalStart,
    autoResynchronizeIntervalEnd: settings.autoResync.intervalEnd, resynchronizeStartTime: isoOrNull(host.resync.startOf(relationship, host.parts.clock.now())),
    initialReplicationStartTime: isoOrNull(initial?.startAt ?? null), recoveryHistory: settings.recoveryHistory,
    applicationConsistentHours: settings.applicationConsistentHours,
    applicationConsistentAttempt: relationship.atRest === undefined ? null
      : { time: new Date(relationship.atRest.triedAt).toISOString(), failure: relationship.atRest.failure },
    hypervisor: { adapter: vm.hypervisor?.adapter ?? 'none', ...guestShapes(vm) },
    excludedDisks: settings.excludedDisks, lastReceivedEpoch: relationship.lastReceivedEpoch, lastAppliedEpoch: relationship.lastAppliedEpoch,
    error: relationship.error === null ? null : { code: relationship.error.code, message: relationship.error.message,
      remedy: relationship.error.remedy, retryTime: isoOrNull(relationship.error.retryAt) },
    initialReplication: progress === null ? null : {
      doneBytes: progress.doneBytes, totalBytes: progress.totalBytes, sentBytes: progress.sentBytes,
      percent: progress.totalBytes === 0 ? 100 : Math.floor((progress.doneBytes / progress.totalBytes) * 100) },
    ...(side === 'primary' && initial?.method === 'export' && initial.folder !== null
      ? { exportFolder: exportFolderOf(vm, initial.folder), exportFinished: initial.copied } : {}),
    disks: vm.disks.map((disk, index) => ({
      path: disk.path, format: disk.format, virtualSize: disk.virtualSize, logicalSectorSize: disk.logicalSectorSize,
      uri: side === 'replica' ? (host.failover.servedAs(vm.vmId)?.map((name) => host.exportUri(name))[index] ?? null)
        : extended || vm.attach === 'stopped' ? null : host.uri(vm, index) })),
    ...(side === 'replica' ? {
      failover: servedShape(host, vm, relationship.failover, 'failover'), testFailover: servedShape(host, vm, relationship.testFailover, 'test'),
      recoveryPoints: host.catalog.points.list(vm.vmId).length } : {}),
    ...(log === null ? {} : { logBytes: log.bytes, logLimitBytes: log.limitBytes,
      secondsToLogLimit: log.limitReachedAt === null ? null : Math.max(0, (log.limitReachedAt - host.parts.clock.now()) / 1000) }),
  };
}

function servedShape(host: Host, { vmId }: VmRecord, served: FailoverRecord | null | undefined, kind: 'failover' | 'test') {
  if (!served) return null;
  const point = host.catalog.points.list(vmId).find(({ epoch }) => epoch === served.pointEpoch);
  return {
    point: served.pointEpoch === null ? 'latest' : pointId(point ?? { time: served.time! }), time: isoOrNull(served.time),
    startTime: new Date(served.startedAt).toISOString(), settling: served.settling,
    ...(served.settling === null ? { writtenBytes: host.failover.writtenBytes(vmId, kind) ?? 0 } : {}),
  };
}

function statisticsShape(host: Host, vm: VmRecord, relationship: RelationshipRecord, extended: boolean): Statistics {
  const { statistics, transferred, side } = relationship;
  const latency = averageLatencyMs(statistics);
  const pending = side === 'primary' ? partsOf(host, vm, extended).sender?.pendingBytes() : host.replicas.get(vm.vmId)?.inbox.bytes();
  return {
    monitoringStartTime: isoOrNull(statistics.from), monitoringEndTime: isoOrNull(statistics.until),
    averageReplicationBytes: averageBytes(statistics) ?? 0, maximumReplicationBytes: statistics.maximumBytes,
    lastReplicationBytes: statistics.lastBytes, averageLatencySeconds: latency === null ? null : latency / 1000,
    maximumLatencySeconds: statistics.deliveredCycles === 0 ? null : statistics.maximumLatencyMs / 1000,
    replicationErrors: statistics.errors, successfulReplications: statistics.successfulCycles,
    missedReplications: statistics.missedCycles, pendingBytes: pending ?? 0,
    initialReplicationBytes: transferred.initialBytes, resynchronizedBytes: transferred.resyncBytes, sentBytes: transferred.wireBytes,
    lastTestFailoverTime: isoOrNull(relationship.lastTestFailoverTime ?? null),
  };
}
