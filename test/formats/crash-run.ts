import assert from 'node:assert/strict';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { CrashFiles } from './crash-files.ts';
import type { CrashMode, SparseBytes } from './crash-files.ts';
import type { Seeded } from './seeded.ts';

/**
 * Power cuts over a workload whose every sector carries the number of the write that made it. After a cut each sector must
 * hold what the last acknowledged flush made durable, or a later write; never less, never anything else.
 */
export class StampedRun {
  readonly #disk: VirtualDisk;
  readonly #files: CrashFiles;
  readonly #now: Uint32Array;
  readonly #snapshots: Uint32Array[] = [];
  readonly #history = new Map<number, { step: number; stamp: number }[]>();
  readonly #stampAt: number[] = [];
  #step = 0;

  /** `start`: the stamps that the disk holds already. */
  constructor(disk: VirtualDisk, files: CrashFiles, start?: Uint32Array) {
    this.#disk = disk;
    this.#files = files;
    this.#now = start ?? new Uint32Array(disk.virtualSize / 512);
    this.#acknowledge();
  }

  get stamps(): Uint32Array {
    return this.#now;
  }

  #acknowledge(): void {
    this.#snapshots.push(Uint32Array.from(this.#now));
    this.#stampAt.push(this.#step);
    this.#files.mark(this.#snapshots.length - 1);
  }

  async run(random: Seeded, steps: number, stampBase = 0): Promise<void> {
    const sectors = this.#now.length;
    for (let index = 0; index < steps; index++) {
      this.#step += 1;
      const dice = random.next();
      if (dice < 0.3) {
        await this.#disk.flush();
        this.#acknowledge();
        continue;
      }
      const count = Math.min(sectors, random.pick([1, 2, 8, random.integer(1, 600), random.integer(1, 4000)]));
      const first = random.integer(0, sectors - count);
      const stamp = dice < 0.8 ? stampBase + this.#step : 0;
      for (let sector = first; sector < first + count; sector++) {
        this.#now[sector] = stamp;
        const list = this.#history.get(sector);
        if (list === undefined) this.#history.set(sector, [{ step: this.#step, stamp }]);
        else list.push({ step: this.#step, stamp });
      }
      if (stamp === 0) await this.#disk.zero(first * 512, count * 512);
      else await this.#disk.write(stamped(count, stamp), first * 512);
    }
    await this.#disk.flush();
    this.#acknowledge();
  }

  async assertConsistent(disk: VirtualDisk, mark: number, what: string): Promise<void> {
    const acknowledged = this.#snapshots[mark]!;
    const since = this.#stampAt[mark]!;
    const bytes = Buffer.alloc(disk.virtualSize);
    await disk.read(bytes, 0);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let sector = 0; sector < acknowledged.length; sector++) {
      const stamp = words[sector * 128]!;
      for (let index = sector * 128; index < sector * 128 + 128; index++) {
        if (words[index] !== stamp) assert.fail(`${what}: sector ${sector} is torn inside`);
      }
      if (stamp === acknowledged[sector]) continue;
      const later = this.#history.get(sector)?.some((one) => one.step > since && one.stamp === stamp);
      assert.ok(later, `${what}: sector ${sector} holds ${stamp}, acknowledged was ${acknowledged[sector]}`);
    }
  }
}

export function stamped(count: number, stamp: number): Buffer {
  const words = new Uint32Array(count * 128).fill(stamp);
  return Buffer.from(words.buffer);
}

export function crashModes(random: Seeded): CrashMode[] {
  return [
    { kind: 'kept' },
    { kind: 'lost' },
    { kind: 'newest' },
    { kind: 'mixed', coin: random.coin },
    { kind: 'torn', coin: random.coin },
  ];
}

export function snapshotOf(files: CrashFiles): Map<string, SparseBytes> {
  return new Map([...files.contents].map(([path, content]) => [path, content.copy()]));
}
