/**
 * What `/metrics` shows: Hyper-V Replica's counters under the names that exporters for Windows hosts use, so that dashboards for
 * those work, and our own. Read from the catalog at each scrape.
 */
import { Gauge, Registry } from 'prom-client';
import { HEALTH_NUMBERS, REPLICATION_STATES } from '../model/replication-state.ts';
import type { Health, Status } from './api/contract.ts';
import type { Host } from './host.ts';
import { healthShape, statusShape } from './status.ts';

type Read = (status: Status, health: Health) => number | null | undefined;

const HYPER_V: Record<string, [help: string, read: Read]> = {
  average_replication_latency_seconds: ['Average replication latency', (_s, { statistics }) => statistics.averageLatencySeconds],
  average_replication_size_bytes: ['Average size of a log set', (_s, { statistics }) => statistics.averageReplicationBytes],
  last_replication_size_bytes: ['Size of the last log set', (_s, { statistics }) => Number(statistics.lastReplicationBytes ?? 0)],
  replications_total: ['Successful cycles in the monitoring interval', (_s, { statistics }) => statistics.successfulReplications],
  resynchronized_bytes_total: ['Resynchronized bytes', (_s, { statistics }) => statistics.resynchronizedBytes],
  network_sent_bytes_total: ['Bytes sent over the network', (_s, { statistics }) => statistics.sentBytes],
};

const OWN: Record<string, [help: string, read: Read]> = {
  missed_cycles: ['Missed cycles in the monitoring interval', (_s, { statistics }) => statistics.missedReplications],
  replication_errors: ['Failed attempts in the monitoring interval', (_s, { statistics }) => statistics.replicationErrors],
  pending_bytes: ['Bytes the replica does not have or has not applied yet', (status) => status.pendingBytes],
  log_bytes: ['Tracking logs that count against the limit', (status) => status.logBytes],
  log_limit_bytes: ['Beyond it a resynchronization is required', (status) => status.logLimitBytes],
  lag_seconds: ['Age of what the replica could serve', (status) => status.lagSeconds],
};

export function metricsOf(host: Host): Registry {
  const registry = new Registry();
  const perVm = (prefix: string, names: Record<string, [string, Read]>) => {
    for (const [name, [help, read]] of Object.entries(names)) {
      gauge(registry, host, `${prefix}${name}`, help, ['vm'], (status, health) => [{ vm: status.vmName }, read(status, health)]);
    }
  };
  perVm('windows_hyperv_replica_vm_', HYPER_V);
  perVm('understudy_', OWN);
  const labels = (status: Status) => ({ vm: status.vmName, relationship: 'primary' });
  gauge(registry, host, 'windows_hyperv_replica_vm_health', 'Replication health, 0 to 3', ['vm', 'relationship'],
    (status) => [labels(status), HEALTH_NUMBERS[status.health]]);
  gauge(registry, host, 'windows_hyperv_replica_vm_state', 'Replication state, numbers of WMI', ['vm', 'relationship'],
    (status) => [labels(status), REPLICATION_STATES[status.state].wmi]);
  return registry;
}

function gauge(
  registry: Registry, host: Host, name: string, help: string, labelNames: string[],
  read: (status: Status, health: Health) => [labels: Record<string, string>, value: number | null | undefined],
): void {
  new Gauge({
    name, help, labelNames, registers: [registry],
    collect() {
      this.reset();
      for (const vm of host.catalog.vms.list()) {
        const [labels, value] = read(statusShape(host, vm), healthShape(host, vm));
        if (value !== null && value !== undefined) this.set(labels, value);
      }
    },
  });
}
