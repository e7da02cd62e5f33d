/** The bound on tracking logs (trigger 2): what counts, against what, and when it will be reached. Pure but for the catalog. */
import { replicatedDisks, type Catalog, type RelationshipRecord, type VmRecord } from '../model/records.ts';
import type { TrackingLoss } from '../tracking/tracked-vm.ts';

/** Bytes that the logs of the VM may take: a share of the sum of its virtual disk sizes. */
export function logLimitOf(vm: VmRecord, relationship: RelationshipRecord): number {
  const sizes = replicatedDisks(vm).reduce((sum, { virtualSize }) => sum + virtualSize, 0);
  return Math.floor((sizes * relationship.settings.logLimitPercent) / 100);
}

/** Bytes of closed logs that the replica has not acknowledged. The open ones are counted by their writers. */
export function logBytesOf(catalog: Catalog, vmId: string): number {
  return catalog.epochs.list(vmId)
    .filter(({ status }) => status === 'closed')
    .reduce((sum, { disks }) => sum + disks.reduce((bytes, { size }) => bytes + (size ?? 0), 0), 0);
}

/** Trigger 2, when the VM keeps logs and they hold more than they may; `openBytes`: of the logs that are open. */
export function logsBeyondLimit(catalog: Catalog, vm: VmRecord, relationship: RelationshipRecord, openBytes: number): TrackingLoss | null {
  if ((vm.tracking?.mode ?? 'map-only') !== 'logging') return null;
  const limit = logLimitOf(vm, relationship);
  const bytes = logBytesOf(catalog, vm.vmId) + openBytes;
  return bytes <= limit ? null : { trigger: 2, reason: `the tracking logs hold ${bytes} bytes, the limit is ${limit}` };
}
