/**
 * One disk of a running VM: every guest write goes to the change map and the tracking log, side by side, then to the disk.
 *
 * Invariants
 * - A disk write starts only when its regions' bits are durable (R7) and its log record is written (R1), or after `stopLogging`
 *   has been told to the catalog (trigger 3): the guest then goes on unlogged, with the map alone.
 * - Log order is the order in which operations are admitted; two overlapping operations reach the disk in that order (R3).
 *   Operations that do not overlap run side by side.
 * - From reading the current epoch to marking the map in it and to the append call no other code runs, so a log switch falls between two
 *   operations (R5), and no bit drops before the disk write: its epoch's log cannot close before.
 * - Replication delays a guest write by at most the bounded wait and never fails it (promise 1). Only the disk itself can.
 *
 * An operation is answered when it is on the disk. It is `finished` in the log then, which is what recovery after a crash of
 * this process rests on (R2).
 */
import type { LogRecord, LogWriter } from '../hrl/log-writer.ts';
import { assertInside, type Extent, type VirtualDisk } from '../disk/virtual-disk.ts';
import { errnoOf } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import { promptWrites } from '../disk/prompt-writes.ts';
import type { ChangeMap } from './change-map.ts';
import { writeBackInPieces } from './write-back.ts';

/** Writes of the log that are under way at once, each with all that came meanwhile. */
const ADMISSIONS_AT_ONCE = 2;

export interface TrackingHost {
  readonly clock: Clock;
  boundedWaitMs(): number;
  /** The epoch that an operation admitted now belongs to. */
  epoch(): number;
  /** Null when this process is on record as writing, else a promise of it, which never rejects (see write-lease.ts). */
  lease(): Promise<void> | null;
  /** An operation has begun or ended on this disk. */
  activity(disk: TrackedDisk): void;
  /**
   * The log can no longer be kept. Must put it on record durably, and then call `stopLogging` on every disk of the VM: unlogged writes
   * reach the disks right after. In one step, but where the record has to wait; until then what is pending goes on waiting.
   */
  loggingFailed(reason: Error): void;
  /**
   * The disk has no space for a write that is in this log. True when the logs lie on the same volume and were given up for it, as by
   * `loggingFailed`: the write may succeed now.
   */
  makeRoom(disk: TrackedDisk, log: LogWriter, cause: unknown): Promise<boolean>;
  /** A bit of the map could not be made durable in time (R10); resolves when that is on record durably. Never rejects. */
  mapFailed(reason: Error): Promise<void>;
}

interface Operation {
  kind: 'write' | 'zero' | 'discard';
  offset: number;
  length: number;
  data: Uint8Array | null;
  log: LogWriter | null;
  record: number;
  /** Overlapping operations before this one that are not done. */
  blockers: number;
  dependents: Operation[];
  /** Called when it has ended, before the guest hears of it; for `settled`. */
  onEnd: (() => void)[] | null;
  /** With null, or with why it failed. */
  ended: (failure: unknown) => void;
}

/** Operations that were taken from the queue together. */
interface Admission {
  operations: readonly Operation[];
  /** When the first of them may have begun to wait for admissions before this one; the bounded wait is for everything. */
  since: number;
  /** Where they are, or will be, logged, and under which number the first; null: nowhere. */
  log: LogWriter | null;
  first: number;
  isLogged: boolean;
  isMarked: boolean;
  /** What is waited for, and what ends the waiting. */
  marking: { map: ChangeMap; end: () => void } | null;
}

/** How much of a failed operation is read back at once: a zeroing may be 4 GiB long. */
const READ_BACK_BYTES = 256 << 10;
/** So little is with the device before a guest could notice. */
const WORTH_PIECES_BYTES = 8 << 20;
const LATE = Symbol('late');

export class TrackedDisk {
  readonly disk: VirtualDisk;
  #map: ChangeMap | null;
  #host: TrackingHost;
  readonly #writeNow: (from: Uint8Array, offset: number) => boolean;
  #log: LogWriter | null = null;
  #queue: Operation[] = [];
  #admitting = false;
  /** In order; what is at the head starts first. */
  #pending: Admission[] = [];
  #starting = false;
  /** Called when one of them is over. */
  #onPending: (() => void) | null = null;
  /** Admitted to the disk, in order: running, or waiting for an overlapping one. */
  #inFlight = new Set<Operation>();
  #watching = false;
  /** Submitted and not yet answered. */
  #open = new Set<Operation>();
  /** Of the guest so far, reads and writes. */
  requests = 0;
  /** Written since the last flush began, at least. */
  #unflushedBytes = 0;

