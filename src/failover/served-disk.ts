/**
 * The disk that guests see, over one that changes while they use it: first a diff disk over an instant, in the end a plain file. Requests
 * wait while it is changed, which takes as long as the requests under way and the change itself.
 */
import type { Extent, VirtualDisk } from '../disk/virtual-disk.ts';
import type { ServedDisk as Exported } from '../nbd/export.ts';

export class ServedDisk implements Exported {
  readonly virtualSize: number;
  readonly readOnly = false;
  #current: VirtualDisk;
  #gate: Promise<void> | null = null;
  #underWay = 0;
  #idle = Promise.withResolvers<void>();

  constructor(first: VirtualDisk) {
    this.#current = first;
    this.virtualSize = first.virtualSize;
  }

  get current(): VirtualDisk {
    return this.#current;
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#through((disk) => disk.read(into, offset));
  }

  write(from: Uint8Array, offset: number): Promise<void> {
    return this.#through((disk) => disk.write(from, offset));
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#through((disk) => disk.zero(offset, length));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#through((disk) => disk.discard(offset, length));
  }

  flush(): Promise<void> {
    return this.#through((disk) => disk.flush());
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    const { disk, done } = await this.#enter();
    try {
      yield* disk.extents(offset, length);
    } finally {
      done();
    }
  }

  /** Holds requests back, waits for those under way, and goes on over what `next` returns; over the same when it rejects. */
  async changeTo(next: (current: VirtualDisk) => Promise<VirtualDisk>): Promise<void> {
    while (this.#gate !== null) await this.#gate;
    const gate = Promise.withResolvers<void>();
    this.#gate = gate.promise;
    try {
      while (this.#underWay > 0) {
        this.#idle = Promise.withResolvers<void>();
        await this.#idle.promise;
      }
      this.#current = await next(this.#current);
    } finally {
      this.#gate = null;
      gate.resolve();
    }
  }

  async close(): Promise<void> {
    await this.#current.flush();
    await this.#current.close();
  }

  async #through<T>(work: (disk: VirtualDisk) => Promise<T>): Promise<T> {
    const { disk, done } = await this.#enter();
    try {
      return await work(disk);
    } finally {
      done();
    }
  }

  async #enter(): Promise<{ disk: VirtualDisk; done: () => void }> {
    while (this.#gate !== null) await this.#gate;
    this.#underWay++;
    return { disk: this.#current, done: () => {
      if (--this.#underWay === 0) this.#idle.resolve();
    } };
  }
}
