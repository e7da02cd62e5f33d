/**
 * Files in memory for the tests of this folder, with the semantics of a process crash: what a write has put into the page cache stays,
 * in whatever part it got there. Nothing here survives a machine crash, and no test of an open log needs it to.
 */
import { basename, dirname } from 'node:path';
import type { Files, FileStat, OpenFile } from '../model/ports.ts';

/** Decides how much of a write happens: all when undefined, else that many bytes and then the errno, or for ever nothing ('hang'). */
export type WriteFate = { bytes: number; then: 'hang' | 'ENOSPC' | 'EIO' } | undefined;

export class MemoryFiles implements Files {
  readonly contents = new Map<string, Buffer>();
  writes = 0;
  syncs = 0;
  /** Called before each write; `count` counts all writes from 0. */
  fate: (path: string, bytes: number, count: number) => WriteFate = () => undefined;
  /** Errors by operation and path, for everything but `write`. */
  readonly errors = new Map<`${'remove' | 'datasync' | 'open'} ${string}`, string>();
  openFiles = 0;

  /** What another process finds after this one died: the bytes, nothing else. */
  afterCrash(): MemoryFiles {
    const copy = new MemoryFiles();
    for (const [path, bytes] of this.contents) copy.contents.set(path, Buffer.from(bytes));
    return copy;
  }

  read(path: string): Buffer {
    const bytes = this.contents.get(path);
    if (bytes === undefined) throw failure('ENOENT', path);
    return bytes;
  }

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile> {
    this.#check(`open ${path}`);
    if (mode === 'create') {
      if (this.contents.has(path)) throw failure('EEXIST', path);
      this.contents.set(path, Buffer.alloc(0));
    }
    const inode = { bytes: this.read(path) };
    this.openFiles += 1;
    return new MemoryFile(this, path, inode);
  }

  async rename(from: string, to: string): Promise<void> {
    this.contents.set(to, this.read(from));
    this.contents.delete(from);
  }

  async remove(path: string): Promise<void> {
    this.#check(`remove ${path}`);
    this.contents.delete(path);
  }

  async makeFolder(): Promise<void> {}

  async list(path: string): Promise<string[]> {
    return [...this.contents.keys()].filter((name) => dirname(name) === path).map((name) => basename(name)).sort();
  }

  async stat(path: string): Promise<FileStat | null> {
    const size = this.contents.get(path)?.length;
    return size === undefined ? null : { kind: 'file', size, allocated: size, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, device: 0n };
  }

  async syncFolder(): Promise<void> {}

  async freeBytes(): Promise<number> {
    return Number.MAX_SAFE_INTEGER;
  }

  datasync(path: string): void {
    this.syncs += 1;
    this.#check(`datasync ${path}`);
  }

  #check(operation: `${'remove' | 'datasync' | 'open'} ${string}`): void {
    const errno = this.errors.get(operation);
    if (errno !== undefined) throw failure(errno, operation);
  }
}

class MemoryFile implements OpenFile {
  readonly path: string;
  readonly #files: MemoryFiles;
  #closed = false;

  constructor(files: MemoryFiles, path: string, _inode: unknown) {
    this.#files = files;
    this.path = path;
  }
}

function failure(errno: string, what: string): Error {
  return Object.assign(new Error(`${errno}: ${what}`), { code: errno });
}
