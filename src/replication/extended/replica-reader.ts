/**
 * Reading a replica's disks while sets of logs are applied to them. A raw file is simply read: what changes under the reader is in a
 * later set. A VHD or VHDX is opened whole, or not at all: so it is read in windows of bounded length with apply held back (R15), and
 * between two windows apply gets its turn.
 */
import type { Extent, Seal, VirtualDisk } from '../../disk/virtual-disk.ts';
import type { DiskRecord } from '../../model/records.ts';
import type { ReplicaVm } from '../replica-vm.ts';
import type { ReplicationPorts } from '../replication-ports.ts';

/** Longest time that apply is held back for a reader. */
const WINDOW_MS = 500;
/** Extents are told so far at once. */
const LOOK_BYTES = 1 << 30;

interface Window {
  disks: Map<string, Promise<VirtualDisk>>;
  readers: number;
  over: boolean;
  ended: Promise<void>;
  end: () => void;
}

/** The windows of one VM; all its disks share them. */
export class ReadWindows {
  #ports: Pick<ReplicationPorts, 'clock' | 'openDiskForReading'>;
  #replica: ReplicaVm;
  #window: Promise<Window> | null = null;

  constructor(ports: Pick<ReplicationPorts, 'clock' | 'openDiskForReading'>, replica: ReplicaVm) {
    this.#ports = ports;
    this.#replica = replica;
  }

  async read<T>(disk: DiskRecord, work: (opened: VirtualDisk) => Promise<T>): Promise<T> {
    const window = await this.#enter();
    try {
      let opened = window.disks.get(disk.diskId);
      if (opened === undefined) window.disks.set(disk.diskId, (opened = this.#ports.openDiskForReading(disk)));
      return await work(await opened);
    } finally {
      window.readers--;
      if (window.over && window.readers === 0) window.end();
    }
  }

  async #enter(): Promise<Window> {
    for (;;) {
      const window = await (this.#window ??= this.#open());
      if (!window.over) {
        window.readers++;
        return window;
      }
      await window.ended;
    }
  }

  async #open(): Promise<Window> {
    const release = await this.#replica.pin('a reader');
    const { promise, resolve } = Promise.withResolvers<void>();
    const window: Window = { disks: new Map(), readers: 0, over: false, ended: promise.then(() => this.#close(window, release)), end: resolve };
    void this.#ports.clock.sleep(WINDOW_MS).catch(() => undefined).then(() => {
      window.over = true;
      if (window.readers === 0) resolve();
    });
    return window;
  }

  async #close(window: Window, release: () => void): Promise<void> {
    for (const disk of window.disks.values()) await disk.then((opened) => opened.close()).catch(() => undefined);
    release();
    const [next] = this.#replica.inbox.waiting();
    if (next !== undefined) await this.#replica.applyUntil(([oldest]) => oldest === undefined || oldest.epoch > next.epoch);
    this.#window = null;
  }
}

/** One replica disk, read-only. */
export class ReplicaReader implements VirtualDisk {
  readonly location: string;
  readonly format;
  readonly variant;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize = 4096;
  readonly geometry;
  readonly readOnly = true;
  readonly discardReadsZero = false;
  #ports: Pick<ReplicationPorts, 'openDiskForReading'>;
  #record: () => DiskRecord;
  #windows: ReadWindows | null;
  #opened: Promise<VirtualDisk> | null = null;

  /** `record`: as it is now, as the disk may grow. */
  constructor(ports: Pick<ReplicationPorts, 'openDiskForReading'>, record: () => DiskRecord, windows: ReadWindows) {
    const { path, format, logicalSectorSize, geometry } = record();
    this.#ports = ports;
    this.#record = record;
    this.#windows = format === 'raw' ? null : windows;
    this.location = path;
    this.format = format as VirtualDisk['format'];
    this.variant = format === 'raw' ? ('fixed' as const) : ('dynamic' as const);
    this.logicalSectorSize = logicalSectorSize;
    this.geometry = geometry;
  }

  get virtualSize(): number {
    return this.#record().virtualSize;
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#with((disk) => disk.read(into, offset));
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    for (let at = offset; at < offset + length; at += LOOK_BYTES) {
      const found: Extent[] = [];
      await this.#with(async (disk) => {
        for await (const extent of disk.extents(at, Math.min(LOOK_BYTES, offset + length - at))) found.push(extent);
      });
      yield* found;
    }
  }

  seal(): Promise<Seal> {
    return this.#with((disk) => disk.seal());
  }

  write(): Promise<void> {
    return Promise.reject(new Error(`${this.location} is open for reading`));
  }

  zero(): Promise<void> {
    return this.write();
  }

  discard(): Promise<void> {
    return this.write();
  }

  async flush(): Promise<void> {}

  /** What is opened next is what lies at the path then. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    await opened?.then((disk) => disk.close()).catch(() => undefined);
  }

  async #with<T>(work: (disk: VirtualDisk) => Promise<T>): Promise<T> {
    const record = this.#record();
    if (this.#windows !== null) return this.#windows.read(record, work);
    const opened = await (this.#opened ??= this.#ports.openDiskForReading(record));
    // It has grown since it was opened.
    if (opened.virtualSize >= record.virtualSize) return work(opened);
    await this.close();
    return work(await (this.#opened ??= this.#ports.openDiskForReading(record)));
  }
}