  constructor(disk: VirtualDisk, map: ChangeMap | null, host: TrackingHost) {
    this.disk = disk;
    this.#map = map;
    this.#host = host;
    this.#writeNow = promptWrites(disk, host.clock);
    disk.serveGuest?.(() => host.lease());
  }

  get map(): ChangeMap | null {
    return this.#map;
  }

  /** A new map for a new baseline, or none; counts for operations admitted from now on. */
  setMap(map: ChangeMap | null): void {
    this.#map = map;
  }

  /** Operations submitted and not yet answered. */
  get openOperations(): number {
    return this.#open.size;
  }

  get log(): LogWriter | null {
    return this.#log;
  }

  /** Sends operations admitted from now on to another log; returns the one before. Does nothing else: one step of a switch. */
  setLog(log: LogWriter | null): LogWriter | null {
    const before = this.#log;
    this.#log = log;
    return before;
  }

  /** Goes on with the map alone, also for operations whose append is still under way. */
  stopLogging(): void {
    this.#log = null;
    for (const admission of this.#pending) {
      if (!admission.isLogged) Object.assign(admission, { log: null, isLogged: true });
    }
    this.#startReady();
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    this.requests++;
    return this.disk.read(into, offset);
  }

  /** As `VirtualDisk.readNow`. */
  readNow(into: Uint8Array, offset: number): boolean {
    this.requests++;
    return this.disk.readNow?.(into, offset) === true;
  }

  write(data: Uint8Array, offset: number): Promise<void> {
    return this.#submit('write', offset, data.length, data);
  }

  /** `write` without a promise, which for small writes is much of what one costs: `ended` is called after this has returned. */
  writeThen(data: Uint8Array, offset: number, ended: (failure: unknown) => void): void {
    this.#enter('write', offset, data.length, data, ended);
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#submit('zero', offset, length, null);
  }

  /** A discard that cannot promise zeroes is neither logged nor done (R6). */
  discard(offset: number, length: number): Promise<void> {
    return this.disk.discardReadsZero ? this.#submit('discard', offset, length, null) : Promise.resolve();
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    return this.disk.extents(offset, length);
  }

  /**
   * Makes the disk durable. It does not wait for the log: a machine crash never trusts an open log (R4). After a failure the
   * bits of everything since the last good flush are still set, since bits drop only after one (R8); logging stops, because
   * what the disk holds is no longer what the log says (R3).
   */
  async flush(): Promise<void> {
    this.#unflushedBytes = 0;
    try {
      await this.disk.flush();
    } catch (cause) {
      if (this.#log !== null) this.#host.loggingFailed(new Error('a flush of the disk failed', { cause }));
      throw cause;
    }
  }

  /** `flush` for our own purposes, which a guest at work is to feel as little as possible of. */
  async flushInPieces(): Promise<void> {
    if (this.#unflushedBytes >= WORTH_PIECES_BYTES) await writeBackInPieces(this.disk, this.#host.clock);
    await this.flush();
  }

  /** Resolves when every operation submitted before the call has ended, whatever comes after them (R17). */
  async settled(): Promise<void> {
    await Promise.all([...this.#open].map((operation) => new Promise<void>((resolve) => {
      (operation.onEnd ??= []).push(resolve);
    })));
  }

