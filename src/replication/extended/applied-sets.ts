/**
 * The change source of a leg to an extended replica: the sets of logs that are applied to the replica here.
 *
 * Invariants (R27)
 * - A set's regions are in the leg's change maps, durably, before it writes to a disk; a set is in the queue in the transaction that says
 *   `applied`, its files checked and durable. So the queue, or the map where logs are not kept, holds every change of the disks since
 *   `begin`; whatever else writes to them must say so (`disksChange`).
 * - An epoch of the leg is a row of whole sets: its end is an instant of the VM. It is made between two sets, never within one.
 * - A set's files go when the epoch that it became part of is closed, durably. A crash in between makes that epoch again.
 * - What is copied or compared from the disks is one instant only together with every set that had begun to write: so the epoch that ends a
 *   copy or a compare is made while the replica is at rest (`unrest` says null), else not.
 */
import { UnderstudyError } from '../../model/errors.ts';
import type { SourceDisk, ChangeSource } from '../change-source.ts';
import {
  replicatedDisks, type AppliedSetRecord, type DiskRecord, type EpochRecord, type InboxRecord, type TrackingRecord, type VmRecord,
} from '../../model/records.ts';
import { ChangeMap, type Range } from '../../tracking/change-map.ts';
import { chainOf, createLogs, dropEpochs, recordNoTracking, removeTrackingFiles } from '../../tracking/epoch-logs.ts';
import { freshMap } from '../../tracking/open-disks.ts';
import { mapPath, vmFolder, type TrackingLoss } from '../../tracking/tracking-ports.ts';
import type { RangesOf } from '../recovery-points.ts';
import type { ReplicaVm } from '../replica-vm.ts';
import type { ReplicationPorts } from '../replication-ports.ts';
import { openLog } from '../../hrl/log-reader.ts';
import { coalesce } from './coalesce.ts';
import { ReadWindows, ReplicaReader } from './replica-reader.ts';
import { unrest } from './rest.ts';

