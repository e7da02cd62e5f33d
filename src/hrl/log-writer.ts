/**
 * Writes one open tracking log (rules R1, R4, R6).
 *
 * Invariants
 * - Bytes go to positions that are taken when `append` is called; nothing already acknowledged is ever overwritten
 *   before `close`.
 * - Appends resolve in the order of the calls. So when one has not resolved, none after it has, and no disk write of
 *   any of them has begun: recovery may cut the log at the first batch that is not whole.
 * - The index frame and the data are written at the same time, or in either order; recovery believes a frame only when its data matches.
 * - Nothing is made durable before `close`: after a machine crash no open log is trusted (R11).
 * - After a failure nothing is retried, and no append rejects before the index is gone: whoever then writes to the
 *   disk without a log cannot be misled by a later recovery.
 */
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import type { OpenFile } from '../model/ports.ts';
import { completeClose, type ClosedLog, type LogPorts } from './closed-log.ts';
import { encodeHeader, HEADER_BYTES, ourHeader } from './codec.ts';
import { FinishMarks } from './finish-marks.ts';
import {
  encodeFrame, encodeIndexHeader, FRAME_ENTRIES_MAX, INDEX_HEADER_BYTES, indexPathOf, type IndexHeader,
} from './log-index.ts';
import { ENTRY_BYTES_MAX, lengthOf, LogLayout, placeBatch, type LogRecord } from './log-layout.ts';

export type { ClosedLog, LogPorts } from './closed-log.ts';
export type { LogRecord } from './log-layout.ts';

export interface NewLog {
  /** Lower case with dashes, like all GUIDs here. */
  uniqueId: string;
  /** The log before this one in the chain; null for the first after a baseline. */
  previousUniqueId: string | null;
  /** Milliseconds since 1970. */
  createdAt: number;
  /** Guest size in bytes; records must lie inside. */
  diskSize: number;
  /** The VHDX data-write GUID, when the disk has one. */
  dataWriteGuid?: string | null;
  /** 0 (default) is a tracking log; other values are for undo logs. */
  fileType?: number;
}

/** Where an open log stands; recovery builds it from the index. */
export interface OpenLogState {
  layout: LogLayout;
  indexPosition: number;
  recordCount: number;
  marks: FinishMarks;
  lastActivity: number;
}

export class LogWriter {
  readonly path: string;
  readonly uniqueId: string;
  readonly previousUniqueId: string | null;
  readonly diskSize: number;
  readonly #ports: LogPorts;
  readonly #about: IndexHeader;
  readonly #log: OpenFile;
  readonly #index: OpenFile;
  readonly #state: OpenLogState;
  #acknowledged: number;
  /** Settles when all appends so far have; rejects with `#failure`. */
  #tail: Promise<void> = Promise.resolve();
  #failure: UnderstudyError | null = null;
  #indexRemoval: Promise<void> | null = null;
  #ended = false;
  /**
   * Set when `close` failed: the header may say that the log is whole, which would be believed without an index too.
   */
  #mayNameItsEnd = false;
  #waitingForAll: { resolve: () => void; reject: (error: Error) => void }[] = [];

  /** For `create` and recovery only. Both files are open for writing; the log's header and first block are written. */
  constructor(
    ports: LogPorts, path: string, about: IndexHeader, files: { log: OpenFile; index: OpenFile }, state: OpenLogState,
  ) {
    this.path = path;
    this.uniqueId = about.uniqueId;
    this.previousUniqueId = about.previousUniqueId;
    this.diskSize = about.diskSize;
    this.#ports = ports;
    this.#about = about;
    this.#log = files.log;
    this.#index = files.index;
    this.#state = state;
    this.#acknowledged = state.recordCount;
  }

  /**
   * Creates `path` and its index, the index first: a log without one is never trusted. Rejects with LOG_EXISTS when
   * either is there, or with the errno of the failed operation in `cause`.
   */
  static async create(ports: LogPorts, path: string, log: NewLog): Promise<LogWriter> {
    const about: IndexHeader = { ...log, dataWriteGuid: log.dataWriteGuid ?? null, fileType: log.fileType ?? 0 };
    const opened: OpenFile[] = [];
    try {
      const index = await ports.files.open(indexPathOf(path), 'create');
      opened.push(index);
      await index.write([encodeIndexHeader(about)], 0);
      const file = await ports.files.open(path, 'create');
      opened.push(file);
      await writeLogStart(file, about);
      return new LogWriter(ports, path, about, { log: file, index }, {
        layout: new LogLayout(), indexPosition: INDEX_HEADER_BYTES, recordCount: 0, marks: new FinishMarks(),
        lastActivity: about.createdAt,
      });
    } catch (error) {
      // What we made ourselves goes again, so that the next attempt does not meet it.
      for (const file of opened) {
        await file.close();
        await ports.files.remove(file.path);
      }
      throw creationFailure(path, error);
    }
  }

  /** Bytes of the log and its index, appends in flight included. */
  get bytes(): number {
    return this.#state.layout.position + this.#state.indexPosition;
  }

