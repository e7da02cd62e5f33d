/** Before a copy or a compare starts: what can be known of its end is said now, while nothing has been changed on either host. */
import { nearestFolder } from '../../disk/nearest-folder.ts';
import { messageOf, UnderstudyError } from '../../model/errors.ts';
import type { Files } from '../../model/ports.ts';
import { replicatedDisks, type DiskRecord } from '../../model/records.ts';
import { exportFolderOf, onMedium } from '../../replication/export-folder.ts';
import { initialCheckMessage } from '../../replication/messages.ts';
import type { AnySendingVm } from '../../replication/sending-vm.ts';
import { checkCharacteristics } from '../../resync/ladder.ts';
import { characteristicsMessage } from '../../resync/messages.ts';
import type { Host } from '../host.ts';

/** A resynchronization need not wait for this answer: it asks again itself. */
const ASK_MS = 5000;

/**
 * Asks the replica whether an initial replication that starts now can succeed.
 * @throws what the link rejects with, REPLICA_HAS_OTHER_PRIMARY, REPLICA_STORAGE_FULL, SIZE_MISMATCH and the like
 */
export async function checkStart(host: Host, sender: AnySendingVm, method: 'network' | 'existing', signal: AbortSignal): Promise<void> {
  const { vm, relationship: { remote } } = sender;
  // The disks may have grown since; and from here on it is certain that the replica is ours.
  await sender.announce(signal);
  const { result } = await sender.link().call(initialCheckMessage, { vmId: vm.vmId, method }, undefined, { signal });
  if (method === 'existing') return checkCharacteristics(vm.name, replicatedDisks(vm), result.disks, 'start again');
  const needed = await allocatedBytes(host, sender);
  if (needed <= result.freeBytes) return;
  throw new UnderstudyError('io', 'REPLICA_STORAGE_FULL',
    `the storage location on host ${remote.name || remote.host} has ${result.freeBytes} bytes free, the disks of VM '${vm.name}' hold ${needed}`,
    'Free space there, or authorise this host there with another storage location, then start again.');
}

/**
 * As `checkStart`, for a run that begins later: by then a copy can have been put there, and a host that is down can be up again. So
 * only what the replica says now is taken as an answer.
 */
export async function checkLaterStart(host: Host, sender: AnySendingVm, method: 'network' | 'existing', signal: AbortSignal): Promise<void> {
  if (method === 'existing') return;
  const [answered, late] = [new AbortController(), new AbortController()];
  const timer = host.parts.clock.sleep(ASK_MS, answered.signal).then(() => late.abort(new Error(`no answer within ${ASK_MS} ms`)), () => undefined);
  try {
    await checkStart(host, sender, method, AbortSignal.any([signal, late.signal]));
  } catch (error) {
    if (!late.signal.aborted && !(error instanceof UnderstudyError && error.kind === 'peer')) throw error;
    host.parts.log.debug({ vm: sender.vm.name, error: messageOf(error) }, 'the replica could not be asked for its space');
  } finally {
    answered.abort();
    await timer;
  }
}

/**
 * Whether `folder` has room for an export of the disks. It, or the part of its path that is there, is asked; nothing is made.
 * @throws EXPORT_FOLDER_FULL, EXPORT_FOLDER_UNUSABLE
 */
export async function checkExportSpace(host: Host, sender: AnySendingVm, folder: string): Promise<void> {
  const { files } = host.parts;
  const there = await onMedium(folder, nearestFolder(files, folder));
  const free = (await onMedium(folder, files.freeBytes(there))) + (await onMedium(folder, leftByStopped(files, exportFolderOf(sender.vm, folder))));
  const needed = await allocatedBytes(host, sender);
  if (needed <= free) return;
  throw new UnderstudyError('io', 'EXPORT_FOLDER_FULL',
    `${there} has ${free} bytes free, the disks of VM '${sender.vm.name}' hold ${needed}`,
    'Free space there, or name a folder on a larger medium.');
}

/** Bytes of an image that a stopped export has begun: it goes first. */
async function leftByStopped(files: Files, folder: string): Promise<number> {
  let bytes = 0;
  for (const name of await files.list(folder)) if (name.endsWith('.part')) bytes += (await files.stat(`${folder}/${name}`))?.allocated ?? 0;
  return bytes;
}

/** As `checkStart`, for a resynchronization. A replica that cannot be asked now is no obstacle: it is tried again by itself. */
export async function checkResume(sender: AnySendingVm, signal: AbortSignal): Promise<void> {
  const { ports, vm } = sender;
  let disks;
  try {
    ({ result: { disks } } = await sender.link().call(characteristicsMessage, { vmId: vm.vmId }, undefined, { signal, timeoutMs: ASK_MS }));
  } catch (error) {
    // It was asked, and says what a person has to mend first.
    if (error instanceof UnderstudyError && error.code === 'REPLICA_DISK_OTHER_FORMAT') throw error;
    ports.log.debug({ vm: vm.name, error: messageOf(error) }, 'the replica could not be asked for its disks');
    return;
  }
  checkCharacteristics(vm.name, replicatedDisks(vm), disks);
}

/** Bytes that a copy has to send, as far as the disks tell. */
async function allocatedBytes(host: Host, sender: AnySendingVm): Promise<number> {
  let bytes = 0;
  for (const record of replicatedDisks(sender.vm)) bytes += await allocatedOn(host, sender, record);
  return bytes;
}

async function allocatedOn(host: Host, sender: AnySendingVm, record: DiskRecord): Promise<number> {
  const open = sender.tracked?.disk(record.diskId).disk ?? null;
  const disk = open ?? await host.parts.openDiskForReading(record);
  try {
    let bytes = 0;
    for await (const { kind, length } of disk.extents(0, disk.virtualSize)) if (kind === 'data') bytes += length;
    // A block device does not tell, and then says that it holds data everywhere: zeroes are found only by reading them.
    const tells = record.format !== 'nbd' && !record.path.startsWith('/dev/');
    return tells || bytes < disk.virtualSize ? bytes : 0;
  } finally {
    if (open === null) await disk.close();
  }
}
