/**
 * Applying one set of logs to the replica disks (rules R13, R14).
 *
 * Applying is redo: every log is verified whole before the first write, and writing it again from the start gives the same disk.
 * So a crash anywhere leaves disks that the same set brings to its instant. Order: verified → undo kept (recovery-points.ts) → base
 * written → base flushed → `applied` committed for all disks at once → inbox files deleted.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { openLog, type LogEntry, type LogReader } from '../hrl/log-reader.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { DiskRecord, InboxRecord, RelationshipRecord, SealRecord } from '../model/records.ts';
import { shrunkDisk } from './replica-resize.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** Data of one log held in memory at once; also how much is written between two looks at the abort signal. */
const WINDOW_BYTES = 8 << 20;

export interface Applied {
  /** How the disks look now. */
  seals: Record<string, SealRecord>;
  /** The newest log of each disk. */
  logs: Record<string, string>;
}

/**
 * Why this set must not be applied next, or null. `again`: another copy of it may be good, so it is asked for again.
 * Opens and reads every log whole; without `data` all but the guest's bytes, whose digest was checked when they arrived.
 */
export async function defectOf(
  ports: Pick<ReplicationPorts, 'files'>, record: InboxRecord, relationship: RelationshipRecord, disks: DiskRecord[],
  { data }: { data: boolean } = { data: true },
): Promise<{ reason: string; again: boolean; code: string } | null> {
  const shrunk = shrunkDisk(record, disks);
  if (shrunk !== null) return { reason: shrunk, again: false, code: 'DISK_SIZE_MISMATCH' };
  for (const log of record.disks) {
    const disk = disks.find(({ diskId }) => diskId === log.diskId);
    if (disk === undefined) return { reason: `log of an unknown disk ${log.diskId}`, again: false, code: 'LOG_INVALID' };
    const expected = relationship.lastAppliedLogs[log.diskId] ?? null;
    let reader: LogReader | null = null;
    try {
      reader = await openLog(ports.files, log.path, { diskSize: log.diskSize });
      const { uniqueId, previousUniqueId } = reader.header;
      if (uniqueId !== log.uniqueId || previousUniqueId !== expected) {
        const reason = `log ${uniqueId} of disk ${disk.path} follows ${previousUniqueId ?? 'none'}, applied last was ${expected ?? 'none'}`;
        return { reason, again: true, code: 'LOG_OUT_OF_SEQUENCE' };
      }
      if (data) await reader.verify();
    } catch (error) {
      const code = error instanceof UnderstudyError ? error.code : 'LOG_UNREADABLE';
      return { reason: messageOf(error), again: code !== 'LOG_OUT_OF_BOUNDS', code };
    } finally {
      await reader?.close();
    }
  }
  return null;
}

/** Writes a verified set to the disks and flushes them. Rejects with the I/O error; then the same set is applied again later. */
export async function applySet(
  ports: ReplicationPorts, record: InboxRecord, disks: DiskRecord[], signal: AbortSignal,
): Promise<Applied> {
  const applied: Applied = { seals: {}, logs: {} };
  for (const log of record.disks) {
    const disk = await ports.openDisk(disks.find(({ diskId }) => diskId === log.diskId)!);
    try {
      const reader = await openLog(ports.files, log.path, { diskSize: disk.virtualSize });
      try {
        await applyLog(reader, disk, signal);
      } finally {
        await reader.close();
      }
      await disk.flush();
      applied.seals[log.diskId] = await disk.seal();
      applied.logs[log.diskId] = log.uniqueId;
    } finally {
      await disk.close();
    }
  }
  return applied;
}

/** In log order; entries that do not overlap are written side by side. */
async function applyLog(reader: LogReader, disk: VirtualDisk, signal: AbortSignal): Promise<void> {
  let window: { entry: LogEntry; data: Uint8Array | null }[] = [];
  let bytes = 0;
  const writeWindow = async () => {
    signal.throwIfAborted();
    await Promise.all(window.map(({ entry, data }) =>
      (data === null ? disk.zero(entry.offset, entry.length) : disk.write(data, entry.offset))));
    window = [];
    bytes = 0;
  };
  for await (const entry of reader.entries()) {
    const end = entry.offset + entry.length;
    const overlaps = window.some(({ entry: other }) => other.offset < end && entry.offset < other.offset + other.length);
    if (overlaps || bytes >= WINDOW_BYTES || window.length >= 256) await writeWindow();
    if (entry.op === 'zero') {
      window.push({ entry, data: null });
      continue;
    }
    // An entry may be as long as a guest's longest write; it is cut so that memory stays bounded.
    for (let done = 0; done < entry.length; done += WINDOW_BYTES) {
      const data = new Uint8Array(Math.min(WINDOW_BYTES, entry.length - done));
      await reader.readData(entry, data, done);
      window.push({ entry: { ...entry, offset: entry.offset + done, length: data.length }, data });
      bytes += data.length;
      if (bytes >= WINDOW_BYTES) await writeWindow();
    }
  }
  await writeWindow();
}
