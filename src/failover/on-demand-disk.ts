/**
 * A plain disk that is opened when somebody uses it, and let go when nobody does: so a failed-over disk can be served, and is a file
 * that another program may open, by turns. Its lock keeps the two apart.
 */
import type { Extent, Seal, VirtualDisk } from '../disk/virtual-disk.ts';
import type { DiskRecord } from '../model/records.ts';

export class OnDemandDisk implements VirtualDisk {
  readonly location: string;
  readonly format = 'raw' as const;
  readonly variant = 'fixed' as const;
  readonly virtualSize: number;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize = 4096;
  readonly geometry = null;
  readonly readOnly = false;
  readonly discardReadsZero = true;
  #open: () => Promise<VirtualDisk>;
  #opened: Promise<VirtualDisk> | null;
  /** Being let go: its lock must be gone before the file is opened again. */
  #releasing: Promise<void> = Promise.resolve();

  /** `opened`: it is open already. `size`: what guests see of it, also when the file is larger. */
  constructor(open: () => Promise<VirtualDisk>, record: DiskRecord, size: number, opened?: VirtualDisk) {
    this.#open = open;
    this.#opened = opened === undefined ? null : Promise.resolve(opened);
    this.location = record.path;
    this.virtualSize = size;
    this.logicalSectorSize = record.logicalSectorSize;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    await (await this.#disk()).read(into, offset);
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    await (await this.#disk()).write(from, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    await (await this.#disk()).zero(offset, length);
  }

  async discard(offset: number, length: number): Promise<void> {
    await (await this.#disk()).discard(offset, length);
  }

  async flush(): Promise<void> {
    // What is not open was flushed when it was let go.
    if (this.#opened === null) await this.#releasing;
    else await (await this.#opened).flush();
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    yield* (await this.#disk()).extents(offset, length);
  }

  async seal(): Promise<Seal> {
    return (await this.#disk()).seal();
  }

  /** Flushes and closes it; the next use opens it again. Only when no operation is under way. */
  release(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    if (opened === null) return this.#releasing;
    const released = opened.then(async (disk) => {
      try {
        await disk.flush();
      } finally {
        await disk.close();
      }
    });
    this.#releasing = released.catch(() => undefined);
    return released;
  }

  close(): Promise<void> {
    return this.release();
  }

  #disk(): Promise<VirtualDisk> {
    if (this.#opened === null) {
      const opening = this.#releasing.then(() => this.#open());
      this.#opened = opening;
      opening.catch(() => {
        if (this.#opened === opening) this.#opened = null;
      });
    }
    return this.#opened;
  }
}
