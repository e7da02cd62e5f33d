/**
 * A diff disk over a VHD or VHDX as what Hyper-V has for it: a differencing image (`.avhd`, `.avhdx`) beside the base, which any reader
 * of the format can open and merge.
 *
 * Invariants
 * - The file has its name only when it is whole: a crash while it is made leaves nothing.
 * - A VHDX child names the contents of its base by their GUID, so a base that somebody writes is noticed. Before a merge writes to the base
 *   the child is told the GUID that the base gets (src/disk/vhdx/merge.ts has the order); so whatever stops a merge, the child accepts
 *   the base, and child over base reads as before.
 * - While it merges, sectors that the child has are read from the child, and blocks of the base that hold others stay where they are: who
 *   has opened child over base before goes on reading the same.
 */
import { UnderstudyError } from '../model/errors.ts';
import type { Clock, Files, Random } from '../model/ports.ts';
import { diffDiskMissing, openDiffDisk, PAGE_BYTES, type DiffDisk, type MergeRun, type MergeTarget } from './diff-disk.ts';
import { hostClock, hostRandom } from './host-clock.ts';
import { createVhd } from './vhd/create.ts';
import { copyOwnRuns } from './vhd/merge-runs.ts';
import { openVhd } from './vhd/open.ts';
import { SparseDisk } from './vhd/sparse-disk.ts';
import type { DiskFormat, Extent, Geometry, LentRuns, Seal, VirtualDisk } from './virtual-disk.ts';
import { createVhdx } from './vhdx/create.ts';
import { promiseIdentity } from './vhdx/merge.ts';
import { openVhdx } from './vhdx/open.ts';

const DIFFERENCING_ENDS = { vhd: '.avhd', vhdx: '.avhdx' } as const;

/** Makes the GUIDs and times of new files; tests hand in their own. */
export interface ImageMaker {
  random: Random;
  clock: Pick<Clock, 'now'>;
}

const HOST: ImageMaker = { random: hostRandom, clock: hostClock };

type Family = keyof typeof DIFFERENCING_ENDS;

/** A base that a differencing image can name: a VHD or VHDX of its own, not a view over several files. */
function namableBase(base: VirtualDisk): base is SparseDisk {
  return base instanceof SparseDisk && base.variant !== 'differencing';
}

export interface OpenDiffOptions {
  /** Nothing will be written or merged. */
  readOnly?: boolean;
  /** What it holds counts already: DIFF_DISK_MISSING when it is gone. */
  mustExist?: boolean;
  maker?: ImageMaker;
}

/**
 * The diff disk at `path` in the form that its base asks for: a differencing image at PATH.avhd or PATH.avhdx over a VHD or VHDX, else the
 * plain one (diff-disk.ts). What was begun in one form goes on in it. The base belongs to it from here on.
 * @throws DIFF_DISK_DAMAGED, DIFF_DISK_MISSING
 */
export async function openDiffDiskFor(files: Files, path: string, base: VirtualDisk, options: OpenDiffOptions = {}): Promise<DiffDisk> {
  const plain = !namableBase(base) || (await files.stat(`${path}.map`)) !== null;
  return plain ? openDiffDisk(files, path, base, options) : openDifferencing(files, path, base, options);
}

async function openDifferencing(
  files: Files, path: string, base: SparseDisk, { readOnly = false, mustExist = false, maker = HOST }: OpenDiffOptions,
): Promise<DiffDisk> {
  const family = base.format as Family;
  const child = `${path}${DIFFERENCING_ENDS[family]}`;
  if ((await files.stat(child)) === null) {
    if (mustExist) throw diffDiskMissing(child);
    await make(files, child, family, base, maker);
  }
  const open = (forReading: boolean): Promise<SparseDisk> => opened(files, child, family, forReading, maker);
  return new DifferencingDiff(await open(readOnly), base, {
    reopen: () => open(true),
    promise: family === 'vhdx' ? () => promiseIdentity(child, base.location, files, maker.random) : null,
  });
}

async function make(files: Files, child: string, family: Family, base: SparseDisk, { random, clock }: ImageMaker): Promise<void> {
  const fresh = `${child}.new`;
  await files.remove(fresh);
  const options = { variant: 'differencing', parent: base.location, random } as const;
  if (family === 'vhd') await createVhd(fresh, files, { ...options, clock });
  else await createVhdx(fresh, files, options);
  await files.rename(fresh, child);
  await files.syncFolder(child.slice(0, child.lastIndexOf('/')));
}

