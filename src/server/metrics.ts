/**
 * What `/metrics` shows: Hyper-V Replica's counters under the names that exporters for Windows hosts use, so that dashboards for
 * those work, and our own. Each VM is looked at once for each scrape.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { RelationshipRecord, ResyncRecord, VmRecord } from '../model/records.ts';
import { HEALTH_NUMBERS, REPLICATION_STATES } from '../model/replication-state.ts';
import { RUNGS } from '../model/resync-trigger.ts';
import type { Health, ResyncStatus, Status } from './api/contract.ts';
import type { Host } from './host.ts';
import { queueShape, resyncStatusShape } from './operations/resync-operations.ts';
import { partsOf } from './sending-end.ts';
import { healthShape, statusShape } from './status.ts';

interface Facts {
  status: Status;
  health: Health;
  relationship: RelationshipRecord | undefined;
  /** Regions of the change map that may differ from the replica; null while the disks are closed. */
  regions: number | null;
}
type Read = (facts: Facts) => number | null | undefined;
type Definition = [name: string, kind: 'gauge' | 'counter', help: string, read: Read];

const onSide = (side: 'primary' | 'replica', read: Read): Read => (facts) => (facts.relationship?.side === side ? read(facts) : null);
const sum = (key: 'comparedBytes' | 'differingBytes' | 'sentBytes' | 'totalBytes') =>
  ({ disks }: ResyncStatus): number => disks.reduce((total, disk) => total + disk[key], 0);

const HYPER_V: Definition[] = [
  ['average_replication_latency_seconds', 'gauge', 'Average replication latency', ({ health }) => health.statistics.averageLatencySeconds],
  ['average_replication_size_bytes', 'gauge', 'Average size of a log set', ({ health }) => health.statistics.averageReplicationBytes],
  ['compression_efficiency', 'gauge', 'Share of what was sent that compression saved, in percent', ({ relationship }) => efficiency(relationship)],
  ['last_replication_size_bytes', 'gauge', 'Size of the last log set', ({ relationship }) => relationship?.statistics.lastBytes],
  ['network_received_bytes_total', 'counter', 'Bytes of logs, copies and compares received over the network',
    onSide('replica', ({ relationship }) => relationship!.transferred.wireBytes)],
  ['network_sent_bytes_total', 'counter', 'Bytes of logs, copies and compares sent over the network',
    onSide('primary', ({ relationship }) => relationship!.transferred.wireBytes)],
  ['replications_total', 'counter', 'Successful cycles; begins anew with each monitoring interval', ({ health }) => health.statistics.successfulReplications],
  ['replication_latency_seconds', 'gauge', 'Latency of the last cycle', ({ relationship }) =>
    (relationship === undefined || relationship.statistics.deliveredCycles === 0 ? null : relationship.statistics.lastLatencyMs / 1000)],
  ['resynchronized_bytes_total', 'counter', 'Bytes of pages sent by resynchronizations',
    onSide('primary', ({ relationship }) => relationship!.transferred.resyncBytes)],
];

const OWN: Definition[] = [
  ['missed_cycles', 'gauge', 'Missed cycles in the monitoring interval', ({ health }) => health.statistics.missedReplications],
  ['replication_errors', 'gauge', 'Failed attempts in the monitoring interval', ({ health }) => health.statistics.replicationErrors],
  ['pending_bytes', 'gauge', 'Bytes the replica does not have or has not applied yet', ({ status }) => status.pendingBytes],
  ['lag_seconds', 'gauge', 'Age of what the replica could serve', ({ status }) => status.lagSeconds],
  ['frequency_seconds', 'gauge', 'Time between two log sets', ({ status }) => status.frequencySec],
  ['log_bytes', 'gauge', 'Tracking logs that count against the limit', ({ status }) => status.logBytes],
  ['log_limit_bytes', 'gauge', 'Beyond it a resynchronization is required', ({ status }) => status.logLimitBytes],
  ['log_limit_reached_in_seconds', 'gauge', 'Forecast at the present rate; absent when it is not in sight', ({ status }) => status.secondsToLogLimit],
  ['change_map_regions', 'gauge', 'Regions (1 MiB) that may differ from the replica', ({ regions }) => regions],
];

/** Promised to dashboards: they follow one another, but for the last. */
const PHASES: Record<ResyncRecord['phase'] | 'required' | 'paused', number> =
  { required: 0, characteristics: 1, tracking: 2, comparing: 3, completing: 4, merging: 5, paused: 6 };
const numbered = (names: readonly string[]): string => names.map((name, at) => `${at} ${name}`).join(', ');

