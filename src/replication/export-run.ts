/**
 * Initial replication by external media, as the primary's loop drives it: export, then wait until the copy has been carried
 * over and
 * imported. Meanwhile the logs go over the link and wait in the inbox of the replica, to be merged with the copy.
 */
import { messageOf } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { replicatedDisks, type InitialReplication } from '../model/records.ts';
import { vmUnknownToPeer } from '../peer/authorisation.ts';
import { exportFolderOf } from './export-folder.ts';
import { finishExport, writeExport } from './export-writer.ts';
import { initialBeginMessage } from './messages.ts';
import type { AnySendingVm } from './sending-vm.ts';

/** How often the replica is asked whether the copy has been imported. A look is one small message. */
const IMPORT_POLL_MS = 5_000;

/** Writes the folder; resolves when it may be carried away. Goes on with the images that are missing after an interruption. */
export async function exportCopy(primary: AnySendingVm, initial: InitialReplication, signal: AbortSignal): Promise<void> {
  const { ports, vmId, vm } = primary;
  const tracked = primary.tracked!;
  const { token, method, firstEpoch } = initial;
  await primary.link().call(initialBeginMessage, { vmId, token, method, firstEpoch }, undefined, { signal });
  const startedAt = ports.clock.now();
  const copied = new AbortController();
  const shipping = shipMeanwhile(primary, AbortSignal.any([signal, copied.signal]));
  const sources = replicatedDisks(vm).map((record) => ({ record, disk: tracked.disk(record.diskId).disk }));
  const folder = exportFolderOf(vm, initial.folder!);
  try {
    let manifest = await writeExport({ ...ports, now: () => ports.clock.now() }, vm, initial, sources, {
      signal, progress: (progress) => (primary.initialProgress = { ...progress, startedAt }) });
    copied.abort();
    await shipping;
    let { consistentFrom } = manifest;
    if (consistentFrom === null) {
      // The copy may hold any write up to here: with the log of all of them it is one instant.
      if (tracked.hasWrites) await tracked.switchLog();
      consistentFrom = primary.outbox.newestClosed();
      signal.throwIfAborted();
      await finishExport(ports, folder, manifest, consistentFrom);
    }
    signal.throwIfAborted();
    ports.relationships.update(vmId, { initial: { ...primary.relationship.initial!, copied: true, consistentFrom }, error: null });
    const bytes = manifest.disks.reduce((sum, image) => sum + image.bytes, 0);
    ports.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.initialExported, vm.name, { folder, bytes }));
  } finally {
    copied.abort();
    await shipping;
    primary.initialProgress = null;
  }
}

/** A long export must not fill the log volume. That the link is down is no reason to stop it. */
async function shipMeanwhile(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
  const { ports } = primary;
  while (!signal.aborted) {
    try {
      await ports.clock.sleep(primary.relationship.settings.frequencySec * 1000, signal);
      await shipOnce(primary, signal);
    } catch (error) {
      if (!signal.aborted) ports.log.warn({ vm: primary.vm.name, error: messageOf(error) }, 'could not send logs during the export');
    }
  }
}

async function shipOnce(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
  const { tracked, ports } = primary;
  const release = await ports.transferSlot(signal);
  try {
    if (tracked !== null && tracked.logging && tracked.hasWrites && isOld(primary)) await tracked.switchLog();
    await primary.ship(signal);
  } finally {
    release();
  }
}

/** One epoch per cycle, however often the replica is asked. */
function isOld({ ports, vm, vmId, relationship }: AnySendingVm): boolean {
  const openedAt = ports.catalog.epochs.get(vmId, vm.tracking?.epoch ?? 0)?.openedAt ?? 0;
  return ports.clock.now() - openedAt >= relationship.settings.frequencySec * 1000;
}

/** One look and one wait: the loop calls again until the replica has its baseline. */
export async function awaitImport(primary: AnySendingVm, initial: InitialReplication, signal: AbortSignal): Promise<void> {
  const { ports, vmId } = primary;
  await shipOnce(primary, signal);
  const { known, baselineId } = await primary.report(signal);
  if (!known) throw vmUnknownToPeer(vmId);
  if (primary.relationship.error !== null) ports.relationships.update(vmId, { error: null });
  if (baselineId === initial.token) return primary.initialFinished(initial.consistentFrom!);
  await primary.watchLogs(IMPORT_POLL_MS, signal);
}
