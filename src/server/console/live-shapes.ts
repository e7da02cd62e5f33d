/** A VM as the live pages are told of it: a row of the overview, and all of one VM for its own page. Reads only. */
import type { RelationshipRecord, VmRecord } from '../../model/records.ts';
import { decide, OPERATIONS, type Operation } from '../../model/relationship.ts';
import { replicatedDisks } from '../../model/records.ts';
import type { Relationships } from '../../replication/relationships.ts';
import type { PastCycle } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { resyncStatusShape } from '../operations/resync-operations.ts';
import { sendingEnd } from '../sending-end.ts';
import { healthShape, statusShape, vmShape } from '../status.ts';
import type { LiveVm } from './live-vm.ts';

/** Cycles of the sparkline. */
const CHURN_CYCLES = 32;

export function liveVm(host: Host, vm: VmRecord): LiveVm {
  const status = statusShape(host, vm);
  const relationship = host.relationships.find(vm.vmId);
  const { attached, guests } = vmShape(host, vm) as unknown as { attached: boolean; guests: number };
  const resync = relationship === undefined || vm.side === 'replica' ? null : resyncSummary(host, vm, relationship);
  const initial = status.initialReplication as { percent: number } | null | undefined;
  return {
    vmId: vm.vmId, vmName: vm.name, side: vm.side, attached, guests, diskCount: vm.disks.length,
    totalBytes: replicatedDisks(vm).reduce((sum, { virtualSize }) => sum + virtualSize, 0),
    state: status.state, stateText: String(status.stateText ?? 'Not enabled'), health: status.health, healthDetails: status.healthDetails,
    mode: status.mode, primaryServer: status.primaryServer, replicaServer: status.replicaServer, frequencySec: status.frequencySec,
    lastReplicationTime: status.lastReplicationTime, lastAppliedLogTime: status.lastAppliedLogTime, pendingBytes: status.pendingBytes,
    logBytes: status.logBytes ?? null, logLimitBytes: status.logLimitBytes ?? null,
    logLimitTime: roundedTime(host.parts.clock.now(), status.secondsToLogLimit ?? null),
    resynchronizeStartTime: status.resynchronizeStartTime,
    percent: resync?.percent ?? initial?.percent ?? null,
    resync: resync === null ? null : { phase: resync.phase, rung: resync.rung, reason: resync.reason },
    churn: relationship === undefined ? [] : host.relationships.cycles(vm.vmId, CHURN_CYCLES).map(({ bytes }) => bytes),
    actions: actionsOf(host.relationships, vm.vmId),
    extended: host.extended.get(vm.vmId) === undefined ? null : extendedSummary(host, vm),
  };
}

/** Everything about one VM: the relationship that it has here, and the leg to the extended replica that this host feeds. */
export function vmDetail(host: Host, vm: VmRecord): object {
  return {
    vm: vmShape(host, vm), ...endDetail(host, vm, false),
    extended: host.extended.get(vm.vmId) === undefined ? null : endDetail(host, vm, true),
  };
}

/** Hosts that keep replicas of this one's VMs, the one with most of them first: where the next VM will mostly go too. */
export function knownReplicas(host: Host): { name: string; replica: string; fingerprint: string; vms: number }[] {
  const primaries = host.catalog.relationships.list().filter(({ side }) => side === 'primary');
  const groups = Map.groupBy(primaries, ({ remote }) => `${hostPort(remote)} ${remote.fingerprint}`);
  return [...groups.values()].map((group) => {
    const { remote } = group[0]!;
    return { name: remote.name || remote.host, replica: hostPort(remote), fingerprint: remote.fingerprint, vms: group.length };
  }).sort((a, b) => b.vms - a.vms);
}

const hostPort = ({ host, port }: { host: string; port: number }): string => `${host.includes(':') ? `[${host}]` : host}:${port}`;

function endDetail(host: Host, vm: VmRecord, extended: boolean): object {
  const { relationships } = sendingEnd(host, extended);
  const relationship = relationships.find(vm.vmId);
  const resync = relationship === undefined || relationship.side === 'replica' ? null : resyncStatusShape(host, vm, extended);
  return {
    of: extended ? { name: vm.name, extended } : { name: vm.name },
    status: statusShape(host, vm, extended), health: healthShape(host, vm, extended),
    settings: relationship?.settings ?? null, remote: relationship?.remote ?? null, actions: actionsOf(relationships, vm.vmId),
    resync: resync === null || resync.phase === 'none' ? null : resync,
    cycles: relationship === undefined ? [] : cyclesOf(relationships, vm.vmId),
  };
}

const cyclesOf = (relationships: Relationships, vmId: string): PastCycle[] => relationships.cycles(vmId).map(({ at, outcome, bytes, latencyMs }) =>
  ({ time: new Date(at).toISOString(), outcome, bytes, latencySeconds: latencyMs / 1000 }));

function extendedSummary(host: Host, vm: VmRecord): LiveVm['extended'] {
  const { replicaServer, stateText, health, healthDetails } = statusShape(host, vm, true);
  return { replicaServer, stateText: String(stateText), health, reason: healthDetails[0] ?? null };
}

/** The operations that the table of states allows now, without carrying any out. */
function actionsOf(relationships: Relationships, vmId: string): Operation[] {
  const situation = relationships.situation(vmId);
  return (Object.keys(OPERATIONS) as Operation[]).filter((operation) => !(decide(situation, operation) instanceof Error));
}

function resyncSummary(host: Host, vm: VmRecord, relationship: RelationshipRecord) {
  if (relationship.resync === null && relationship.required === null) return null;
  const { phase, rung, reason, percent } = resyncStatusShape(host, vm);
  return { phase, rung, reason, percent };
}

/**
 * A forecast moves all the time. Rounded to a sixteenth of what is left it says the same to a person, and changes rarely.
 */
function roundedTime(now: number, seconds: number | null): string | null {
  if (seconds === null || seconds > 30 * 86_400) return null;
  const step = Math.max(60_000, 2 ** Math.round(Math.log2(Math.max(1, seconds * 1000) / 16)));
  return new Date(Math.round((now + seconds * 1000) / step) * step).toISOString();
}
