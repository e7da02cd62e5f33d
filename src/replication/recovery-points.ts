/**
 * The recovery points of one replica VM: when they are made, what keeps them, and when they go.
 *
 * Invariants (R14)
 * - The undo of a set is complete, digested and durable, and on record as `undoneThrough`, before the set writes to a disk. What is on
 *   record is never written again; what a crash has left behind it is cut.
 * - Only the newest point's undo logs grow, and a page goes into them once: the first time it is overwritten since that point.
 * - A point leads back through its own undo logs and those of all newer points: so only the oldest may go, and damage of one costs that
 *   point and all older ones, never the latest instant.
 * - The points go, not the replica: without room for undo the oldest is deleted, until there is room or none is left.
 * - While a failover or test serves the replica no point goes.
 */
import { PageSet } from '../disk/page-set.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { openLog } from '../hrl/log-reader.ts';
import { UndoReader } from '../hrl/undo-reader.ts';
import { UndoWriter } from '../hrl/undo-writer.ts';
import { UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { pointDue, pointId, POINT_INTERVAL_MS, surplus, type Boundary } from '../model/recovery-points.ts';
import { replicatedDisks, type DiskRecord, type InboxRecord, type PointRecord } from '../model/records.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { captureUndo, kept, UndoNotKept, type Range } from './undo-capture.ts';

/** Left free on the volume of the replica disks for the apply itself. */
const RESERVE_BYTES = 64 << 20;

/** Where the ranges come from that are about to be overwritten on a disk. */
export type RangesOf = (disk: DiskRecord, opened: VirtualDisk) => AsyncIterable<Range>;

export class RecoveryPoints {
  #ports: ReplicationPorts;
  #vmId: string;
  /** What the newest point's undo logs hold, by disk; null: to be read from them. */
  #touched: { epoch: number; sets: Map<string, PageSet> } | null = null;
  /** When points went for want of room: the next try is an interval away, not at the next set. */
  #lostAt: number | null = null;

  constructor(ports: ReplicationPorts, vmId: string) {
    this.#ports = ports;
    this.#vmId = vmId;
  }

  /** Oldest first. */
  list(): PointRecord[] {
    return this.#ports.catalog.points.list(this.#vmId);
  }

  /** Removes undo logs that no point names: a crash fell between the record and the file. */
  async start(): Promise<void> {
    const known = new Set(this.list().flatMap(({ disks }) => disks.map(({ path }) => path)));
    for (const disk of this.#disks()) {
      const [folder, name] = split(disk.path);
      for (const file of await this.#ports.files.list(folder)) {
        const isUndo = file.startsWith(`${name}.`) && /^\d+\.hru$/.test(file.slice(name.length + 1));
        if (isUndo && !known.has(`${folder}/${file}`)) await this.#ports.files.remove(`${folder}/${file}`);
      }
    }
  }

  /** Keeps what the set will overwrite. Costs nothing without points. */
  async keepForSet(record: InboxRecord, signal: AbortSignal): Promise<void> {
    const bytes = record.disks.reduce((sum, { size }) => sum + size, 0);
    await this.keep(record.epoch, bytes, (disk) => rangesOfLog(this.#ports, record, disk), signal);
  }

  /**
   * Keeps what is about to be overwritten by `epoch`, about `bytes` of it. When there is no room, or the newest undo log is damaged, points
   * go and the caller goes on; rejects only when the replica's own disk or the ranges cannot be read.
   */
  async keep(epoch: number, bytes: number, ranges: RangesOf, signal: AbortSignal): Promise<void> {
    for (;;) {
      const newest = this.list().at(-1);
      if (newest === undefined || newest.damaged !== null || newest.undoneThrough >= epoch) return;
      try {
        await this.#checkRoom(newest, bytes);
        await this.#capture(newest, epoch, ranges, signal);
        return;
      } catch (error) {
        this.#touched = null;
        if (!(error instanceof UndoNotKept)) throw error;
        await this.#giveWay(error);
      }
    }
  }

  /** The disks' volume is full, as the apply has found: makes room by the oldest point. False when there is none. */
  async makeRoom(reason: string): Promise<boolean> {
    const [oldest] = this.list();
    if (oldest === undefined || this.#inUse()) return false;
    await this.#lose([oldest], reason);
    return true;
  }

  /** Inside the transaction that says `applied`: makes the point that is due. What must go for it goes with `tidy`. */
  afterApplied(boundary: Boundary): void {
    const { recoveryHistory } = this.#relationship().settings;
    const points = this.list();
    const intervalMs = this.#ports.pointIntervalMs ?? POINT_INTERVAL_MS;
    const kind = pointDue(points, boundary, { history: recoveryHistory, intervalMs });
    if (kind === null || (this.#lostAt !== null && this.#ports.clock.now() - this.#lostAt < intervalMs)) return;
    this.#lostAt = null;
    const { epoch, time } = boundary;
    const point: PointRecord = {
      vmId: this.#vmId, epoch, time, kind, createdAt: this.#ports.clock.now(), damaged: null, undoneThrough: epoch,
      disks: this.#disks().map(({ diskId, path, virtualSize }) => ({ diskId, virtualSize, path: `${path}.${epoch}.hru`, end: 0 })),
    };
    this.#ports.catalog.points.put(point);
    this.#ports.relationships.note(this.#vmId,
      makeEvent(ACTIVITY_EVENTS.recoveryPointCreated, this.#name(), { pointId: pointId(point), kind }));
  }

  /** Lets go what is more than the setting allows. */
  async tidy(): Promise<void> {
    if (this.#inUse()) return;
    await this.#remove(surplus(this.list(), this.#relationship().settings.recoveryHistory));
  }

  /** For a new baseline, a completed failover, the end of replication. The records go in the caller's transaction, the files afterwards. */
  deleteAll(): { deleted: number; removeFiles: () => Promise<void> } {
    const points = this.list();
    this.#ports.catalog.transaction(() => {
      for (const { epoch } of points) this.#ports.catalog.points.remove(this.#vmId, epoch);
    });
    this.#touched = null;
    return { deleted: points.length, removeFiles: () => this.#removeFiles(points) };
  }

  /** From this point back none can be used any more; said once. */
  damaged(epoch: number, reason: string): void {
    const lost = this.list().filter((point) => point.epoch <= epoch && point.damaged === null);
    if (lost.length === 0) return;
    this.#ports.catalog.transaction(() => {
      for (const point of lost) this.#ports.catalog.points.put({ ...point, damaged: reason });
      this.#ports.relationships.note(this.#vmId,
        makeEvent(ACTIVITY_EVENTS.recoveryPointsDamaged, this.#name(), { points: lost.map(pointId), reason }));
    });
  }

  async #capture(newest: PointRecord, epoch: number, ranges: RangesOf, signal: AbortSignal): Promise<void> {
    const sets = await this.#touchedBy(newest);
    const ends = new Map<string, number>();
    for (const disk of this.#disks()) {
      const log = newest.disks.find(({ diskId }) => diskId === disk.diskId);
      if (log === undefined) throw new UndoNotKept(new Error(`the point knows no disk ${disk.path}`));
      const opened = await this.#ports.openDiskForReading(disk);
      try {
        const header = { diskSize: log.virtualSize, epoch: newest.epoch, time: newest.time };
        const writer = await kept(() => UndoWriter.open(this.#ports, log.path, header, log.end, epoch));
        try {
          await captureUndo(opened, ranges(disk, opened), sets.get(disk.diskId)!, writer, signal);
          ends.set(disk.diskId, await kept(() => writer.finish()));
        } finally {
          await writer.close();
        }
      } finally {
        await opened.close();
      }
    }
    const disks = newest.disks.map((disk) => ({ ...disk, end: ends.get(disk.diskId) ?? disk.end }));
    const { points } = this.#ports.catalog;
    // The setting may have become smaller meanwhile: a point that has gone stays gone.
    const still = points.get(this.#vmId, newest.epoch);
    if (still === undefined) return this.#removeFiles([newest]);
    this.#ports.catalog.transaction(() => points.put({ ...still, undoneThrough: epoch, disks }));
  }

  async #touchedBy(newest: PointRecord): Promise<Map<string, PageSet>> {
    if (this.#touched?.epoch === newest.epoch) return this.#touched.sets;
    const sets = new Map<string, PageSet>();
    for (const { diskId, path, end } of newest.disks) {
      const set = new PageSet();
      sets.set(diskId, set);
      if (end === 0) continue;
      const log = await kept(() => UndoReader.open(this.#ports, path, end));
      for (const { page, pages } of log.pieces(0, Number.MAX_SAFE_INTEGER)) set.add(page, pages);
      await log.close();
    }
    this.#touched = { epoch: newest.epoch, sets };
    return sets;
  }

  async #checkRoom(newest: PointRecord, bytes: number): Promise<void> {
    const [folder] = split(newest.disks[0]!.path);
    const free = await kept(() => this.#ports.files.freeBytes(folder));
    if (free >= bytes + RESERVE_BYTES) return;
    throw new UndoNotKept(Object.assign(new Error(`${folder} has ${free} bytes free, ${bytes + RESERVE_BYTES} are wanted`), { code: 'ENOSPC' }));
  }

  /** Without room the oldest goes. A newest log that cannot be written or read is the end of them all: each leads through it. */
  async #giveWay(error: UndoNotKept): Promise<void> {
    const points = this.list();
    const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(error.code ?? '');
    await this.#lose(full ? points.slice(0, 1) : points, error.message);
  }

  async #lose(points: PointRecord[], reason: string): Promise<void> {
    this.#lostAt = this.#ports.clock.now();
    this.#ports.relationships.note(this.#vmId,
      makeEvent(ACTIVITY_EVENTS.recoveryPointsLost, this.#name(), { points: points.map(pointId), reason }));
    await this.#remove(points);
  }

  async #remove(points: PointRecord[]): Promise<void> {
    if (points.length === 0) return;
    this.#ports.catalog.transaction(() => {
      for (const { epoch } of points) this.#ports.catalog.points.remove(this.#vmId, epoch);
    });
    await this.#removeFiles(points);
  }

  async #removeFiles(points: PointRecord[]): Promise<void> {
    for (const { disks } of points) for (const { path } of disks) await this.#ports.files.remove(path);
  }

  #inUse(): boolean {
    const relationship = this.#ports.relationships.find(this.#vmId);
    return (relationship?.failover ?? null) !== null || (relationship?.testFailover ?? null) !== null;
  }

  #disks(): DiskRecord[] {
    return replicatedDisks(this.#ports.relationships.vm(this.#vmId));
  }

  #name(): string {
    return this.#ports.relationships.vm(this.#vmId).name;
  }

  #relationship() {
    return this.#ports.relationships.get(this.#vmId);
  }
}

async function* rangesOfLog(ports: ReplicationPorts, record: InboxRecord, disk: DiskRecord): AsyncGenerator<Range> {
  const log = record.disks.find(({ diskId }) => diskId === disk.diskId)!;
  const reader = await openLog(ports.files, log.path, { diskSize: log.diskSize });
  try {
    yield* reader.entries();
  } finally {
    await reader.close();
  }
}

/** The point as its user named it, usable. @throws POINT_NOT_FOUND, POINT_DAMAGED */
export function usable(point: PointRecord | undefined, asked: string, vmName: string): PointRecord {
  if (point === undefined) {
    throw new UnderstudyError('usage', 'POINT_NOT_FOUND', `VM '${vmName}' has no recovery point ${asked}`, `See: understudy points '${vmName}'`);
  }
  if (point.damaged === null) return point;
  throw new UnderstudyError('io', 'POINT_DAMAGED', `recovery point ${pointId(point)} of VM '${vmName}' cannot be used: ${point.damaged}`,
    `Choose the latest or a newer one: understudy points '${vmName}'`);
}

const split = (path: string): [folder: string, name: string] => {
  const slash = path.lastIndexOf('/');
  return [path.slice(0, slash), path.slice(slash + 1)];
};
