/**
 * What is left to do on the new primary after a change of direction.
 *
 * Invariants
 * - What the guest wrote since the failover goes from the diff disks into the disks as tracked writes, before anybody else may use
 *   them: so it is in the log, or its bits are in the map, and no log switch falls into the middle of it. It is redo: interrupted, it
 *   starts over.
 * - The old primary is told until it has said that it is the replica. Nothing is sent to it before.
 */
import { openDiffDisk, removeDiffDisk, type MergeTarget } from '../disk/diff-disk.ts';
import { isRecoverable, retryDelayMs } from '../model/backoff.ts';
import { generationOf } from '../model/direction.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord, type FailoverRecord } from '../model/records.ts';
import type { PrimaryVm, TurnDriver } from '../replication/primary-vm.ts';
import { RecoveryPoints } from '../replication/recovery-points.ts';
import { openLatest, openPoint, pointsFrom } from '../replication/replica-view.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import type { TrackedVm } from '../tracking/tracked-vm.ts';
import { turnMessage } from './direction-messages.ts';
import { failoverDiffPath } from './serving.ts';
import { settleLayers } from './settling-disk.ts';

/** What a person must mend is looked at again after so long all the same: nobody else would take this up. */
const BLOCKED_RETRY_MS = 60_000;

export const turnSettling: TurnDriver = {
  async settle(primary: PrimaryVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId } = primary;
    const { clock, relationships } = ports;
    const retryAt = primary.relationship.error?.retryAt ?? null;
    if (retryAt !== null && retryAt > clock.now()) {
      await primary.pause(retryAt - clock.now(), signal);
      if (signal.aborted || retryAt > clock.now()) return;
    }
    try {
      await announce(primary, signal);
      if ((primary.relationship.unmerged ?? null) === null) return;
      await primary.hold('merge');
      await primary.letGo('merge');
    } catch (error) {
      if (signal.aborted) throw error;
      const known = error instanceof UnderstudyError ? error : new UnderstudyError('io', 'TURN_FAILED', messageOf(error), 'See the log of the server.');
      const failures = (primary.relationship.error?.failures ?? 0) + 1;
      const delayMs = isRecoverable(known) ? retryDelayMs(failures, primary.relationship.settings.frequencySec) : BLOCKED_RETRY_MS;
      const now = clock.now();
      relationships.update(vmId, { error: { code: known.code, message: known.message, remedy: known.remedy,
        since: primary.relationship.error?.since ?? now, retryAt: now + delayMs, failures } });
    }
  },

  async mergeFailover(primary: PrimaryVm, tracked: TrackedVm, signal: AbortSignal): Promise<void> {
    const { ports, vmId, vm } = primary;
    const { unmerged } = primary.relationship;
    if (!unmerged) return;
    const disks = replicatedDisks(vm);
    for (const disk of disks) await mergeDisk(ports, vmId, disk, unmerged, tracked.disk(disk.diskId), signal);
    const points = new RecoveryPoints(ports, vmId);
    const inbox = ports.catalog.inbox.list(vmId);
    let removeFiles = async () => {};
    ports.catalog.transaction(() => {
      ({ removeFiles } = points.deleteAll());
      for (const { epoch } of inbox) ports.catalog.inbox.remove(vmId, epoch);
      ports.relationships.update(vmId, { unmerged: null });
    });
    await removeFiles();
    for (const { path } of inbox.flatMap((set) => set.disks)) await ports.files.remove(path);
    for (const disk of disks) await removeDiffDisk(ports.files, failoverDiffPath(disk));
  },
};

/** What the guest saw: the disk at the point or through the waiting logs, and over it what it wrote. */
async function mergeDisk(
  ports: ReplicationPorts, vmId: string, disk: DiskRecord, { pointEpoch, throughEpoch }: FailoverRecord, into: MergeTarget, signal: AbortSignal,
): Promise<void> {
  const sets = ports.catalog.inbox.list(vmId).filter(({ epoch, status }) => status === 'received' && epoch <= throughEpoch);
  const points = pointEpoch === null ? [] : pointsFrom(ports.catalog.points.list(vmId), pointEpoch);
  const base = await ports.openDiskForReading(disk);
  const view = pointEpoch === null ? await openLatest(ports, base, disk, sets) : await openPoint(ports, base, disk, points, () => undefined);
  try {
    await settleLayers(view, into, signal);
  } finally {
    await view.close();
  }
  const diff = await openDiffDisk(ports.files, failoverDiffPath(disk), await ports.openDiskForReading(disk),
    { mustExist: true, bootId: ports.bootId });
  try {
    await diff.merge(into, { signal });
  } finally {
    await diff.close();
  }
}

async function announce(primary: PrimaryVm, signal: AbortSignal): Promise<void> {
  const { ports, vmId } = primary;
  const { turning = null, baselineId, ...relationship } = primary.relationship;
  if (turning === null) return;
  const params = { vmId, generation: generationOf(relationship), baselineId, epoch: turning.epoch };
  const { result } = await primary.link().call(turnMessage, params, undefined, { signal, timeoutMs: 120_000 });
  ports.catalog.transaction(() => {
    ports.relationships.update(vmId, { turning: null, error: null });
    if (turning.equal && !result.equal) primary.require({ trigger: 7, reason: 'the disks of the old primary were changed after it had handed over' });
  });
}