export class AppliedSets implements ChangeSource {
  /** The leg's. */
  #ports: ReplicationPorts;
  #vmId: string;
  #replica: ReplicaVm;
  #trackingLost: (loss: TrackingLoss) => void;
  #maps = new Map<string, ChangeMap>();
  #disks = new Map<string, ReplicaReader>();
  #windows: ReadWindows;
  /** Switches, beginnings and removals, one at a time: they share the names of files. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(ports: ReplicationPorts, replica: ReplicaVm, trackingLost: (loss: TrackingLoss) => void) {
    this.#ports = ports;
    this.#vmId = replica.vmId;
    this.#replica = replica;
    this.#trackingLost = trackingLost;
    this.#windows = new ReadWindows(ports, replica);
  }

  /** Takes up what a stop or a crash has left. */
  static async open(ports: ReplicationPorts, replica: ReplicaVm, trackingLost: (loss: TrackingLoss) => void): Promise<AppliedSets> {
    const source = new AppliedSets(ports, replica, trackingLost);
    await ports.files.makeFolder(source.#folder());
    if (source.#tracking !== null) {
      await source.#openMaps(source.#tracking);
      await source.#sweep();
    }
    return source;
  }

  get logging(): boolean {
    return this.#tracking?.mode === 'logging';
  }

  get hasWrites(): boolean {
    // A copy may have read what a set that is not applied yet has written: it always ends with an epoch of its own.
    if (this.#copying) return true;
    return this.#sets().some(({ disks }) => disks.some(({ entries }) => entries > 0)) || this.#ending() !== undefined;
  }

  get openLogBytes(): number {
    return this.#sets().reduce((sum, { disks }) => sum + disks.reduce((bytes, { size }) => bytes + size, 0), 0);
  }

  disk(diskId: string): SourceDisk {
    let disk = this.#disks.get(diskId);
    if (disk === undefined) {
      const record = () => replicatedDisks(this.#vm).find((one) => one.diskId === diskId)!;
      disk = new ReplicaReader(this.#ports, record, this.#windows);
      this.#disks.set(diskId, disk);
    }
    return { disk, requests: 0, openOperations: 0 };
  }

  begin({ keepMap }: { keepMap: boolean }): Promise<number> {
    return this.#inTurn(async () => {
      const unpin = await this.#replica.pin('the extended replica');
      try {
        await this.#requireRest();
        await dropEpochs(this.#ports, this.#vm);
        await this.#dropSets();
        const epoch = (this.#tracking?.epoch ?? 0) + 1;
        const mapTrusted = keepMap ? (this.#tracking?.mapTrusted ?? false) : true;
        for (const disk of replicatedDisks(this.#vm)) {
          const before = this.#maps.get(disk.diskId);
          // A map that has failed marks nothing any more (R10): one that suspects everything takes its place.
          if (keepMap && before !== undefined && before.distrusted === null) {
            before.pin();
            continue;
          }
          await before?.close();
          this.#maps.set(disk.diskId, await freshMap(this.#ports, this.#vm, disk, keepMap));
        }
        this.#ports.catalog.transaction(() => {
          this.#record({ epoch, mode: 'logging', chain: {}, mapTrusted });
          this.#putOpen(epoch);
        });
        await this.#closeReaders();
        return epoch;
      } finally {
        unpin();
      }
    });
  }

  switchLog(): Promise<EpochRecord> {
    return this.#inTurn(async () => {
      const interrupted = this.#ending();
      if (interrupted !== undefined) {
        const closed = await this.#close(interrupted);
        // One that was ended before a copy went on is not the one that ends the copy.
        if (!this.#copying) return closed;
      }
      const unpin = await this.#replica.pin('the extended replica');
      let ended: EpochRecord;
      try {
        if (this.#copying) await this.#requireRest();
        ended = this.#end();
      } finally {
        unpin();
      }
      return this.#close(ended);
    });
  }

  async release(epoch: number): Promise<void> {
    // A set that is half applied may have been marked in an epoch that has gone by; it marks again when it is applied again.
    if (!this.logging || this.#replica.relationship.applying !== null) return;
    for (const map of this.#maps.values()) map.release(epoch);
  }

  suspects(): Map<string, Range[]> | null {
    if (this.#tracking?.mapTrusted !== true) return null;
    if ([...this.#maps.values()].some(({ distrusted }) => distrusted !== null)) return null;
    return new Map([...this.#maps].map(([diskId, map]) => [diskId, map.suspects()]));
  }

  touchedSince(epoch: number, diskId: string): Range[] {
    return this.#maps.get(diskId)?.touchedSince(epoch) ?? [];
  }

  async repaired(): Promise<void> {
    for (const map of this.#maps.values()) map.unpin();
    this.#record({ mapTrusted: [...this.#maps.values()].every(({ distrusted }) => distrusted === null) });
  }

  stopLogging(loss: TrackingLoss): void {
    this.#ports.catalog.transaction(() => {
      this.#mapOnly();
      this.#trackingLost(loss);
    });
  }

  goMapOnly(): void {
    if (this.logging) this.#ports.catalog.transaction(() => this.#mapOnly());
  }

  /** Resolves when the files of what was given up are removed. */
  async removed(): Promise<void> {
    await this.#inTurn(async () => {});
  }

  async forget(alsoRecord: () => void): Promise<void> {
    const sets = this.#sets();
    this.#ports.catalog.transaction(() => {
      for (const { epoch } of sets) this.#ports.catalog.extended.sets.remove(this.#vmId, epoch);
      recordNoTracking(this.#ports, this.#vmId, alsoRecord);
    });
    await this.#inTurn(async () => {
      for (const set of sets) await this.#removeFiles(set);
      await this.close();
      await removeTrackingFiles(this.#ports, this.#vm);
    });
  }

  async close(): Promise<void> {
    await this.#closeReaders();
    for (const map of this.#maps.values()) await map.close();
    this.#maps.clear();
  }

  /** The set is about to be written to the disks: resolves when its regions are durable in the maps, or those are not trusted any more. */
  async beforeSet(set: InboxRecord): Promise<void> {
    await this.#marked(async () => {
      await this.#growMaps(new Map(set.disks.map(({ diskId, diskSize }) => [diskId, diskSize])));
      await this.#mark((disk) => entriesOf(this.#ports, set, disk));
    });
  }

  /** Something else than a set is about to be written there (R27): as `beforeSet`, for what `ranges` names. */
  async beforeChange(ranges: RangesOf): Promise<void> {
    await this.#marked(() => this.#mark(ranges));
  }

  /** Never rejects: the replica goes on without its leg (R10). */
  async #marked(work: () => Promise<void>): Promise<void> {
    if (this.#tracking === null) return;
    try {
      await work();
    } catch (error) {
      this.#ports.log.error({ vm: this.#vmId, error }, 'what the extended replica lacks can no longer be told from its change map');
      for (const map of this.#maps.values()) map.distrust(error instanceof Error ? error : new Error(String(error)));
    }
    const distrusted = [...this.#maps.values()].some((map) => map.distrusted !== null);
    if (distrusted && this.#tracking.mapTrusted) this.#record({ mapTrusted: false });
  }

  /**
   * Inside the transaction that says `applied`: the set belongs to the leg from then on. What is returned moves its files, after the
   * commit; null: the leg does not want them.
   */
  applied(set: InboxRecord): (() => Promise<void>) | null {
    const tracking = this.#tracking;
    if (tracking?.mode !== 'logging') return null;
    const kept: AppliedSetRecord = {
      ...set, legEpoch: tracking.epoch, disks: set.disks.map((log) => ({ ...log, path: `${this.#folder()}/${log.diskId}.set.${set.epoch}.hrl` })),
    };
    this.#ports.catalog.extended.sets.put(kept);
    return () => this.#move(set, kept);
  }

  async #move(from: InboxRecord, to: AppliedSetRecord): Promise<void> {
    for (const { diskId, path } of from.disks) {
      const there = to.disks.find((log) => log.diskId === diskId)!.path;
      if ((await this.#ports.files.stat(path)) !== null) await this.#ports.files.rename(path, there);
    }
    await this.#ports.files.syncFolder(this.#folder());
  }

  /** The open epoch ends here, between two sets, and the next one begins. */
  #end(): EpochRecord {
    const { catalog, clock } = this.#ports;
    const { epoch } = this.#tracking!;
    const newest = this.#sets().at(-1);
    const record: EpochRecord = {
      vmId: this.#vmId, epoch, status: 'closing', openedAt: catalog.epochs.get(this.#vmId, epoch)?.openedAt ?? clock.now(),
      closedAt: newest?.closedAt ?? this.#replica.relationship.lastAppliedTime ?? clock.now(), disks: [],
    };
    catalog.transaction(() => {
      catalog.epochs.put(record);
      this.#record({ epoch: epoch + 1 });
      this.#putOpen(epoch + 1);
    });
    return record;
  }

  /** Makes the logs of an epoch that has ended. Redo: after a crash it begins anew. */
  async #close(ended: EpochRecord): Promise<EpochRecord> {
    const { catalog, files } = this.#ports;
    const sets = this.#sets().filter(({ legEpoch }) => legEpoch <= ended.epoch);
    const chain = this.#tracking!.chain;
    const logs = await createLogs(this.#ports, this.#vm, ended.epoch, (diskId) => chain[diskId] ?? null);
    try {
      for (const [diskId, log] of logs) {
        await coalesce(files, sets.map(({ disks }) => disks.find((one) => one.diskId === diskId)!), log, ended.closedAt!);
      }
    } catch (error) {
      for (const log of logs.values()) await log.distrust('its sets could not be put together').then(() => log.abandon());
      throw error;
    }
    const disks: EpochRecord['disks'] = [];
    for (const [diskId, log] of logs) {
      const { uniqueId, previousUniqueId, path, size, digest, entries } = await log.close();
      disks.push({ diskId, uniqueId, previousUniqueId, path, size, digest, entries, diskSize: log.diskSize });
    }
    const closed: EpochRecord = { ...ended, status: 'closed', disks };
    catalog.transaction(() => {
      // Given up meanwhile: it must not come back.
      if (catalog.epochs.get(this.#vmId, ended.epoch)?.status !== 'closing') throw givenUp();
      catalog.epochs.put(closed);
      this.#record({ chain: { ...chain, ...chainOf(logs) } });
      for (const { epoch } of sets) catalog.extended.sets.remove(this.#vmId, epoch);
    });
    for (const set of sets) await this.#removeFiles(set);
    return closed;
  }

  #mapOnly(): void {
    const { catalog } = this.#ports;
    const epochs = catalog.epochs.list(this.#vmId);
    const sets = this.#sets();
    this.#record({ mode: 'map-only' });
    for (const { epoch } of epochs) catalog.epochs.remove(this.#vmId, epoch);
    for (const { epoch } of sets) catalog.extended.sets.remove(this.#vmId, epoch);
    // No log explains what is suspect now, so it stays until a resynchronization has repaired it.
    for (const map of this.#maps.values()) map.pin();
    void this.#inTurn(async () => {
      for (const { path } of epochs.flatMap(({ disks }) => disks)) await this.#ports.files.remove(path);
      for (const set of sets) await this.#removeFiles(set);
    }).catch((error: unknown) => this.#ports.log.warn({ vm: this.#vmId, error }, 'logs for the extended replica could not be removed'));
  }

  async #mark(ranges: RangesOf): Promise<void> {
    const { epoch } = this.#tracking!;
    for (const disk of replicatedDisks(this.#vm)) {
      const map = this.#maps.get(disk.diskId);
      if (map === undefined) continue;
      const waits: Promise<void>[] = [];
      for await (const { offset, length } of ranges(disk, this.disk(disk.diskId).disk)) {
        // Beyond the end of the map there is nothing that both sides have.
        const wait = map.mark(offset, Math.min(length, map.diskSize - offset), epoch);
        if (wait !== null) waits[0] = wait;
      }
      await Promise.all(waits);
    }
  }

  async #growMaps(sizes: ReadonlyMap<string, number>): Promise<void> {
    for (const [diskId, map] of this.#maps) {
      const size = sizes.get(diskId) ?? 0;
      if (size > map.diskSize) await map.resize(this.#ports.files, mapPath(this.#ports, this.#vmId, diskId), size);
    }
  }

  async #openMaps({ epoch }: TrackingRecord): Promise<void> {
    for (const disk of replicatedDisks(this.#vm)) {
      const path = mapPath(this.#ports, this.#vmId, disk.diskId);
      const size = await this.#mapSize(path, disk);
      try {
        const map = await ChangeMap.open(this.#ports.files, path, { ...this.#ports.changeMap, diskSize: size, currentEpoch: epoch });
        if (!this.logging) map.pin();
        this.#maps.set(disk.diskId, map);
      } catch (error) {
        this.#ports.log.error({ vm: this.#vmId, error }, 'a change map of the extended replica cannot be used');
        this.#record({ mapTrusted: false });
        this.#maps.set(disk.diskId, await freshMap(this.#ports, this.#vm, disk, true));
      }
    }
  }

  /** A set that grows the disk may have been interrupted after it had made the map larger. */
  async #mapSize(path: string, disk: DiskRecord): Promise<number> {
    const next = this.#ports.catalog.inbox.list(this.#vmId).flatMap(({ disks }) => disks)
      .filter(({ diskId, diskSize }) => diskId === disk.diskId && diskSize > disk.virtualSize).map(({ diskSize }) => diskSize);
    for (const size of [disk.virtualSize, ...next]) {
      const found = await ChangeMap.open(this.#ports.files, path, { ...this.#ports.changeMap, diskSize: size, currentEpoch: 0 }).catch(() => null);
      await found?.close();
      if (found !== null) return size;
    }
    return disk.virtualSize;
  }

  /** Ends moves that a crash has interrupted, and removes files that no record names. */
  async #sweep(): Promise<void> {
    const folder = this.#folder();
    for (const set of this.#sets()) {
      const inbox = `${vmFolder({ dataFolder: this.#ports.dataFolder.replace(/\/extended$/, '') }, this.#vmId)}/inbox`;
      await this.#move({ ...set, disks: set.disks.map((log) => ({ ...log, path: `${inbox}/${log.diskId}.${set.epoch}.hrl` })) }, set);
    }
    const known = new Set([...this.#sets(), ...this.#ports.catalog.epochs.list(this.#vmId)].flatMap(({ disks }) => disks.map(({ path }) => path)));
    for (const name of await this.#ports.files.list(folder)) {
      const isLog = name.endsWith('.hrl') || name.endsWith('.hrl.index');
      if (isLog && !known.has(`${folder}/${name}`)) await this.#ports.files.remove(`${folder}/${name}`);
    }
  }

  async #dropSets(): Promise<void> {
    const sets = this.#sets();
    this.#ports.catalog.transaction(() => {
      for (const { epoch } of sets) this.#ports.catalog.extended.sets.remove(this.#vmId, epoch);
    });
    for (const set of sets) await this.#removeFiles(set);
  }

  async #removeFiles(set: Pick<AppliedSetRecord, 'disks'>): Promise<void> {
    for (const { path } of set.disks) await this.#ports.files.remove(path);
  }

  async #closeReaders(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.close();
  }

  /** With apply held back. What somebody else has written would go to the third host as an instant of the VM. */
  async #requireRest(): Promise<void> {
    const why = unrest(this.#replica.relationship) ?? ((await this.#replica.stillOurs()) ? null : 'its disks were changed by somebody else');
    if (why === null) return;
    throw new UnderstudyError('io', 'REPLICA_BUSY', `the replica on this host is no instant of the VM now: ${why}`, 'It is tried again by itself.');
  }

  /** The disks themselves are being copied or compared. */
  get #copying(): boolean {
    const { initial = null, resync = null } = this.#ports.relationships.find(this.#vmId) ?? {};
    return initial !== null || resync !== null;
  }

  #putOpen(epoch: number): void {
    this.#ports.catalog.epochs.put({ vmId: this.#vmId, epoch, status: 'open', openedAt: this.#ports.clock.now(), closedAt: null, disks: [] });
  }

  /** The epoch that has ended and has no logs yet. */
  #ending(): EpochRecord | undefined {
    return this.#ports.catalog.epochs.list(this.#vmId).find(({ status }) => status === 'closing');
  }

  #sets(): AppliedSetRecord[] {
    return this.#ports.catalog.extended.sets.list(this.#vmId);
  }

  #folder(): string {
    return vmFolder(this.#ports, this.#vmId);
  }

  get #vm(): VmRecord {
    return this.#ports.relationships.vm(this.#vmId);
  }

  get #tracking(): TrackingRecord | null {
    return this.#vm.tracking;
  }

  #record(change: Partial<TrackingRecord>): void {
    const { bootId, hostId, catalog } = this.#ports;
    const fresh: TrackingRecord = { epoch: 0, mode: 'map-only', running: true, bootId, hostId, seals: {}, chain: {}, mapTrusted: true };
    const vm = this.#vm;
    catalog.transaction(() => catalog.vms.put({ ...vm, tracking: { ...(vm.tracking ?? fresh), ...change } }));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

const givenUp = (): UnderstudyError => new UnderstudyError('io', 'REPLICA_BUSY', 'the logs were given up meanwhile', 'It is tried again by itself.');

async function* entriesOf(ports: Pick<ReplicationPorts, 'files'>, set: InboxRecord, { diskId }: DiskRecord): AsyncGenerator<Range> {
  const log = set.disks.find((one) => one.diskId === diskId)!;
  const reader = await openLog(ports.files, log.path, { diskSize: log.diskSize });
  try {
    yield* reader.entries();
  } finally {
    await reader.close();
  }
}
