/**
 * Applying one set of logs to the replica disks (rules R13, R14).
 *
 * Applying is redo: every log is verified whole before the first write, and writing it again from the start gives the same disk.
 * So a crash anywhere leaves disks that the same set brings to its instant. Order: verified → undo kept (recovery-points.ts) → base
 * written → base flushed → `applied` committed for all disks at once → inbox files deleted.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { promptWrites } from '../disk/prompt-writes.ts';
import { openLog, type LogReader } from '../hrl/log-reader.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import type { DiskRecord, InboxRecord, RelationshipRecord, SealRecord } from '../model/records.ts';
import { Stretch, STRETCH_ENTRIES } from './apply-stretch.ts';
import { ApplyWindow, WINDOW } from './apply-window.ts';
import { shrunkDisk } from './replica-resize.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** A longer entry is taken in pieces. */
const PIECE_BYTES = 4 << 20;
/** Strokes begun at once; also how many there are between two looks at the abort signal. */
const SIDE_BY_SIDE = 64;

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
      reader = await openLog(ports.files, log.path, { diskSize: log.diskSize, onePass: true });
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
      const reader = await openLog(ports.files, log.path, { diskSize: disk.virtualSize, onePass: true });
      try {
        await applyLog(ports.clock, reader, disk, signal);
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

/** Forwards through the log in stretches, and each in windows; see apply-stretch.ts and apply-window.ts for what becomes of them. */
async function applyLog(clock: Clock, reader: LogReader, disk: VirtualDisk, signal: AbortSignal): Promise<void> {
  const windows = new Windows(clock, reader, disk, signal);
  const capacity = Math.min(STRETCH_ENTRIES, reader.entriesMax);
  let stretch = new Stretch(capacity);
  for await (const entries of reader.entriesApart()) {
    if (stretch.add(entries)) continue;
    await windows.apply(stretch);
    stretch = new Stretch(Math.max(capacity, entries.length));
    stretch.add(entries);
  }
  await windows.apply(stretch);
}

class Windows {
  readonly #reader: LogReader;
  readonly #disk: VirtualDisk;
  readonly #signal: AbortSignal;
  readonly #writeNow: ReturnType<typeof promptWrites>;
  readonly #window = new ApplyWindow();
  /** A part of the log, read as a whole: what it has of entries that are not needed costs less than reading around it. */
  readonly #memory: Uint8Array;
  #from = 0;
  #to = 0;

  constructor(clock: Clock, reader: LogReader, disk: VirtualDisk, signal: AbortSignal) {
    this.#reader = reader;
    this.#disk = disk;
    this.#signal = signal;
    this.#writeNow = promptWrites(disk, clock);
    this.#memory = new Uint8Array(Math.min(WINDOW.bytes, reader.header.endOfLog));
  }

  /** All of it is written when it resolves. */
  async apply(stretch: Stretch): Promise<void> {
    for (const { offset, length, position } of stretch.needed()) {
      const isZero = position === 0;
      // An entry may be as long as a guest's longest write; it is cut so that memory stays bounded.
      const step = isZero ? length : PIECE_BYTES;
      for (let done = 0; done < length; done += step) {
        const piece = { offset: offset + done, length: Math.min(step, length - done) };
        const at = position + done;
        if (!this.#window.fits(piece, isZero) || (!isZero && this.#to > 0 && at + piece.length - this.#from > this.#memory.length)) await this.#drain();
        this.#window.add({ ...piece, data: isZero ? null : this.#place(at, piece.length) });
      }
    }
    await this.#drain();
  }

  /** Where the data will lie when the window is read. */
  #place(position: number, length: number): Uint8Array {
    if (this.#to === 0) this.#from = position;
    this.#to = position + length;
    return this.#memory.subarray(position - this.#from, this.#to - this.#from);
  }

  async #drain(): Promise<void> {
    if (this.#to > 0) await this.#reader.readBytes(this.#memory.subarray(0, this.#to - this.#from), this.#from);
    this.#to = 0;
    const strokes = this.#window.take();
    for (let at = 0; at < strokes.length; at += SIDE_BY_SIDE) {
      this.#signal.throwIfAborted();
      await Promise.all(strokes.slice(at, at + SIDE_BY_SIDE).map(async ({ offset, length, data }, index) => {
        if (data === null) await this.#disk.zero(offset, length);
        // The first always by the thread pool: the server lives meanwhile.
        else if (index === 0 || !this.#writeNow(data, offset)) await this.#disk.write(data, offset);
      }));
    }
  }
}
