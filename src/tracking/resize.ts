/**
 * A disk that grows while it is tracked (R26).
 *
 * Invariants
 * - Order: intention on record (`growTo`) → change map → disk → the size, in the transaction that opens the next epoch. So no write
 *   to the new part comes before its bit can be kept, and none before the epoch whose log says the new size.
 * - The size of the disk itself decides: has it grown, the rest is completed, else the map goes back and the intention is dropped.
 *   That holds after an error, and after a crash at any point.
 */
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { DiskRecord, EpochRecord, VmRecord } from '../model/records.ts';
import { resizedDisks } from './open-disks.ts';
import type { TrackedDisk } from './tracked-disk.ts';
import { mapPath, type TrackingPorts } from './tracking-ports.ts';

/** What a resize asks of the VM whose disk it is. No log switch runs beside it. */
export interface ResizeHost {
  ports: TrackingPorts;
  /** Kept as the catalog has it. */
  vm: VmRecord;
  disk(diskId: string): TrackedDisk;
  logging(): boolean;
  /** Ends the epoch; with `resized` the next one is of that size, which enters the catalog in the same transaction. */
  switchLog(resized: { diskId: string; virtualSize: number } | null): Promise<EpochRecord>;
  mapFailed(reason: Error): Promise<void>;
  /** Runs work that changes the disk without being a write of the guest. */
  changing(work: () => Promise<void>): Promise<void>;
}

/** The disk must be one that can grow, and smaller. Rejects with the error of map, disk or log; then see the second invariant. */
export async function growDisk(host: ResizeHost, diskId: string, size: number): Promise<void> {
  const { ports, vm } = host;
  const { disk, map } = host.disk(diskId);
  recordSize(ports, vm, diskId, { growTo: size });
  try {
    await map?.resize(ports.files, mapPath(ports, vm.vmId, diskId), size);
    await host.changing(() => disk.grow!(size));
  } finally {
    const distrusted = map?.distrusted ?? null;
    if (distrusted !== null) await host.mapFailed(distrusted);
    await endResizes(host);
  }
}

/** Completes or undoes what `growDisk` has begun: at its end, and when the disks are opened. */
export async function endResizes(host: ResizeHost): Promise<void> {
  const { ports, vm } = host;
  for (const { diskId, growTo, virtualSize: before } of vm.disks) {
    if (growTo === undefined) continue;
    const { disk: { virtualSize }, map } = host.disk(diskId);
    await map?.resize(ports.files, mapPath(ports, vm.vmId, diskId), virtualSize);
    // Twice: the epoch in between holds nothing but the new size, and is on its way to the replica at once.
    const epochs = virtualSize === before || map === null ? [] : [{ diskId, virtualSize }, null];
    for (const resized of epochs) {
      if (!host.logging()) continue;
      await host.switchLog(resized).catch((error: unknown) => {
        // Tracking has ended meanwhile: the size goes without an epoch, and a resync will find it.
        if (host.logging()) throw error;
      });
    }
    recordSize(ports, vm, diskId, { virtualSize, geometry: host.disk(diskId).disk.geometry });
  }
}

/** `virtualSize`: the resize is over, and this is the size from now on. */
export function recordSize(
  { catalog, clock }: TrackingPorts, vm: VmRecord, diskId: string,
  change: { growTo: number } | { virtualSize: number; geometry?: DiskRecord['geometry'] },
): void {
  const { path, virtualSize: before } = vm.disks.find((disk) => disk.diskId === diskId)!;
  const disks = resizedDisks(vm.disks, diskId, change);
  catalog.transaction(() => {
    catalog.vms.put({ ...catalog.vms.get(vm.vmId)!, disks });
    if ('growTo' in change || change.virtualSize === before) return;
    const event = makeEvent(ACTIVITY_EVENTS.diskResized, vm.name, { path, beforeBytes: before, afterBytes: change.virtualSize });
    catalog.addEvent({ ...event, time: clock.now(), vmId: vm.vmId });
  });
  vm.disks = disks;
}
