/**
 * What the last process has left of a VM's tracking, when its disks are opened again: decided by `decideContinuity`, done here.
 *
 * Invariants
 * - A loss and what the VM does from then on are one transaction: no crash leaves a VM that keeps no logs and is taken to be
 *   replicating.
 * - Nothing is on record as running here before what was unfinished has been read back and logged (R2).
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { replicatedDisks, type SealRecord, type TrackingRecord, type VmRecord } from '../model/records.ts';
import { decideContinuity, type Continuity } from './continuity.ts';
import { chainOf, createLogs, discardLogs, dropEpochs, putOpenEpoch, readBackInto, recoverEpochs } from './epoch-logs.ts';
import { openMaps, openOrCreate } from './open-disks.ts';
import type { TrackedDisk } from './tracked-disk.ts';
import { leasePath, type TrackingLoss, type TrackingPorts } from './tracking-ports.ts';
import { readLease, WriteLease } from './write-lease.ts';

/** The VM whose tracking is taken up; its disks are open, and nobody uses them yet. */
export interface TakeUpHost {
  ports: TrackingPorts;
  /** With its tracking as the catalog has it. */
  vm: VmRecord;
  boundedWaitMs(): number;
  disk(diskId: string): TrackedDisk;
  seals(of: (disk: VirtualDisk) => Promise<SealRecord>): Promise<Record<string, SealRecord>>;
  /** One transaction: the change, and what `also` records. */
  record(change: Partial<TrackingRecord>, also?: () => void): void;
  trackingLost(loss: TrackingLoss): void;
  leased(lease: WriteLease): void;
}

/** Returns a loss when a resync is required from now on; writes are then tracked by the map alone. */
export async function takeUp(host: TakeUpHost): Promise<TrackingLoss | null> {
  const { ports, vm } = host;
  const { clock, bootId, hostId } = ports;
  // Opening a VHDX replays the log that a crash has left: what counts is how the file was found.
  const seals = await host.seals(async (disk) => disk.foundSeal ?? disk.seal());
  const file = await openOrCreate(ports, leasePath(ports, vm.vmId));
  const { record, sequence, aliveAt } = await readLease(file);
  const names = Object.fromEntries(replicatedDisks(vm).map((disk) => [disk.diskId, disk.path]));
  const continuity = decideContinuity(
    { tracking: vm.tracking!, bootId, hostId, lease: record, aliveAt, seals, names, trustDisk: vm.trustDisk });
  const lease = new WriteLease(file, clock, sequence, () => host.boundedWaitMs());
  host.leased(lease);
  const loss = await adopt(host, continuity);
  await lease.cover();
  return loss;
}

async function adopt(host: TakeUpHost, continuity: Continuity): Promise<TrackingLoss | null> {
  const { ports, vm } = host;
  const before = vm.tracking!;
  let loss: TrackingLoss | null = continuity.kind === 'lost' ? continuity : null;
  const mapsWhole = await openMaps(ports, vm, (diskId) => host.disk(diskId));
  let mapTrusted = before.mapTrusted && mapsWhole;
  if (continuity.kind === 'lost' && !continuity.mapHolds) mapTrusted = false;
  const base = { running: true, bootId: ports.bootId, hostId: ports.hostId, mapTrusted };
  if (loss === null && before.mode === 'logging') loss = await continueLogs(host, continuity.kind === 'recover', base);
  else if (loss === null) {
    host.record(base);
    void discardLogs(ports, vm, [], null, 'the server was restarted');
  }
  if (loss === null) return null;
  const lost = loss;
  host.record({ ...base, mode: 'map-only' }, () => host.trackingLost(lost));
  for (const { diskId } of vm.disks) host.disk(diskId).map?.pin();
  // The logs of before say nothing certain any more (R11); the map decides.
  await dropEpochs(ports, vm);
  return lost;
}

/**
 * Opens the logs for new writes; what a crash left unfinished is read back into them. Returns a loss when that is
 * impossible.
 */
async function continueLogs(host: TakeUpHost, crashed: boolean, base: Partial<TrackingRecord>): Promise<TrackingLoss | null> {
  const { ports, vm } = host;
  if (!crashed) {
    await openNextEpoch(host, base);
    return null;
  }
  const found = await recoverEpochs(ports, vm);
  if ('untrusted' in found) return { trigger: 4, reason: found.untrusted };
  if (found.open.size === 0) await openNextEpoch(host, {});
  for (const [diskId, log] of found.open) host.disk(diskId).setLog(log);
  for (const { diskId } of replicatedDisks(vm)) {
    const { disk, log } = host.disk(diskId);
    await readBackInto(ports, log!, disk, found.unfinished.get(diskId) ?? [], found.ownRecords.get(diskId) ?? []);
  }
  await found.closeEnded();
  host.record(base);
  return null;
}

/** After a clean stop: the chain goes on in a new epoch. */
async function openNextEpoch(host: TakeUpHost, base: Partial<TrackingRecord>): Promise<void> {
  const { ports, vm } = host;
  const { epoch, chain } = vm.tracking!;
  const logs = await createLogs(ports, vm, epoch + 1, (diskId) => chain[diskId] ?? null);
  host.record({ ...base, epoch: epoch + 1, chain: chainOf(logs) }, () => putOpenEpoch(ports, vm, epoch + 1, logs));
  for (const [diskId, log] of logs) host.disk(diskId).setLog(log);
}
