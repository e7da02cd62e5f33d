/** The log files of an epoch: made, closed, taken up again after a crash of this process, dropped. */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { recoverLog, type UnfinishedRecord } from '../hrl/log-recovery.ts';
import { LogWriter, type ClosedLog } from '../hrl/log-writer.ts';
import { messageOf } from '../model/errors.ts';
import { replicatedDisks, type EpochRecord, type VmRecord } from '../model/records.ts';
import { leasePath, logPath, mapPath, type TrackingPorts } from './tracking-ports.ts';

/** How much of a disk is read back at once. */
const READ_BACK_BYTES = 1 << 20;

/** New, empty logs for all disks. Files of the same names can only be left over from a switch that a crash undid. */
export async function createLogs(
  ports: TrackingPorts, vm: VmRecord, epoch: number, previous: (diskId: string) => string | null,
): Promise<Map<string, LogWriter>> {
  const logs = new Map<string, LogWriter>();
  try {
    for (const disk of replicatedDisks(vm)) {
      const path = logPath(ports, vm, disk, epoch);
      await ports.files.makeFolder(path.slice(0, path.lastIndexOf('/')));
      await removeLog(ports, path);
      logs.set(disk.diskId, await LogWriter.create(ports, path, {
        uniqueId: ports.random.uuid(), previousUniqueId: previous(disk.diskId), createdAt: ports.clock.now(),
        diskSize: disk.virtualSize,
      }));
    }
  } catch (error) {
    await removeNewLogs(ports, logs);
    throw error;
  }
  return logs;
}

/** For logs that have not become an epoch's. */
export async function removeNewLogs(ports: TrackingPorts, logs: Map<string, LogWriter>): Promise<void> {
  for (const log of logs.values()) {
    await log.abandon();
    await removeLog(ports, log.path);
  }
}

/** Puts the epoch of new logs on record. */
export function putOpenEpoch({ catalog, clock }: TrackingPorts, { vmId }: VmRecord, epoch: number, logs: Map<string, LogWriter>): void {
  catalog.epochs.put({
    vmId, epoch, status: 'open', openedAt: clock.now(), closedAt: null,
    disks: [...logs].map(([diskId, { uniqueId, previousUniqueId, path, diskSize }]) => (
      { diskId, uniqueId, previousUniqueId, path, size: null, digest: null, entries: null, diskSize })),
  });
}

/** By disk id, the log that the next one names as its predecessor. */
export const chainOf = (logs: Map<string, LogWriter>): Record<string, string> =>
  Object.fromEntries([...logs].map(([diskId, { uniqueId }]) => [diskId, uniqueId]));

/** Waits for the epoch's last disk write, closes its logs durably and records it as closed. */
export async function closeEpoch(ports: TrackingPorts, epoch: EpochRecord, logs: Map<string, LogWriter>): Promise<EpochRecord> {
  await Promise.all([...logs.values()].map((log) => log.allFinished()));
  const closed = new Map<string, ClosedLog>();
  for (const [diskId, log] of logs) closed.set(diskId, await log.close());
  return recordClosed(ports, epoch, closed);
}

function recordClosed(ports: TrackingPorts, epoch: EpochRecord, closed: Map<string, ClosedLog>): EpochRecord {
  const record: EpochRecord = {
    ...epoch,
    status: 'closed',
    closedAt: epoch.closedAt ?? ports.clock.now(),
    disks: epoch.disks.map((disk) => {
      const log = closed.get(disk.diskId);
      return log === undefined ? disk : { ...disk, size: log.size, digest: log.digest, entries: log.entries };
    }),
  };
  ports.catalog.transaction(() => ports.catalog.epochs.put(record));
  return record;
}

export interface RecoveredEpochs {
  /** By disk id; empty when the newest epoch was ended already. */
  open: Map<string, LogWriter>;
  /** By disk id, of all epochs: what the disk holds there is not known from the logs. */
  unfinished: Map<string, UnfinishedRecord[]>;
  /** By disk id: the unfinished records of the open log itself. */
  ownRecords: Map<string, number[]>;
  /**
   * Closes the epoch that was being closed. Only after what was unfinished has been read back and persisted: its logs are all
   * that a second crash would know it from.
   */
  closeEnded(): Promise<void>;
}

/**
 * After a crash of this process, in the same boot and with nobody else having written (R2). An epoch that was being closed
 * will be
 * closed: what was accepted before its instant belongs to it, finished or not. What the disk really holds where a write was
 * unfinished must be read back into the newest epoch (`readBackInto`), which is what makes that one true.
 */
