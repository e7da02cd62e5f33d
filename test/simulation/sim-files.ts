/**
 * A simulated volume. The page cache survives a process crash; a machine crash keeps, loses or tears every 512-byte sector
 * that was
 * not synced, and forgets creations, renames and removals that no folder sync has made durable.
 */
import type { Files, FileStat, OpenFile } from '../../src/model/ports.ts';
import { EPOCH_MS, type Life, type Scheduler } from './scheduler.ts';

const SECTOR = 512;
/** Longest time one operation takes, ms. */
const OPERATION_MS = 2;

/** How much of what was not synced a power loss leaves. */
export type CacheLoss = 'all' | 'none' | 'some';

class Inode {
  readonly number: number;
  data = new Uint8Array(0);
  size = 0;
  durable = new Uint8Array(0);
  durableSize = 0;
  dirty = new Set<number>();
  mtime = 0;
  /** `data`, or `durable`, is also somebody else's: copied before the next change. */
  #shared = false;
  #durableShared = false;
  /** The smallest size since the last sync: what lay behind it was cut off. */
  #cut = Infinity;

  constructor(number: number) {
    this.number = number;
  }

  write(bytes: Uint8Array, position: number, now: number): void {
    this.#own(position + bytes.length);
    this.data.set(bytes, position);
    const end = position + bytes.length;
    for (let sector = Math.floor(position / SECTOR); sector * SECTOR < end; sector++) this.dirty.add(sector);
    this.size = Math.max(this.size, end);
    this.mtime = now;
  }

  resize(size: number, now: number): void {
    this.#own(size);
    this.data.fill(0, size);
    this.#cut = Math.min(this.#cut, size);
    this.size = size;
    this.mtime = now;
  }