  /** Records accepted so far, appends in flight included. */
  get recordCount(): number {
    return this.#state.recordCount;
  }

  /** Records that `finished` has not been told about. */
  get unfinishedCount(): number {
    return this.#state.recordCount - this.#state.marks.count;
  }

  /** The timestamp of the newest append; the creation time before the first. */
  get lastActivity(): number {
    return this.#state.lastActivity;
  }

  /** Why no more appends are taken; null while all is well. */
  get failure(): UnderstudyError | null {
    return this.#failure;
  }

  /**
   * Logs the records in this order, with one write to the log and one to its index. Resolves with the number of the
   * first record (record i has number first + i) when both are in the page cache, never before an earlier append.
   * Appends may be pipelined. The first failure poisons the writer: that append and all later ones reject with
   * LOG_WRITE_FAILED (system error in `cause`). If even the index could not be removed the code is LOG_STILL_TRUSTED:
   * record the distrust elsewhere before writing unlogged.
   */
  append(records: readonly LogRecord[], timestampMs: number): Promise<number> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    this.#assertAppendable(records);
    const state = this.#state;
    const first = state.recordCount;
    const batch = placeBatch(state.layout, records, timestampMs);
    state.recordCount += records.length;
    state.lastActivity = timestampMs;
    const frame = encodeFrame({
      ...state.marks.drain(),
      timestamp: timestampMs, firstRecord: first, acknowledged: this.#acknowledged,
      position: batch.position, length: batch.length, entries: batch.entries,
    });
    if (batch.length > 0 && this.#log.writeTogether !== undefined) {
      return this.#acknowledgeInTurn([this.#log.writeTogether(batch.buffers, batch.position, this.#framed(frame))]).then(() => first);
    }
    const dataWrite = batch.length === 0 ? Promise.resolve() : this.#log.write(batch.buffers, batch.position);
    return this.#acknowledgeInTurn([dataWrite, this.#writeFrame(frame)]).then(() => first);
  }

  /**
   * The disk write of this record has finished, or its failure was read back and logged (R3). Persisted with the next
   * append.
   */
  finished(recordNumber: number): void {
    if (!(recordNumber >= 0 && recordNumber < this.#acknowledged)) {
      const reason = `${this.#acknowledged} are acknowledged`;
      throw new RangeError(`record ${recordNumber} of ${this.path} cannot have finished: ${reason}`);
    }
    this.#state.marks.mark(recordNumber);
    if (this.#waitingForAll.length > 0 && this.unfinishedCount === 0) {
      for (const waiting of this.#waitingForAll.splice(0)) waiting.resolve();
    }
  }

  /** Resolves when every record appended so far has finished; rejects when the writer is or becomes poisoned. */
  allFinished(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.unfinishedCount === 0) return Promise.resolve();
    return new Promise((resolve, reject) => void this.#waitingForAll.push({ resolve, reject }));
  }

  /**
   * Writes the finish marks that no append has carried yet: for a clean stop without closing. Fails as `append` does.
   */
  persistFinished(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    this.#assertAppendable([]);
    if (!this.#state.marks.dirty) return this.#tail;
    const { layout, recordCount, lastActivity, marks } = this.#state;
    const frame = encodeFrame({
      ...marks.drain(),
      timestamp: lastActivity, firstRecord: recordCount, acknowledged: this.#acknowledged,
      position: layout.position, length: 0, entries: [],
    });
    return this.#acknowledgeInTurn([this.#writeFrame(frame)]);
  }

  /**
   * Before a write goes to the disk unlogged (trigger 3, also when an append outlasts its time): removes the index,
   * so that no recovery trusts this log, and refuses further appends. Rejects with LOG_STILL_TRUSTED when it cannot.
   */
  async distrust(reason: string): Promise<void> {
    const message = `the tracking log ${this.path} was given up: ${reason}`;
    this.#fail(new UnderstudyError('io', 'LOG_WRITE_FAILED', message, REMEDY));
    await this.#indexRemoval;
  }

  /**
   * Ends the log: last metadata block, header with its end, fdatasync, index removed. A crash in between is taken up by
   * recoverLog. All records must have finished (R5): asking earlier is the caller's bug. Fails as `append` does.
   */
  async close(): Promise<ClosedLog> {
    if (this.#failure !== null) throw this.#failure;
    this.#assertAppendable([]);
    if (this.unfinishedCount > 0) {
      throw new Error(`${this.path} cannot be closed: ${this.unfinishedCount} disk writes have not finished`);
    }
    this.#ended = true;
    await this.#tail;
    const { layout, lastActivity } = this.#state;
    try {
      const position = layout.position;
      const block = layout.endBlock();
      if (block !== null) await this.#log.write([block], position);
      // Only now: a header that names the end must never be seen before the block that ends there.
      const end = { currentSize: layout.position, endOfLog: layout.position, totalEntries: layout.entries };
      await this.#log.write([encodeHeader(ourHeader({ ...this.#about, modifiedAt: lastActivity }, end))], 0);
      const { path, uniqueId, previousUniqueId } = this;
      const about = { path, uniqueId, previousUniqueId, entries: layout.entries };
      const closed = await completeClose(this.#ports, this.#log, about);
      await Promise.all([this.#log.close(), this.#index.close()]);
      return closed;
    } catch (error) {
      this.#mayNameItsEnd = true;
      throw await this.#poison(error);
    }
  }

  /**
   * Waits for appends in flight and closes the files as they are, for recoverLog or for removal. Not after `close`
   * resolved.
   */
  async abandon(): Promise<void> {
    this.#ended = true;
    await Promise.allSettled([this.#tail, this.#indexRemoval]);
    await Promise.all([this.#log.close(), this.#index.close()]);
  }

  #assertAppendable(records: readonly LogRecord[]): void {
    if (this.#ended) throw new Error(`${this.path} has ended`);
    let entries = 0;
    for (const record of records) {
      const [offset, length] = [record.offset, lengthOf(record)];
      const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
      if (!whole || offset < 0 || length <= 0 || offset + length > this.diskSize) {
        throw new RangeError(`record ${offset}+${length} of ${this.path} lies outside of its disk of ${this.diskSize} bytes`);
      }
      entries += Math.ceil(length / ENTRY_BYTES_MAX[record.op]);
    }
    if (entries > FRAME_ENTRIES_MAX) throw new RangeError(`one append of ${entries} entries`);
  }

  #writeFrame(frame: Buffer): Promise<void> {
    const { buffers, position } = this.#framed(frame);
    return this.#index.write(buffers, position);
  }

  /** Takes the frame's place in the index. */
  #framed(frame: Buffer): { file: OpenFile; buffers: Buffer[]; position: number } {
    const position = this.#state.indexPosition;
    this.#state.indexPosition += frame.length;
    return { file: this.#index, buffers: [frame], position };
  }

  /**
   * Resolves when the writes have and all earlier appends have. Waits for every write, so that no file is closed
   * under one.
   */
  #acknowledgeInTurn(writes: Promise<void>[]): Promise<void> {
    const [earlier, upTo] = [this.#tail, this.#state.recordCount];
    const inTurn = async (): Promise<void> => {
      const results = await Promise.allSettled([earlier, ...writes]);
      const failed = results.find((result) => result.status === 'rejected');
      if (failed !== undefined) throw await this.#poison(failed.reason);
      if (this.#failure !== null) throw await this.#poison(this.#failure);
      this.#acknowledged = upTo;
    };
    this.#tail = inTurn();
    // Whoever called `append` sees the rejection; the chain itself must not count as unhandled.
    this.#tail.catch(() => undefined);
    return this.#tail;
  }

  /** The error to reject with, once the index is gone. */
  async #poison(cause: unknown): Promise<UnderstudyError> {
    if (this.#failure === null) {
      const message = `the tracking log ${this.path} cannot be written: ${messageOf(cause)}`;
      this.#fail(new UnderstudyError('io', 'LOG_WRITE_FAILED', message, REMEDY, { cause }));
    }
    try {
      await this.#indexRemoval;
      return this.#failure!;
    } catch (error) {
      return error as UnderstudyError;
    }
  }

  #fail(error: UnderstudyError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    for (const waiting of this.#waitingForAll.splice(0)) waiting.reject(error);
    this.#indexRemoval = this.#withdraw().catch((cause: unknown) => {
      const message = `${error.message}; a restart would still trust it, its index cannot be removed: ${messageOf(cause)}`;
      throw new UnderstudyError('io', 'LOG_STILL_TRUSTED', message, REMEDY, { cause: error.cause ?? error });
    });
    this.#indexRemoval.catch(() => undefined);
  }

  /**
   * Leaves a log that recovery refuses: open by its header, and without an index. Its space is given back before anybody hears of the
   * failure: on a volume that it has filled, the disk write that follows unlogged may need it.
   */
  async #withdraw(): Promise<void> {
    if (this.#mayNameItsEnd) await writeLogStart(this.#log, this.#about);
    await this.#ports.files.remove(indexPathOf(this.path));
    if (!this.#mayNameItsEnd) await this.#log.truncate(0).catch(() => undefined);
  }
}

const REMEDY = 'Make room on the volume of the tracking logs or repair it, then resume replication to resynchronize.';

/** Header of an open log and the empty first block, in one write. */
export async function writeLogStart(log: OpenFile, about: IndexHeader): Promise<void> {
  const first = LogLayout.firstBlock();
  const open = { currentSize: HEADER_BYTES + first.length, endOfLog: 0, totalEntries: 0 };
  await log.write([encodeHeader(ourHeader({ ...about, modifiedAt: about.createdAt }, open)), first], 0);
}

function creationFailure(path: string, cause: unknown): UnderstudyError {
  if (errnoOf(cause) === 'EEXIST') {
    const message = `the tracking log ${path} or its index is already there`;
    return new UnderstudyError('state', 'LOG_EXISTS', message, 'Recover or remove it first.', { cause });
  }
  const message = `the tracking log ${path} cannot be created: ${messageOf(cause)}`;
  return new UnderstudyError('io', 'LOG_WRITE_FAILED', message, REMEDY, { cause });
}
