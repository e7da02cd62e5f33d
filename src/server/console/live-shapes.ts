/** A VM as the live pages are told of it. Reads only. */
import type { RelationshipRecord, VmRecord } from '../../model/records.ts';
import { decide, OPERATIONS, type Operation } from '../../model/relationship.ts';
import { replicatedDisks } from '../../model/records.ts';
import type { Host } from '../host.ts';
import { resyncStatusShape } from '../operations/resync-operations.ts';
import { statusShape, vmShape } from '../status.ts';
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
    churn: relationship === undefined ? [] : host.relationships.cycles(vm.vmId).slice(-CHURN_CYCLES).map(({ bytes }) => bytes),
    actions: actionsOf(host, vm),
  };
}

/** The operations that the table of states allows now, without carrying any out. */
export function actionsOf(host: Host, vm: VmRecord): Operation[] {
  const situation = host.relationships.situation(vm.vmId);
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