  /** Copies no more than what has changed: an image of some MiB is synced after every few sectors. */
  sync(): void {
    this.durable = grown(this.durable, this.size, this.#durableShared);
    this.#durableShared = false;
    if (this.#cut < this.durable.length) this.durable.fill(0, this.#cut);
    for (const sector of this.dirty) {
      if (sector * SECTOR < this.size) this.durable.set(this.data.subarray(sector * SECTOR, Math.min((sector + 1) * SECTOR, this.size)), sector * SECTOR);
    }
    this.#cut = Infinity;
    this.durableSize = this.size;
    this.dirty.clear();
  }

  copy(): Inode {
    const copy = new Inode(this.number);
    this.#shared = copy.#shared = this.#durableShared = copy.#durableShared = true;
    [copy.data, copy.durable, copy.#cut] = [this.data, this.durable, this.#cut];
    copy.dirty = new Set(this.dirty);
    ({ size: copy.size, durableSize: copy.durableSize, mtime: copy.mtime } = this);
    return copy;
  }

  /** What a power loss leaves. */
  loseCache(scheduler: Scheduler, wanted: CacheLoss | null): void {
    const { dice } = scheduler;
    const kept = new Uint8Array(Math.max(this.data.length, this.durable.length));
    kept.set(this.durable);
    const mood = wanted ?? dice.pick(['all', 'none', 'some'] as const);
    for (const sector of this.dirty) {
      if (mood === 'none' || (mood === 'some' && dice.chance(0.5))) continue;
      const from = sector * SECTOR;
      kept.set(this.data.subarray(from, from + SECTOR), from);
    }
    const size = dice.chance(0.5) ? this.size : this.durableSize;
    kept.fill(0, size);
    this.data = this.durable = kept;
    this.#shared = this.#durableShared = true;
    this.size = this.durableSize = size;
    this.#cut = Infinity;
    this.dirty.clear();
  }

  #own(size: number): void {
    this.data = grown(this.data, size, this.#shared);
    this.#shared = false;
  }
}

/** The same bytes with room for `size`, and nobody else's. */
function grown(bytes: Uint8Array<ArrayBuffer>, size: number, shared: boolean): Uint8Array<ArrayBuffer> {
  if (size <= bytes.length) return shared ? bytes.slice() : bytes;
  const larger = new Uint8Array(Math.max(size, bytes.length * 2, 4096));
  larger.set(bytes);
  return larger;
}

export class SimVolume {
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  readonly scheduler: Scheduler;
  #inodes = 0;
  /** How often something has changed that a crash could find half done: a write, a sync, a name. */
  steps = 0;
  /** Bytes that may still be written; then ENOSPC. */
  freeBytes = Number.MAX_SAFE_INTEGER;
  /** Writes and reads to paths that match fail with this errno. */
  fault: { path: RegExp; operation: 'write' | 'read' | 'datasync'; errno: string } | null = null;

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
  }

  /** The same volume in another world: what happens there is not seen here. */
  copy(scheduler: Scheduler): SimVolume {
    const copy = new SimVolume(scheduler);
    const inodes = new Map<Inode, Inode>();
    const copied = (inode: Inode) => inodes.get(inode) ?? inodes.set(inode, inode.copy()).get(inode)!;
    copy.#names = new Map([...this.#names].map(([path, inode]) => [path, copied(inode)]));
    copy.#durableNames = new Map([...this.#durableNames].map(([path, inode]) => [path, copied(inode)]));
    copy.#inodes = this.#inodes;
    return copy;
  }

  /** `kept`: how much of what was not synced; default: by the dice. */
  loseCache(kept: CacheLoss | null = null): void {
    const { dice } = this.scheduler;
    const folders = new Set([...this.#names.keys(), ...this.#durableNames.keys()].map(folderOf));
    const after = new Map<string, Inode>();
    for (const folder of folders) {
      const names = (kept === null ? dice.chance(0.5) : kept !== 'none') ? this.#names : this.#durableNames;
      for (const [path, inode] of names) if (folderOf(path) === folder) after.set(path, inode);
    }
    for (const inode of new Set(after.values())) inode.loseCache(this.scheduler, kept);
    this.#names = after;
    this.#durableNames = new Map(after);
  }

  /** The bytes a reader sees now; for oracles. */
  contents(path: string): Uint8Array {
    const inode = this.#names.get(path);
    if (inode === undefined) throw fail('ENOENT', path);
    return inode.data.slice(0, inode.size);
  }

  exists(path: string): boolean {
    return this.#names.has(path);
  }

  /** Changes a file behind everybody's back. */
  edit(path: string, bytes: Uint8Array, position: number): void {
    this.steps++;
    this.#names.get(path)!.write(bytes, position, this.scheduler.now);
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  makeFile(path: string, contents: Uint8Array): void {
    const inode = new Inode(++this.#inodes);
    inode.write(contents, 0, this.scheduler.now);
    inode.sync();
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  /** The volume as one process sees it. */
  mount(life: Life): Files {
    const later = <T>(work: () => T): Promise<T> => new Promise((resolve, reject) => {
      this.scheduler.soon(OPERATION_MS, life, () => {
        try {
          resolve(work());
        } catch (error) {
          reject(error as Error);
        }
      });
    });
    const step = <T>(work: () => T): Promise<T> => later(() => {
      this.steps++;
      return work();
    });
    return {
      open: (path, mode) => (mode === 'create' ? step : later)(() => this.#openFile(path, mode, later, step)),
      rename: (from, to) => step(() => {
        const inode = this.#names.get(from);
        if (inode === undefined) throw fail('ENOENT', from);
        this.#names.delete(from);
        this.#names.set(to, inode);
      }),
      remove: (path) => step(() => void this.#names.delete(path)),
      makeFolder: () => later(() => undefined),
      list: (path) => later(() => this.paths().filter((name) => folderOf(name) === path).map((name) => name.slice(path.length + 1))),
      stat: (path) => later(() => this.statOf(path)),
      syncFolder: (path) => step(() => {
        for (const name of this.#durableNames.keys()) if (folderOf(name) === path) this.#durableNames.delete(name);
        for (const [name, inode] of this.#names) if (folderOf(name) === path) this.#durableNames.set(name, inode);
      }),
      freeBytes: () => later(() => this.freeBytes),
    };
  }

  statOf(path: string): FileStat | null {
    const inode = this.#names.get(path);
    if (inode === undefined) {
      const isFolder = this.paths().some((name) => folderOf(name) === path);
      return isFolder ? { kind: 'folder', size: 0, allocated: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, device: 1n } : null;
    }
    const mtimeNs = BigInt(Math.floor((EPOCH_MS + inode.mtime) * 1000)) * 1000n;
    return { kind: 'file', size: inode.size, allocated: inode.size, mtimeNs, ctimeNs: mtimeNs, inode: BigInt(inode.number), device: 1n };
  }

  #openFile(path: string, mode: 'read' | 'write' | 'create', later: Later, step: Later): OpenFile {
    let inode = this.#names.get(path);
    if (mode === 'create') {
      if (inode !== undefined) throw fail('EEXIST', path);
      this.#names.set(path, (inode = new Inode(++this.#inodes)));
    } else if (inode === undefined) throw fail('ENOENT', path);
    const file = inode;
    const check = (operation: 'write' | 'read' | 'datasync') => {
      if (this.fault !== null && this.fault.operation === operation && this.fault.path.test(path)) throw fail(this.fault.errno, path);
    };
    return {
      path,
      read: (into, position) => later(() => {
        check('read');
        const count = Math.max(0, Math.min(into.length, file.size - position));
        into.set(file.data.subarray(position, position + count));
        return count;
      }),
      write: (buffers, position) => step(() => {
        check('write');
        let at = position;
        for (const bytes of buffers) {
          const growth = Math.max(0, at + bytes.length - file.size);
          if (growth > this.freeBytes) throw fail('ENOSPC', path);
          this.freeBytes -= growth;
          file.write(bytes, at, this.scheduler.now);
          at += bytes.length;
        }
      }),
      datasync: () => step(() => {
        check('datasync');
        file.sync();
      }),
      truncate: (size) => step(() => file.resize(size, this.scheduler.now)),
      size: () => later(() => file.size),
      close: () => later(() => undefined),
    };
  }
}

type Later = <T>(work: () => T) => Promise<T>;

const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'));

function fail(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