async function opened(files: Files, child: string, family: Family, readOnly: boolean, { random }: ImageMaker): Promise<SparseDisk> {
  try {
    return family === 'vhd' ? await openVhd(child, files, { readOnly }) : await openVhdx(child, files, { readOnly, random });
  } catch (cause) {
    if (!(cause instanceof UnderstudyError) || !cause.code.startsWith('DISK_')) throw cause;
    throw new UnderstudyError('io', 'DIFF_DISK_DAMAGED', `the diff disk ${child} cannot be used: ${cause.message}`,
      'Cancel the resynchronization or failover that it is of, and start it again: nothing but a merge writes the base.', { cause });
  }
}

interface ChildFile {
  /** Opens the child again, for reading. */
  reopen(): Promise<SparseDisk>;
  /** Tells the child what its base will be called; null where bases have no such mark. The child is closed. */
  promise: (() => Promise<string>) | null;
}

class DifferencingDiff implements DiffDisk {
  readonly variant = 'differencing' as const;
  readonly discardReadsZero = true;
  readonly location: string;
  readonly format: DiskFormat;
  readonly readOnly: boolean;
  readonly virtualSize: number;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  readonly geometry: Geometry | null;
  readonly #base: SparseDisk;
  readonly #file: ChildFile;
  #child: SparseDisk;

  constructor(child: SparseDisk, base: SparseDisk, file: ChildFile) {
    this.#child = child;
    this.#base = base;
    this.#file = file;
    ({ location: this.location, format: this.format, readOnly: this.readOnly, virtualSize: this.virtualSize, geometry: this.geometry,
      logicalSectorSize: this.logicalSectorSize, physicalSectorSize: this.physicalSectorSize } = child);
  }

  get heldBytes(): number {
    return this.#child.storedBytes;
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#child.read(into, offset);
  }

  write(from: Uint8Array, offset: number): Promise<void> {
    return this.#child.write(from, offset);
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#child.zero(offset, length);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#child.zero(offset, length);
  }

  flush(): Promise<void> {
    return this.#child.flush();
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    return this.#child.extents(offset, length);
  }

  /** Whole pages, since others keep what it overwrites by the page. */
  async *runs(offset: number, length: number): AsyncGenerator<{ offset: number; length: number; held: boolean }> {
    const end = offset + length;
    let done = offset;
    for await (const run of this.#child.runs(offset, length)) {
      if (run.from === 'parent') continue;
      const from = Math.max(done, Math.floor(run.offset / PAGE_BYTES) * PAGE_BYTES);
      const to = Math.min(end, Math.ceil((run.offset + run.length) / PAGE_BYTES) * PAGE_BYTES);
      if (to <= from) continue;
      if (from > done) yield { offset: done, length: from - done, held: false };
      yield { offset: from, length: to - from, held: true };
      done = to;
    }
    if (done < end) yield { offset: done, length: end - done, held: false };
  }

  get lentFiles(): readonly string[] {
    return this.#child.lentFiles;
  }

  lend(offset: number, length: number): Promise<LentRuns> {
    return this.#child.lend(offset, length);
  }

  serveGuest(leave: () => Promise<void> | null): void {
    this.#child.serveGuest(leave);
  }

  async seal(): Promise<Seal> {
    return { kind: 'none', reason: 'a diff disk changes while it is used' };
  }

  async close(): Promise<void> {
    try {
      await this.#child.close();
    } finally {
      await this.#base.close();
    }
  }

  async merge(into: MergeTarget, { signal, onProgress, exclusive = (work) => work() }: MergeRun): Promise<void> {
    if (this.#base.readOnly) throw new TypeError(`${this.location} is merged through a base that is open for writing`);
    await exclusive(() => this.#prepare());
    const total = this.heldBytes;
    let merged = 0;
    const count = (length: number) => onProgress?.((merged = Math.min(total, merged + length)));
    await copyOwnRuns(this.#child, {
      write: async (from, offset) => {
        await exclusive(() => into.write(from, offset));
        count(from.length);
      },
      zero: async (offset, length) => {
        await exclusive(() => into.zero(offset, length));
        count(length);
      },
    }, signal === undefined ? {} : { signal });
    await exclusive(() => into.flush());
  }

  async #prepare(): Promise<void> {
    const { promise, reopen } = this.#file;
    await this.#child.close();
    if (promise !== null) await this.#base.beginAs(await promise());
    this.#child = await reopen();
  }
}
