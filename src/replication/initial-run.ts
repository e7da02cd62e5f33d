/**
 * One run of initial replication, as the primary's loop drives it: track, copy, send the logs of the meantime, make it the
 * baseline.
 */
import { replicatedDisks, type DiskRecord, type InitialReplication } from '../model/records.ts';
import { announcementOf } from './announcement.ts';
import { awaitImport, exportCopy } from './export-run.ts';
import { sendInitialCopy, type CopyProgress } from './initial-sender.ts';
import { enableMessage } from './messages.ts';
import type { AnySendingVm } from './sending-vm.ts';

export interface InitialProgress extends CopyProgress {
  startedAt: number;
}

/** Resolves when the relationship is Replicating. May be called again after any interruption. */
export async function runInitial(primary: AnySendingVm, signal: AbortSignal): Promise<void> {
  const { ports, vmId } = primary;
  const { relationships } = ports;
  const exported = primary.relationship.initial;
  // Nothing is read from the disks any more: whether they stay open is the guest's affair.
  if (exported?.method === 'export' && exported.copied && primary.vm.tracking?.mode === 'logging') {
    return awaitImport(primary, exported, signal);
  }
  const tracked = await primary.hold('initial');
  try {
    let { initial } = primary.relationship;
    const unbroken = initial !== null && initial.firstEpoch > 0 && tracked.logging;
    if (!unbroken) initial = await begin(primary, signal);
    if (initial!.method === 'export') return await exportCopy(primary, initial!, signal);
    if (!initial!.copied) {
      await copy(primary, initial!, signal);
      relationships.update(vmId, { initial: { ...initial!, copied: true } });
    }
    await primary.finishInitial(signal);
  } finally {
    await primary.letGo('initial');
  }
}

/** Tracking from here on, and a new token: the replica drops what an earlier run has left. */
async function begin(primary: AnySendingVm, signal: AbortSignal): Promise<InitialReplication> {
  const { ports, vmId, relationship } = primary;
  const tracked = await primary.hold('initial');
  // The disks may have grown since replication was enabled.
  await primary.link().call(enableMessage, announcementOf(ports, primary.vm, relationship.settings), undefined, { signal });
  const firstEpoch = await tracked.begin({ keepMap: false });
  const initial: InitialReplication = {
    method: relationship.initial?.method ?? 'network', folder: relationship.initial?.folder ?? null, startAt: null,
    token: ports.random.uuid(), firstEpoch, cursors: {}, copied: false,
  };
  ports.relationships.update(vmId, { initial });
  return initial;
}

async function copy(primary: AnySendingVm, initial: InitialReplication, signal: AbortSignal): Promise<void> {
  const { ports, vmId, relationship } = primary;
  const startedAt = ports.clock.now();
  let sent = { sentBytes: 0, wireBytes: 0 };
  const progress = (copied: CopyProgress) => {
    sent = copied;
    primary.initialProgress = { ...copied, startedAt };
  };
  const release = await ports.transferSlot(signal);
  try {
    const options = { compression: relationship.settings.compression, signal, progress };
    sent = initial.method === 'existing' ? await primary.resync!.mendExisting(primary, initial, options)
      : await sendInitialCopy(ports, primary.link(), vmId, initial, sources(primary), options);
  } finally {
    release();
    // Also of a copy that was cut: what is sent again counts again, as it passed the link twice.
    const { transferred } = ports.relationships.find(vmId) ?? {};
    if (transferred !== undefined) {
      ports.relationships.update(vmId, { transferred: {
        ...transferred, initialBytes: transferred.initialBytes + sent.sentBytes, wireBytes: transferred.wireBytes + sent.wireBytes } });
    }
    primary.initialProgress = null;
  }
}

function sources(primary: AnySendingVm) {
  const tracked = primary.tracked!;
  return replicatedDisks(primary.vm).map((record: DiskRecord) => ({ record, disk: tracked.disk(record.diskId).disk }));
}