export async function recoverEpochs(ports: TrackingPorts, vm: VmRecord): Promise<RecoveredEpochs | { untrusted: string }> {
  const records = ports.catalog.epochs.list(vm.vmId).filter(({ status }) => status === 'open' || status === 'closing');
  const ended: { record: EpochRecord; closed: Map<string, ClosedLog>; writers: Map<string, { log: LogWriter; numbers: number[] }> }[] = [];
  const recovered: RecoveredEpochs = {
    open: new Map(), unfinished: new Map(), ownRecords: new Map(),
    async closeEnded() {
      for (const { record, closed, writers } of ended) {
        for (const [diskId, { log, numbers }] of writers) {
          for (const number of numbers) log.finished(number);
          closed.set(diskId, await log.close());
        }
        recordClosed(ports, record, closed);
      }
    },
  };
  for (const record of records) {
    const closing = { record, closed: new Map<string, ClosedLog>(), writers: new Map<string, { log: LogWriter; numbers: number[] }>() };
    if (record.status === 'closing') ended.push(closing);
    for (const { diskId, path } of record.disks) {
      const found = await recoverLog(ports, path);
      const reason = found.outcome === 'untrusted' ? found.reason
        : found.outcome === 'closed' && record.status === 'open' ? 'it was closed although its epoch was open' : null;
      if (reason !== null) {
        await abandonAll([...recovered.open.values(), ...ended.flatMap(({ writers }) => [...writers.values()].map(({ log }) => log))]);
        return { untrusted: `the tracking log ${path} cannot be taken up again: ${reason}` };
      }
      if (found.outcome === 'closed') closing.closed.set(diskId, found.log);
      if (found.outcome !== 'open') continue;
      const numbers = found.unfinished.map(({ number }) => number);
      recovered.unfinished.set(diskId, [...(recovered.unfinished.get(diskId) ?? []), ...found.unfinished]);
      if (record.status === 'closing') closing.writers.set(diskId, { log: found.writer, numbers });
      else {
        recovered.open.set(diskId, found.writer);
        recovered.ownRecords.set(diskId, numbers);
      }
    }
  }
  return recovered;
}

async function abandonAll(logs: LogWriter[]): Promise<void> {
  for (const log of logs) await log.abandon();
}

/** Logs what the disk holds where writes were unfinished; `ownRecords` of this log count as finished then. */
export async function readBackInto(
  ports: TrackingPorts, log: LogWriter, disk: VirtualDisk, unfinished: readonly UnfinishedRecord[], ownRecords: readonly number[],
): Promise<void> {
  await readBack(ports, disk, log, unfinished);
  for (const number of ownRecords) log.finished(number);
  await log.persistFinished();
}

async function readBack(
  ports: TrackingPorts, disk: VirtualDisk, log: LogWriter, records: readonly UnfinishedRecord[],
): Promise<void> {
  for (const record of records) {
    for (let done = 0; done < record.length; done += READ_BACK_BYTES) {
      const data = new Uint8Array(Math.min(READ_BACK_BYTES, record.length - done));
      await disk.read(data, record.offset + done);
      const number = await log.append([{ op: 'write', offset: record.offset + done, data }], ports.clock.now());
      log.finished(number);
    }
  }
}

/** Forgets all logs of the VM; their files are removed as far as they can be. */
export async function dropEpochs(ports: TrackingPorts, vm: VmRecord): Promise<void> {
  const records = ports.catalog.epochs.list(vm.vmId);
  ports.catalog.transaction(() => {
    for (const { vmId, epoch } of records) ports.catalog.epochs.remove(vmId, epoch);
  });
  for (const record of records) await removeEpochFiles(ports, record);
}

/**
 * The VM keeps no logs any more, by its record: nobody can use those that are there, and the space they take may be what the guest's
 * disks need, so they go at once. Best effort, and possibly on a volume that hangs: never rejects, and nobody need wait for it. The files
 * go first: after a crash in between the record is still there, and the next start removes again.
 */
export async function discardLogs(
  ports: TrackingPorts, vm: VmRecord, open: readonly LogWriter[], closing: Promise<unknown> | null, reason: string,
): Promise<void> {
  // Of this moment: new logs of a resynchronization that begins meanwhile are not among them.
  const records = ports.catalog.epochs.list(vm.vmId);
  try {
    const ended = open.map((log) => log.distrust(reason).then(() => log.abandon()));
    await Promise.allSettled(ended);
    // Those that are being closed last: that may have to wait for a write which waits for the space.
    for (const record of records) if (record.status !== 'closing') await removeEpochFiles(ports, record);
    await closing?.catch(() => undefined);
    for (const record of records) await removeEpochFiles(ports, record);
    ports.catalog.transaction(() => {
      for (const { vmId, epoch } of records) ports.catalog.epochs.remove(vmId, epoch);
    });
  } catch (error) {
    ports.log.warn({ vm: vm.name, error: messageOf(error) }, 'could not remove the tracking logs');
  }
}

/** Nothing of the VM is tracked from now on; one transaction with what else is to be recorded of that. */
export function recordNoTracking({ catalog }: TrackingPorts, vmId: string, alsoRecord: () => void): void {
  catalog.transaction(() => {
    catalog.vms.put({ ...catalog.vms.get(vmId)!, tracking: null });
    alsoRecord();
  });
}

/** Removes logs and maps, after `recordNoTracking`. What a crash leaves of them is replaced when tracking begins anew. */
export async function removeTrackingFiles(ports: TrackingPorts, vm: VmRecord): Promise<void> {
  await dropEpochs(ports, vm);
  for (const { diskId } of vm.disks) await ports.files.remove(mapPath(ports, vm.vmId, diskId));
  await ports.files.remove(leasePath(ports, vm.vmId));
}

export async function removeEpochFiles(ports: TrackingPorts, record: EpochRecord): Promise<void> {
  for (const { path } of record.disks) await removeLog(ports, path);
}

async function removeLog(ports: TrackingPorts, path: string): Promise<void> {
  await ports.files.remove(`${path}.index`);
  await ports.files.remove(path);
}
