/**
 * The disks of one VM while they are open for writing: epochs, log switches, recovery after a crash, clean stop.
 *
 * Invariants
 * - `tracking.running` is durable before the first guest write and cleared only after the last one, with the seals (R24).
 * - A log switch is one catalog transaction followed by one synchronous step over all disks (R5). Crash before it: the new files
 *   are strangers and are removed. Crash after it: both sets are taken up again, the older one is closed.
 * - `mode = map-only` is durable before the first unlogged write reaches a disk (trigger 3), so recovery never trusts a log
 *   with a gap; where the catalog cannot be written, a mark that recovery finds (`UnrecordedLoss`).
 * - `#vm.tracking` is what counts. The catalog says the same, but for what is owed to it.
 * - An epoch's bits leave the map after: closed, disks flushed, and applied on the replica (R8).
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { LogWriter } from '../hrl/log-writer.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type EpochRecord, type SealRecord, type TrackingRecord, type VmRecord } from '../model/records.ts';
import type { ChangeMap, Range } from './change-map.ts';
import {
  chainOf, closeEpoch, createLogs, discardLogs, dropEpochs, putOpenEpoch, recordNoTracking, removeNewLogs, removeTrackingFiles,
} from './epoch-logs.ts';
import { freshMap, openChecked, openOrCreate, resizedDisks } from './open-disks.ts';
import { QuietSeals } from './quiet-seals.ts';
import { endResizes, growDisk, recordSize, type ResizeHost } from './resize.ts';
import { onOneVolume, withinWait } from './room.ts';
import { takeUp, type TakeUpHost } from './take-up.ts';
import { TrackedDisk, type TrackingHost } from './tracked-disk.ts';
import { leasePath, vmFolder, type TrackedVmHooks, type TrackingLoss, type TrackingPorts } from './tracking-ports.ts';
import { UnrecordedLoss, type Owed } from './unrecorded-loss.ts';
import { readLease, WriteLease } from './write-lease.ts';

export type { TrackedVmHooks, TrackingLoss } from './tracking-ports.ts';

export class TrackedVm implements TrackingHost {
  readonly clock;
  #ports: TrackingPorts;
  #hooks: TrackedVmHooks;
  #vm: VmRecord;
  #disks = new Map<string, TrackedDisk>();
  #lease: WriteLease | null = null;
  #closing: Promise<EpochRecord> | null = null;
  #discarding: Promise<void> = Promise.resolve();
  #switching: Promise<unknown> = Promise.resolve();
  #leaving: Promise<void> = Promise.resolve();
  readonly #quiet: QuietSeals;
  readonly #unrecorded: UnrecordedLoss;
  #growing = false;
  #closed = false;

  private constructor(ports: TrackingPorts, vm: VmRecord, hooks: TrackedVmHooks) {
    this.#ports = ports;
    this.#vm = vm;
    this.#hooks = hooks;
    this.clock = ports.clock;
    this.#quiet = new QuietSeals({
      clock: ports.clock, busy: () => this.#busy(), seals: () => this.#seals((disk) => disk.seal({ goesOn: true })),
      record: async (seals) => await this.#lease?.quiet(seals),
      failed: (error) => ports.log.warn({ vm: vm.name, error: messageOf(error) }, 'the disks could not be sealed'),
    });
    this.#unrecorded = new UnrecordedLoss({
      clock: ports.clock, log: ports.log, vmName: vm.name, lease: () => this.#lease,
      record: () => this.recordOwed(),
    });
  }

  /**
   * Opens the disks (locked), decides whether what was known still holds, and takes open logs up again. `loss` is set when a
   * resync is required from now on; writes are then tracked by the map alone.
   */
  static async open(ports: TrackingPorts, vm: VmRecord, hooks: TrackedVmHooks): Promise<{ vm: TrackedVm; loss: TrackingLoss | null }> {
    const opened = new TrackedVm(ports, structuredClone(vm), hooks);
    try {
      for (const disk of vm.disks) {
        opened.#disks.set(disk.diskId, new TrackedDisk(await openChecked(ports, disk), null, opened));
      }
      const loss = vm.tracking === null ? null : await takeUp(opened.#takingUp());
      await endResizes(opened.#resizing());
      await hooks.opened?.(opened);
      return { vm: opened, loss };
    } catch (error) {
      opened.#closed = true;
      for (const disk of opened.#disks.values()) await disk.disk.close();
      throw error;
    }
  }

  get tracking(): TrackingRecord | null {
    return this.#vm.tracking;
  }

  get logging(): boolean {
    return this.#vm.tracking?.mode === 'logging';
  }

  disk(diskId: string): TrackedDisk {
    const disk = this.#disks.get(diskId);
    if (disk === undefined) throw new RangeError(`no disk ${diskId} in VM ${this.#vm.name}`);
    return disk;
  }

  /** What happened and could not be put on record yet: the catalog cannot be written. */
  get owed(): Owed | null {
    return this.#unrecorded.owed;
  }

  /** Puts it on record now. @throws CATALOG_NOT_WRITABLE while that is not possible */
  recordOwed(): void {
    const loss = this.#unrecorded.owed?.loss ?? null;
    if (this.#unrecorded.owed !== null) this.#record({});
    if (loss !== null) this.#discarding = discardLogs(this.#ports, this.#vm, [], null, loss.reason);
  }

  /** Bytes of the logs that are open or closing. */
  get openLogBytes(): number {
    return [...this.#disks.values()].reduce((bytes, { log }) => bytes + (log?.bytes ?? 0), 0);
  }

  /** True when the open epoch holds at least one record. */
  get hasWrites(): boolean {
    return [...this.#disks.values()].some((disk) => (disk.log?.recordCount ?? 0) > 0);
  }

  boundedWaitMs(): number {
    return this.#hooks.boundedWaitMs();
  }

  epoch(): number {
    return this.#vm.tracking?.epoch ?? 0;
  }

  lease(): Promise<void> | null {
    return this.#lease?.cover() ?? null;
  }

  activity(): void {
    if (this.#lease !== null) this.#quiet.activity();
  }

  loggingFailed(reason: Error): void {
    if (this.#vm.tracking?.mode !== 'logging') return;
    this.stopLogging({ trigger: 3, reason: reason.message + (reason.cause === undefined ? '' : `: ${messageOf(reason.cause)}`) });
  }

  async makeRoom(disk: TrackedDisk, log: LogWriter, cause: unknown): Promise<boolean> {
    if (!(await onOneVolume(this.#ports, log.path.slice(0, log.path.lastIndexOf('/')), disk.disk.location))) return false;
    this.loggingFailed(new Error('the volume of the disk is full, and the tracking logs are on it', { cause }));
    await withinWait(this.clock, this.boundedWaitMs(), this.#leaving.then(() => this.#discarding));
    return true;
  }

  async mapFailed(reason: Error): Promise<void> {
    if (this.#vm.tracking?.mapTrusted === true) {
      this.#ports.log.error({ vm: this.#vm.name, reason: reason.message }, 'the change map can no longer be trusted');
      void this.#recordOrOwe({ mapTrusted: false }, null);
    }
    await this.#unrecorded.marked;
  }

  /** Drops the logs, durably, and goes on with the map: on a trigger, or because the user asked for a resync. */
  stopLogging(loss: TrackingLoss): void {
    if (!this.logging) return;
    const marked = this.#recordOrOwe({ mode: 'map-only' }, loss);
    if (marked === null) this.#leaveLogs(loss.reason);
    else this.#leaving = marked.then(() => this.#leaveLogs(loss.reason));
  }

  /** Null when it is on record; else what must be waited for before the guest goes on. */
  #recordOrOwe(change: Partial<TrackingRecord>, loss: TrackingLoss | null): Promise<void> | null {
    try {
      this.#record(change, () => loss !== null && this.#hooks.trackingLost(loss));
      return null;
    } catch (failure) {
      this.#vm.tracking = { ...this.#vm.tracking!, ...change };
      return this.#unrecorded.owe({ loss, mapHolds: this.#vm.tracking.mapTrusted, failure }, loss === null ? [] : this.#openLogs());
    }
  }

  /** As `stopLogging`, where the record knows already why: the user asked for a resync that starts later. */
  goMapOnly(): void {
    if (this.#vm.tracking?.mode !== 'logging') return;
    this.#record({ mode: 'map-only' });
    this.#leaveLogs('a resynchronization was asked for');
  }

  #leaveLogs(reason: string): void {
    const logs = this.#openLogs();
    for (const disk of this.#disks.values()) {
      disk.stopLogging();
      disk.map?.pin();
    }
    this.#discarding = discardLogs(this.#ports, this.#vm, logs, this.#closing, reason);
  }

  #openLogs(): LogWriter[] {
    return [...this.#disks.values()].flatMap(({ log }) => log ?? []);
  }

  /**
   * Starts tracking from nothing: fresh maps and the first logs of a new chain. Resolves when every write accepted before is on
   * disk, so that a copy begun now misses nothing (R17). Returns the number of the first epoch.
   */
  begin(options: { keepMap: boolean }): Promise<number> {
    return this.#inTurn(() => this.#beginNow(options));
  }

  async #beginNow(options: { keepMap: boolean }): Promise<number> {
    // What the map has to explain must be on record before a resync that rests on it.
    this.recordOwed();
    const epoch = (this.#vm.tracking?.epoch ?? 0) + 1;
    await dropEpochs(this.#ports, this.#vm);
    await this.#ports.files.makeFolder(vmFolder(this.#ports, this.#vm.vmId));
    const maps = new Map<string, ChangeMap>();
    for (const disk of replicatedDisks(this.#vm)) {
      const before = this.disk(disk.diskId).map;
      // A map that has failed marks nothing any more (R10): one that suspects everything takes its place.
      const kept = options.keepMap && before?.distrusted === null ? before : null;
      maps.set(disk.diskId, kept ?? await freshMap(this.#ports, this.#vm, disk, options.keepMap));
    }
    const logs = await createLogs(this.#ports, this.#vm, epoch, () => null);
    await this.#openLease();
    await this.#lease!.cover();
    try {
      this.#record({
        epoch, mode: 'logging', running: true, bootId: this.#ports.bootId, hostId: this.#ports.hostId, seals: {},
        chain: chainOf(logs), mapTrusted: options.keepMap ? (this.#vm.tracking?.mapTrusted ?? true) : true,
      }, () => putOpenEpoch(this.#ports, this.#vm, epoch, logs));
    } catch (error) {
      await removeNewLogs(this.#ports, logs);
      throw error;
    }
    const replaced: ChangeMap[] = [];
    const old: LogWriter[] = [];
    for (const [diskId, map] of maps) {
      const disk = this.disk(diskId);
      if (disk.log !== null) old.push(disk.log);
      if (disk.map !== null && disk.map !== map) replaced.push(disk.map);
      if (options.keepMap) map.pin();
      disk.setMap(map);
      disk.setLog(logs.get(diskId)!);
    }
    for (const map of replaced) await map.close();
    for (const log of old) void log.distrust('a new chain of logs began').then(() => log.abandon()).catch(() => undefined);
    this.activity();
    await this.settled();
    // What was written before has no bit: a power loss after it was copied must not take it from this disk alone (R8).
    for (const disk of this.#disks.values()) await disk.flushInPieces();
    return epoch;
  }

  /**
   * Ends the open epoch at this instant for all disks and opens the next (R5). Resolves when the ended one is closed and
   * durable. One switch at a time. `atInstant`: called at the instant.
   */
  switchLog(atInstant?: () => void): Promise<EpochRecord> {
    return this.#inTurn(() => this.#switchNow(null, atInstant));
  }

  /**
   * Grows a disk at an epoch boundary (R26): map, then disk, then the size in the catalog, in the transaction that opens the
   * next epoch. The size of the file decides, after a crash, whether the resize is completed or undone. One switch at a time.
   */
  grow(diskId: string, size: number): Promise<void> {
    return this.#inTurn(() => growDisk(this.#resizing(), diskId, size));
  }

  /** What begins an epoch: two at once would make the same files. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#switching.then(work);
    this.#switching = result.catch(() => undefined);
    return result;
  }

  /** The epoch is applied and durable on the replica: its bits may go once the disks are flushed (R8). */
  async release(epoch: number): Promise<void> {
    if (!this.logging) return;
    for (const disk of this.#disks.values()) await disk.flushInPieces();
    if (!this.logging) return;
    for (const disk of this.#disks.values()) disk.map?.release(epoch);
  }

  /** The regions that may differ from the replica, by disk id (rung 1); null where the map is not to be trusted. */
  suspects(): Map<string, Range[]> | null {
    if (this.#vm.tracking?.mapTrusted !== true) return null;
    return new Map([...this.#disks].map(([diskId, disk]) => [diskId, disk.map?.suspects() ?? []]));
  }

  /** What was written to the disk after the epoch ended. */
  touchedSince(epoch: number, diskId: string): Range[] {
    return this.disk(diskId).map?.touchedSince(epoch) ?? [];
  }

  /** The differences that were pinned when this epoch's chain began are repaired, and the repair is on record (R9). */
  async repaired(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.flushInPieces();
    for (const disk of this.#disks.values()) disk.map?.unpin();
    // A map that failed meanwhile marks nothing any more (R10): it must not count as one that knows everything.
    const whole = [...this.#disks.values()].every(({ map }) => map === null || map.distrusted === null);
    this.#record({ mapTrusted: whole });
  }

  /** Resolves when every operation submitted before the call has ended. */
  async settled(): Promise<void> {
    await Promise.all([...this.#disks.values()].map((disk) => disk.settled()));
  }

  /**
   * Ends tracking for good: logs and maps go. `alsoRecord` runs in the transaction that says so, before the first unlogged write:
   * from then on a crash leaves files without a meaning, and never a chain with a gap that is believed.
   */
  async forget(alsoRecord: () => void): Promise<void> {
    await this.#switching;
    recordNoTracking(this.#ports, this.#vm.vmId, alsoRecord);
    this.#vm.tracking = null;
    this.#unrecorded.settled();
    const maps: ChangeMap[] = [];
    const logs = this.#openLogs();
    for (const disk of this.#disks.values()) {
      if (disk.map !== null) maps.push(disk.map);
      disk.setMap(null);
      disk.stopLogging();
    }
    await discardLogs(this.#ports, this.#vm, logs, this.#closing, 'replication was removed');
    await this.settled();
    for (const map of maps) await map.close();
    await this.#lease?.close();
    this.#lease = null;
    await removeTrackingFiles(this.#ports, this.#vm);
  }

  /**
   * Clean stop: no guest may write any more. Ends the logs, flushes and seals the disks, and says so in the catalog.
   * After an I/O error the stop counts as not clean, and the next start finds out.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#switching;
    await this.settled();
    this.#closed = true;
    this.#quiet.stop();
    try {
      // With its tracking: a flush that fails must be on record, or the next start would believe the logs (R3).
      for (const disk of this.#disks.values()) await disk.flush();
      if (this.#vm.tracking !== null) await this.#sealAndRecord();
    } finally {
      this.#unrecorded.stop();
      await this.#closing?.catch(() => undefined);
      await this.#lease?.close();
      for (const disk of this.#disks.values()) {
        await disk.map?.close();
        await disk.disk.close();
      }
    }
  }

  async #sealAndRecord(): Promise<void> {
    if (this.logging) await this.#endEpochWithoutNext();
    const seals = await this.#seals();
    this.#record({ running: false, seals });
  }

  async #endEpochWithoutNext(): Promise<void> {
    const record = this.#ports.catalog.epochs.get(this.#vm.vmId, this.epoch());
    if (record === undefined) return;
    const logs = new Map<string, LogWriter>();
    for (const [diskId, disk] of this.#disks) {
      const log = disk.setLog(null);
      if (log !== null) logs.set(diskId, log);
    }
    const ended: EpochRecord = { ...record, status: 'closing', closedAt: this.clock.now() };
    this.#ports.catalog.transaction(() => this.#ports.catalog.epochs.put(ended));
    await closeEpoch(this.#ports, ended, logs);
  }

  #resizing(): ResizeHost {
    return {
      ports: this.#ports, vm: this.#vm, disk: (diskId) => this.disk(diskId), logging: () => this.logging,
      switchLog: (resized) => this.#switchNow(resized), mapFailed: (reason) => this.mapFailed(reason),
      // As for a write: its time stamps must lie in a lease, or a crash would look like somebody else's work.
      changing: async (work) => {
        this.#growing = true;
        try {
          this.activity();
          await this.#lease?.cover();
          await work();
        } finally {
          this.#growing = false;
          this.activity();
        }
      },
    };
  }

  async #switchNow(resized: { diskId: string; virtualSize: number } | null = null, atInstant?: () => void): Promise<EpochRecord> {
    await this.#closing;
    if (!this.logging || this.#closed) {
      throw new UnderstudyError('state', 'NOT_TRACKING', `VM '${this.#vm.name}' keeps no tracking log now`, 'See its status.');
    }
    const next = this.epoch() + 1;
    const chain = this.#vm.tracking!.chain;
    const vm = resized === null ? this.#vm : { ...this.#vm, disks: resizedDisks(this.#vm.disks, resized.diskId, resized) };
    const logs = await createLogs(this.#ports, vm, next, (diskId) => chain[diskId] ?? null);
    if (!this.logging) {
      await removeNewLogs(this.#ports, logs);
      throw new UnderstudyError('state', 'NOT_TRACKING', `VM '${this.#vm.name}' stopped tracking meanwhile`, 'See its status.');
    }
    const ended: EpochRecord = {
      ...this.#ports.catalog.epochs.get(this.#vm.vmId, next - 1)!, status: 'closing', closedAt: this.clock.now(),
    };
    // The instant. No await until every disk writes to its new log.
    try {
      this.#record({ epoch: next, chain: chainOf(logs) }, () => {
        this.#ports.catalog.epochs.put(ended);
        putOpenEpoch(this.#ports, this.#vm, next, logs);
        if (resized !== null) recordSize(this.#ports, this.#vm, resized.diskId, resized);
      });
    } catch (error) {
      await removeNewLogs(this.#ports, logs);
      throw error;
    }
    const old = new Map<string, LogWriter>();
    for (const [diskId, log] of logs) old.set(diskId, this.disk(diskId).setLog(log)!);
    atInstant?.();
    this.#closing = closeEpoch(this.#ports, ended, old).finally(() => (this.#closing = null));
    try {
      return await this.#closing;
    } catch (cause) {
      this.loggingFailed(new Error('the tracking log could not be closed', { cause }));
      throw cause;
    }
  }

  #takingUp(): TakeUpHost {
    return {
      ports: this.#ports, vm: this.#vm, boundedWaitMs: () => this.boundedWaitMs(), disk: (diskId) => this.disk(diskId),
      seals: (of) => this.#seals(of), record: (change, also) => this.#record(change, also),
      trackingLost: (loss) => this.#hooks.trackingLost(loss),
      leased: (lease) => {
        this.#lease = lease;
      },
    };
  }

  async #openLease(): Promise<void> {
    if (this.#lease !== null) return;
    const file = await openOrCreate(this.#ports, leasePath(this.#ports, this.#vm.vmId));
    const { sequence } = await readLease(file);
    this.#lease = new WriteLease(file, this.clock, sequence, () => this.boundedWaitMs());
  }

  #busy(): boolean {
    return this.#growing || [...this.#disks.values()].some((disk) => disk.openOperations > 0);
  }

  async #seals(of: (disk: VirtualDisk) => Promise<SealRecord> = (disk) => disk.seal()): Promise<Record<string, SealRecord>> {
    const seals: Record<string, SealRecord> = {};
    for (const { diskId } of replicatedDisks(this.#vm)) seals[diskId] = await of(this.disk(diskId).disk);
    return seals;
  }

  /** One transaction: the change, what is owed, and what `also` records. Memory follows the catalog, never the other way. */
  #record(change: Partial<TrackingRecord>, also: () => void = () => {}): void {
    const { bootId, hostId } = this.#ports;
    const fresh: TrackingRecord = { epoch: 0, mode: 'map-only', running: true, bootId, hostId, seals: {}, chain: {}, mapTrusted: true };
    const tracking = { ...(this.#vm.tracking ?? fresh), ...change };
    const { catalog } = this.#ports;
    catalog.transaction(() => {
      catalog.vms.put({ ...catalog.vms.get(this.#vm.vmId)!, tracking });
      const owed = this.#unrecorded.owed?.loss ?? null;
      if (owed !== null) this.#hooks.trackingLost(owed);
      also();
    });
    this.#vm.tracking = tracking;
    this.#unrecorded.settled();
  }
}
