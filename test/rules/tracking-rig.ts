/** One VM with two disks of 1 MiB under the real tracking code, over simulated files and clock. Regions are 32 KiB. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { SqliteCatalog } from '../../src/catalog/sqlite-catalog.ts';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { openLog } from '../../src/hrl/log-reader.ts';
import type { Compute, Files } from '../../src/model/ports.ts';
import type { Catalog, EpochRecord, TrackingRecord, VmRecord } from '../../src/model/records.ts';
import type { TrackingPorts } from '../../src/tracking/tracking-ports.ts';
import { TrackedVm, type TrackingLoss } from '../../src/tracking/tracked-vm.ts';
import { Dice } from '../simulation/random.ts';
import { Scheduler, type Life } from '../simulation/scheduler.ts';
import { faultyCatalog } from '../simulation/faulty-catalog.ts';
import { simDisk } from '../simulation/sim-disk.ts';
import { SimVolume } from '../simulation/sim-files.ts';
import { Watch } from './watched-files.ts';

export const DISK_BYTES = 1 << 20;
export const REGION_BYTES = 32 << 10;
export const DISK_IDS = ['d0', 'd1'] as const;
export const VM_ID = '11111111-2222-4333-8444-555555555555';

const sha = (data: Uint8Array) => createHash('sha256').update(data).digest();
export const simCompute: Compute = {
  compress: async () => null, decompress: async (data) => data, digest: sha,
  digester: () => {
    const hash = createHash('sha256');
    return { update: (data) => void hash.update(data), digest: () => hash.digest() };
  },
};

export class TrackingRig {
  readonly dice: Dice;
  readonly scheduler: Scheduler;
  readonly volume: SimVolume;
  readonly catalog: Catalog = SqliteCatalog.open(':memory:');
  readonly watch = new Watch();
  readonly losses: TrackingLoss[] = [];
  life: Life = { alive: false };
  bootId = 'boot-1';
  hostId = 'host-1';
  boundedWaitMs = 2000;
  refuseLoss = false;
  /** Why no transaction can be committed. */
  catalogFault: Error | null = null;
  /** What the tests' disks are, beside plain raw files. */
  asDisk: (disk: VirtualDisk) => VirtualDisk = (disk) => disk;
  vm!: TrackedVm;

  constructor(seed = 1, diskIds: readonly string[] = DISK_IDS) {
    this.dice = new Dice(seed);
    this.scheduler = new Scheduler(this.dice);
    this.volume = new SimVolume(this.scheduler);
    for (const diskId of diskIds) this.volume.makeFile(`/disks/${diskId}.raw`, new Uint8Array(DISK_BYTES));
    const disks = diskIds.map((diskId) => (
      { diskId, path: `/disks/${diskId}.raw`, format: 'raw', virtualSize: DISK_BYTES, logicalSectorSize: 512, geometry: null }));
    this.catalog.vms.put({ vmId: VM_ID, name: 'vm', createdAt: 0, side: 'primary', disks, logFolder: '/logs', attach: 'attached',
      trustDisk: false, tracking: null });
  }

  /** Opened and begun: epoch 1 is open, the maps are empty, the disks are zeroes. */
  static async begun(seed = 1, diskIds: readonly string[] = DISK_IDS): Promise<TrackingRig> {
    const rig = new TrackingRig(seed, diskIds);
    await rig.open();
    await rig.during(rig.vm.begin({ keepMap: false }));
    rig.watch.trace.length = 0;
    return rig;
  }

  get record(): VmRecord {
    return this.catalog.vms.get(VM_ID)!;
  }

  get tracking(): TrackingRecord {
    return this.record.tracking!;
  }

  /** A new process opens the disks. Returns why a resync is required, or null. */
  async open(): Promise<TrackingLoss | null> {
    const { vm, loss } = await this.during(this.#opening());
    this.vm = vm;
    return loss;
  }

  /** As `open`, for a process that does not live to see the end. */
  async openUntilCrash(): Promise<void> {
    await this.ends(this.#opening(), 5000);
  }

  async #opening() {
    this.life = { alive: true };
    const files = this.watch.files(this.volume.mount(this.life));
    return await TrackedVm.open(this.ports(files), this.record, {
      boundedWaitMs: () => this.boundedWaitMs,
      trackingLost: (lost) => {
        if (this.refuseLoss) throw new Error('the relationship cannot be recorded');
        // What cannot be committed has not happened.
        if (this.catalogFault !== null) return;
        this.losses.push(lost);
        this.watch.note(`lost ${lost.trigger}`);
      },
    });
  }

  /** `process`: the page cache lives on. `machine`: what was not synced is lost or torn, and the boot id changes. */
  crash(kind: 'process' | 'machine'): void {
    this.life.alive = false;
    this.watch.stalls = [];
    this.watch.done = () => {};
    if (kind === 'process') return;
    this.bootId += '+';
    this.volume.loseCache();
  }

  /** The process dies after the `count`-th file operation from now on that is done. */
  crashAfter(count: number): void {
    this.watch.done = () => {
      if (--count === 0) this.life.alive = false;
    };
  }

  /** Lets time pass until the work is done. */
  async during<T>(work: Promise<T>): Promise<T> {
    assert.ok(await this.ends(work), 'the work does not end');
    return await work;
  }

  /** Whether the work ends, well or badly, within the time. */
  async ends(work: Promise<unknown>, ms = 600_000): Promise<boolean> {
    let done = false;
    work.then(() => (done = true), () => (done = true));
    return await this.scheduler.until(() => done, ms);
  }

  write(diskId: string, offset: number, data: Uint8Array | number, length = 512): Promise<void> {
    const bytes = typeof data === 'number' ? new Uint8Array(length).fill(data) : data;
    return this.vm.disk(diskId).write(bytes, offset);
  }

  diskBytes(diskId: string): Uint8Array {
    return this.volume.contents(`/disks/${diskId}.raw`);
  }

  async switchLog(): Promise<EpochRecord> {
    return await this.during(this.vm.switchLog());
  }

  epochs(): EpochRecord[] {
    return this.catalog.epochs.list(VM_ID);
  }

  /** Does to the bytes what a closed log says. */
  applyLog(disk: Uint8Array, path: string): Promise<void> {
    return this.during(applyTo(disk, this.volume.mount({ alive: true }), path));
  }

  /** What the closed logs of the epochs make of disks of zeroes. */
  async replay(epochs: EpochRecord[]): Promise<Record<string, Uint8Array>> {
    const disks: Record<string, Uint8Array> = {};
    for (const diskId of DISK_IDS) disks[diskId] = new Uint8Array(DISK_BYTES);
    for (const { disks: logs } of epochs) for (const { diskId, path } of logs) await this.applyLog(disks[diskId]!, path);
    return disks;
  }

  /** The offset of every entry of a closed log, in order. */
  async entries(path: string): Promise<{ op: string; offset: number; length: number }[]> {
    const read = async () => {
      const reader = await openLog(this.volume.mount({ alive: true }), path, { diskSize: DISK_BYTES });
      const found: { op: string; offset: number; length: number }[] = [];
      for await (const { op, offset, length } of reader.entries()) found.push({ op, offset, length });
      await reader.close();
      return found;
    };
    return await this.during(read());
  }

  /** Regions of the disk that are suspect now. */
  suspectRegions(diskId: string): number[] {
    const ranges = this.vm.disk(diskId).map?.suspects() ?? [];
    return ranges.flatMap(({ offset, length }) =>
      Array.from({ length: Math.ceil(length / REGION_BYTES) }, (_, index) => offset / REGION_BYTES + index));
  }

  ports(files: Files): TrackingPorts {
    const silent = () => {};
    const { dice } = this;
    return {
      files, clock: this.scheduler.clock(this.life), compute: simCompute, catalog: this.#watchedCatalog(),
      random: { uuid: () => dice.uuid(), bytes: (count) => dice.bytes(count) },
      log: { debug: silent, info: silent, warn: silent, error: silent },
      bootId: this.bootId, hostId: this.hostId, dataFolder: '/data', changeMap: { regionBytes: REGION_BYTES, hotRegionsMax: 2 },
      openDisk: async ({ path }) => {
        const file = await files.open(path, 'write');
        return this.asDisk(this.#watchedWrites(simDisk(this.volume, file, await file.size()), path));
      },
    };
  }

  /** What is written on the calling thread is in the trace too, and goes the long way while that is stalled. */
  #watchedWrites(disk: VirtualDisk, path: string): VirtualDisk {
    const { writeNow: before } = disk;
    const writeNow = (from: Uint8Array, offset: number): boolean => {
      if (this.watch.stalls.some((stall) => stall.operation === 'write' && stall.path.test(path))) return false;
      const done = before!(from, offset);
      if (done) for (const mark of ['>', '.']) this.watch.note(`write${mark} ${path}`);
      return done;
    };
    return Object.assign(disk, { writeNow });
  }

  #watchedCatalog(): Catalog {
    const { catalog, watch } = this;
    return faultyCatalog({
      vms: { ...catalog.vms, put: (vm) => {
        catalog.vms.put(vm);
        watch.note(`catalog mode=${vm.tracking?.mode ?? 'none'} mapTrusted=${vm.tracking?.mapTrusted ?? 'none'}`);
      } },
      epochs: { ...catalog.epochs, put: (epoch) => {
        catalog.epochs.put(epoch);
        watch.note(`catalog epoch ${epoch.epoch} ${epoch.status}`);
      } },
      relationships: catalog.relationships, inbox: catalog.inbox, points: catalog.points, authorizations: catalog.authorizations,
      cycles: catalog.cycles, extended: catalog.extended,
      transaction: (work) => catalog.transaction(work), lazyTransaction: (work) => catalog.lazyTransaction(work),
      vmByName: (name) => catalog.vmByName(name), addEvent: (event) => catalog.addEvent(event),
      events: (filter) => catalog.events(filter), value: (key) => catalog.value(key), setValue: (key, value) => catalog.setValue(key, value),
      close: () => catalog.close(),
    }, () => this.catalogFault);
  }
}

async function applyTo(disk: Uint8Array, files: Files, path: string): Promise<void> {
  const reader = await openLog(files, path, { diskSize: DISK_BYTES });
  for await (const entry of reader.entries()) {
    const target = disk.subarray(entry.offset, entry.offset + entry.length);
    if (entry.op === 'zero') target.fill(0);
    else await reader.readData(entry, target, 0);
  }
  await reader.close();
}
