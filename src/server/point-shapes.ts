/** Recovery points as clients see them. Reads only. */
import { pointId } from '../model/recovery-points.ts';
import type { PointRecord, VmRecord } from '../model/records.ts';
import type { RecoveryPoint } from './api/contract.ts';
import type { Host } from './host.ts';

/** Oldest first, the latest instant last: what it is now, with what waits in the inbox. A primary knows the latest only, and who keeps the others. */
export function pointShapes(host: Host, vm: VmRecord): RecoveryPoint[] {
  const { lastAppliedTime, lastAppliedEpoch, consistentFrom, baselineId, state, failover, side, remote } = host.relationships.get(vm.vmId);
  if (baselineId === '') return [];
  // The failover is complete: there is no other instant any more.
  if (state === 'FailedOver' || (failover?.settling ?? null) !== null) return [];
  let [latestTime, latestEpoch] = [lastAppliedTime, lastAppliedEpoch];
  for (const { epoch, closedAt } of host.replicas.get(vm.vmId)?.inbox.waiting() ?? []) {
    if (epoch === latestEpoch + 1) [latestTime, latestEpoch] = [Math.max(latestTime ?? 0, closedAt), epoch];
  }
  const points = host.catalog.points.list(vm.vmId).map((point) => shape(point, latestTime));
  if (latestTime === null || latestEpoch < consistentFrom) return points;
  return [...points, { id: 'latest', time: new Date(latestTime).toISOString(), kind: 'latest', bytes: 0, lossSeconds: 0, damaged: null,
    ...(side === 'primary' ? { keptBy: remote.name || remote.host } : {}) }];
}

const shape = (point: PointRecord, latestTime: number | null): RecoveryPoint => ({
  id: pointId(point), time: new Date(point.time).toISOString(), kind: point.kind,
  bytes: point.disks.reduce((sum, { end }) => sum + end, 0),
  lossSeconds: latestTime === null ? 0 : Math.max(0, (latestTime - point.time) / 1000),
  damaged: point.damaged,
});