/** Of whoever sends here: the VM's primary, and the replica that feeds an extended one. While one is required or runs. */
const RESYNC: [name: string, help: string, read: (resync: ResyncStatus) => number | null][] = [
  ['resync_rung', `Rung of the resynchronization that is required or runs: ${numbered(RUNGS)}`, ({ rung }) => (rung === null ? null : RUNGS.indexOf(rung))],
  ['resync_phase', `How far it has come: ${numbered(Object.keys(PHASES))}`,
    ({ phase }) => (phase in PHASES ? PHASES[phase as keyof typeof PHASES] : null)],
  ['resync_total_bytes', 'Bytes that the resynchronization compares', sum('totalBytes')],
  ['resync_compared_bytes', 'Bytes whose equality is decided', sum('comparedBytes')],
  ['resync_differing_bytes', 'Bytes of pages that differed', sum('differingBytes')],
  ['resync_sent_bytes', 'Bytes of pages that were sent', sum('sentBytes')],
];

export interface Metrics {
  contentType: string;
  metrics(): Promise<string>;
}

export function metricsOf(host: Host): Metrics {
  const registry = new Registry();
  const perVm = [...define(registry, 'windows_hyperv_replica_vm_', HYPER_V), ...define(registry, 'understudy_', OWN)];
  const named = { registers: [registry], labelNames: ['vm', 'relationship'] as const };
  const health = new Gauge({ ...named, name: 'windows_hyperv_replica_vm_health', help: 'Replication health: 0 none, 1 normal, 2 warning, 3 critical' });
  const state = new Gauge({ ...named, name: 'windows_hyperv_replica_vm_state', help: 'Replication state, in the numbers of WMI' });
  const resyncs = RESYNC.map(([name, help, read]) => ({ gauge: new Gauge({ ...named, name: `understudy_${name}`, help }), read }));
  const queue = new Gauge({ name: 'understudy_resync_queue', help: 'Resynchronizations by standing', labelNames: ['standing'], registers: [registry] });
  /** What both relationships of a VM have: its own, and the leg to an extended replica that this host feeds. */
  const showEnd = (vm: VmRecord, status: Status, extended: boolean) => {
    const labels = { vm: vm.name, relationship: extended ? 'extended' : 'primary' };
    health.set(labels, HEALTH_NUMBERS[status.health]);
    state.set(labels, REPLICATION_STATES[status.state].wmi);
    const resync = resyncOf(host, vm, extended);
    if (resync === null) return;
    for (const { gauge, read } of resyncs) {
      const value = read(resync);
      if (value !== null) gauge.set(labels, value);
    }
  };
  const look = () => {
    for (const metric of [...perVm.map(([each]) => each), ...resyncs.map(({ gauge }) => gauge), health, state, queue]) metric.reset();
    for (const vm of host.catalog.vms.list()) {
      const facts = factsOf(host, vm);
      showEnd(vm, facts.status, false);
      if (host.extended.get(vm.vmId) !== undefined) showEnd(vm, statusShape(host, vm, true), true);
      if (facts.relationship === undefined) continue;
      for (const [metric, read] of perVm) {
        const value = read(facts);
        if (value !== null && value !== undefined) metric.inc({ vm: vm.name }, value);
      }
    }
    for (const standing of ['running', 'waiting', 'scheduled', 'paused']) queue.set({ standing }, 0);
    for (const { standing } of queueShape(host)) queue.inc({ standing });
  };
  return {
    contentType: registry.contentType,
    async metrics() {
      look();
      return `${await registry.metrics()}\n${host.guestLatency.text((vmId) => host.catalog.vms.get(vmId)?.name ?? null)}`;
    },
  };
}

function define(registry: Registry, prefix: string, definitions: Definition[]): [metric: Gauge<'vm'> | Counter<'vm'>, read: Read][] {
  return definitions.map(([name, kind, help, read]) => {
    const options = { name: `${prefix}${name}`, help, labelNames: ['vm'] as const, registers: [registry] };
    return [kind === 'gauge' ? new Gauge(options) : new Counter(options), read];
  });
}

function factsOf(host: Host, vm: VmRecord): Facts {
  return {
    status: statusShape(host, vm), health: healthShape(host, vm), relationship: host.relationships.find(vm.vmId), regions: regionsOf(host, vm),
  };
}

/** The one that is required or runs; null when there is none, and on the side that only receives. */
function resyncOf(host: Host, vm: VmRecord, extended: boolean): ResyncStatus | null {
  const { relationship } = partsOf(host, vm, extended);
  if (relationship?.side !== 'primary' || (relationship.resync === null && relationship.required === null)) return null;
  return resyncStatusShape(host, vm, extended);
}

function regionsOf(host: Host, vm: VmRecord): number | null {
  const tracked = host.primaries.get(vm.vmId)?.tracked ?? null;
  if (tracked === null) return null;
  return vm.disks.reduce((sum, { diskId }) => sum + (tracked.disk(diskId).map?.regionsSet ?? 0), 0);
}

function efficiency(relationship: RelationshipRecord | undefined): number | null {
  if (relationship === undefined || relationship.side === 'replica') return null;
  const { initialBytes, logBytes, resyncBytes, wireBytes } = relationship.transferred;
  const plain = initialBytes + logBytes + resyncBytes;
  return plain === 0 ? null : Math.max(0, (1 - wireBytes / plain) * 100);
}