  #submit(kind: Operation['kind'], offset: number, length: number, data: Uint8Array | null): Promise<void> {
    if (length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#enter(kind, offset, length, data, (failure) => {
        if (failure === null) resolve();
        else reject(failure as Error);
      });
    });
  }

  #enter(kind: Operation['kind'], offset: number, length: number, data: Uint8Array | null, ended: Operation['ended']): void {
    assertInside(this.disk, offset, length);
    this.requests++;
    this.#unflushedBytes += data?.length ?? 0;
    const operation: Operation = { kind, offset, length, data, log: null, record: 0, blockers: 0, dependents: [], onEnd: null, ended };
    this.#open.add(operation);
    this.#host.activity(this);
    this.#queue.push(operation);
    if (this.#admitting) return;
    this.#admitting = true;
    // At the end of the current tick: what one network packet brought becomes one log write.
    queueMicrotask(() => void this.#admit());
  }

  /**
   * Takes everything queued, in order. While it waits for admissions that are under way, more operations queue up behind, and become one
   * write of the log: several at once would take turns at its file anyway.
   */
  async #admit(): Promise<void> {
    while (this.#queue.length > 0) {
      const since = this.#host.clock.monotonic();
      while (this.#pending.length >= ADMISSIONS_AT_ONCE) await new Promise<void>((resolve) => (this.#onPending = resolve));
      for (let lease = this.#host.lease(); lease !== null; lease = this.#host.lease()) await lease;
      const operations = this.#queue;
      this.#queue = [];
      // No await from here to the append: epoch, bits and log belong together.
      const log = this.#log;
      const marks = this.#mark(operations);
      const admission: Admission = { operations, since, log, first: 0, isLogged: log === null, isMarked: marks === null, marking: null };
      this.#pending.push(admission);
      if (log !== null) this.#append(admission, log);
      if (marks !== null) void this.#awaitMarks(admission, this.#map!, marks);
      this.#startReady();
      if (!this.#watching && this.#pending.length > 0) void this.#watch();
    }
    this.#admitting = false;
  }

  /** Notes the operations in the map under the current epoch: null when every bit is durable already. */
  #mark(operations: readonly Operation[]): Promise<unknown> | null {
    if (this.#map === null) return null;
    const epoch = this.#host.epoch();
    const marks: Promise<void>[] = [];
    for (const { offset, length } of operations) {
      const mark = this.#map.mark(offset, length, epoch);
      if (mark !== null) marks.push(mark);
    }
    return marks.length === 0 ? null : Promise.all(marks);
  }

  /** `map`: the one that was asked. It may be the disk's no longer when it answers; then the operations are noted in the one that is. */
  async #awaitMarks(admission: Admission, map: ChangeMap, mark: Promise<unknown>): Promise<void> {
    const late = new Promise<true>((resolve) => (admission.marking = { map, end: () => resolve(true) }));
    const timedOut = await Promise.race([mark.then(() => false), late]);
    if (timedOut) map.distrust(new Error(`the change map took longer than ${this.#host.boundedWaitMs()} ms`));
    // Who came later need not wait as long for a map that is given up.
    if (timedOut) for (const { marking } of this.#pending) if (marking?.map === map) marking.end();
    const failure = map.distrusted;
    if (failure !== null && map === this.#map) await this.#host.mapFailed(failure);
    const more = map === this.#map ? null : this.#mark(admission.operations);
    if (more !== null) return this.#awaitMarks(admission, this.#map!, more);
    admission.isMarked = true;
    this.#startReady();
  }

  #append(admission: Admission, log: LogWriter): void {
    this.#appended(log, admission.operations).then(
      (first) => {
        // `stopLogging` may have let it go on already.
        if (admission.isLogged) return;
        Object.assign(admission, { first, isLogged: true });
        this.#startReady();
      },
      (reason: unknown) => {
        if (!admission.isLogged) this.#host.loggingFailed(reason instanceof Error ? reason : new Error(String(reason)));
      },
    );
  }

  /** Async, so that a record that the log refuses to take ends the log and not this process. */
  async #appended(log: LogWriter, operations: readonly Operation[]): Promise<number> {
    return log.append(operations.map(recordOf), this.#host.clock.now());
  }

  /** Sends what is marked and logged to the disk, none before those that were admitted before it; also when it is called from within. */
  #startReady(): void {
    if (this.#starting) return;
    this.#starting = true;
    try {
      for (let [next] = this.#pending; next?.isMarked === true && next.isLogged; [next] = this.#pending) {
        this.#pending.shift();
        this.#onPending?.();
        for (const [index, operation] of next.operations.entries()) this.#start(operation, next.log, next.first + index);
      }
    } finally {
      this.#starting = false;
    }
  }

  /** While admissions are under way: gives up the log (trigger 3), or the map (R10), that outlasts the bounded wait. */
  async #watch(): Promise<void> {
    this.#watching = true;
    const { clock } = this.#host;
    while (this.#pending.length > 0) {
      const waitMs = this.#host.boundedWaitMs();
      const oldest = this.#pending[0]!;
      const left = oldest.since + waitMs - clock.monotonic();
      if (left <= 0) {
        oldest.marking?.end();
        if (!oldest.isLogged) this.#host.loggingFailed(new Error(`a write to the tracking log took longer than ${waitMs} ms`));
      }
      // Still pending: it is given up already, and what is left to do for that has its own bound.
      if (this.#pending.length > 0) await clock.sleep(left > 0 ? left : waitMs);
    }
    this.#watching = false;
  }

  /** Sends one operation to the disk, behind those before it that it overlaps. */
  #start(operation: Operation, log: LogWriter | null, record: number): void {
    operation.log = log;
    operation.record = record;
    const end = operation.offset + operation.length;
    for (const other of this.#inFlight) {
      if (other.offset < end && operation.offset < other.offset + other.length) {
        other.dependents.push(operation);
        operation.blockers++;
      }
    }
    this.#inFlight.add(operation);
    if (operation.blockers === 0) this.#perform(operation);
  }

  /** A small write that is next is done here and now; without promises, because this runs for every guest write. */
  #perform(operation: Operation): void {
    let done = false;
    if (operation.kind === 'write' && this.#host.lease() === null) {
      try {
        done = this.#writeNow(operation.data!, operation.offset);
      } catch (failure) {
        // A full volume is for the slow way to deal with.
        if (!isFull(failure)) return void this.#fail(operation, failure);
      }
    }
    if (!done) return void this.#performLater(operation);
    operation.log?.finished(operation.record);
    this.#end(operation, null);
  }

  async #performLater(operation: Operation): Promise<void> {
    try {
      const lease = this.#host.lease();
      if (lease !== null) await lease;
      await this.#onDisk(operation).catch(async (cause: unknown) => {
        if (!(await this.#madeRoom(operation, cause))) throw cause;
        await this.#onDisk(operation);
      });
    } catch (cause) {
      return this.#fail(operation, cause);
    }
    operation.log?.finished(operation.record);
    this.#end(operation, null);
  }

  async #fail(operation: Operation, cause: unknown): Promise<void> {
    await this.#logWhatIsThere(operation);
    this.#end(operation, cause ?? new Error('the disk write failed'));
  }

  /** Replication must not be why a guest write fails (promise 1): rather a resynchronization than that. */
  async #madeRoom({ log }: Operation, cause: unknown): Promise<boolean> {
    return isFull(cause) && log !== null && (await this.#host.makeRoom(this, log, cause));
  }

  #onDisk({ kind, offset, length, data }: Operation): Promise<void> {
    return kind === 'write' ? this.disk.write(data!, offset) : kind === 'zero' ? this.disk.zero(offset, length) : this.disk.discard(offset, length);
  }

  /**
   * After a failed disk write any part of it may have happened. What the disk holds now is read back and logged, so that the
   * log says again what the disk says (R3). Overlapping operations wait meanwhile.
   */
  async #logWhatIsThere(operation: Operation): Promise<void> {
    const { log } = operation;
    if (log === null) return;
    const deadline = this.#host.clock.monotonic() + this.#host.boundedWaitMs();
    try {
      // Its own log, also when that is closing: it cannot end before this record has finished.
      for (let done = 0; done < operation.length; done += READ_BACK_BYTES) {
        const offset = operation.offset + done;
        const data = new Uint8Array(Math.min(READ_BACK_BYTES, operation.length - done));
        await this.disk.read(data, offset);
        log.finished(await this.#before(deadline, log.append([{ op: 'write', offset, data }], this.#host.clock.now())));
      }
      log.finished(operation.record);
    } catch (cause) {
      this.#host.loggingFailed(new Error('a disk write failed and could not be read back', { cause }));
    }
  }

  /** Rejects when the work does not end in time: the guest waits for its error. */
  async #before<T>(deadline: number, work: Promise<T>): Promise<T> {
    const { clock } = this.#host;
    const timer = new AbortController();
    const late = clock.sleep(Math.max(0, deadline - clock.monotonic()), timer.signal).then(() => LATE, () => LATE);
    const first = await Promise.race([work, late]);
    timer.abort();
    if (first === LATE) throw new Error('the tracking log took too long');
    return first as T;
  }

  #end(operation: Operation, failure: unknown): void {
    this.#inFlight.delete(operation);
    for (const dependent of operation.dependents) {
      if (--dependent.blockers === 0) this.#perform(dependent);
    }
    this.#open.delete(operation);
    this.#host.activity(this);
    for (const settled of operation.onEnd ?? []) settled();
    operation.ended(failure);
  }
}

const isFull = (failure: unknown): boolean => errnoOf(failure) === 'ENOSPC' || errnoOf(failure) === 'EDQUOT';

function recordOf(operation: Operation): LogRecord {
  return operation.kind === 'write'
    ? { op: 'write', offset: operation.offset, data: operation.data! }
    : { op: 'zero', offset: operation.offset, length: operation.length };
}
