/**
 * Files in memory for the tests of this folder, with the semantics of a process crash: what a write has put into the
 * page cache stays, in whatever part it got there. A machine crash is not modelled: no open log is trusted after one
 * (R11).
 */
import { basename, dirname } from 'node:path';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import type { Compute, Files, FileStat, OpenFile } from '../model/ports.ts';
import type { LogPorts } from './closed-log.ts';

/**
 * What becomes of one write: undefined is all of it; else the first `bytes` get there, then it fails or never
 * returns.
 */
export type WriteFate = { bytes: number; then: 'ENOSPC' | 'EIO' | 'hang' } | undefined;
type Operation = 'open' | 'read' | 'remove' | 'datasync' | 'syncFolder';

interface Inode {
  /** Tells files apart, as `stat` does. */
  number: bigint;
  bytes: Buffer;
  size: number;
}

export class MemoryFiles implements Files {
  readonly inodes = new Map<string, Inode>();
  /** Asked before each write; `count` numbers all writes from 0. */
  fate: (write: { path: string; length: number; count: number }) => WriteFate = () => undefined;
  /** Errnos by operation and path, for everything but `write`. */
  readonly errors = new Map<`${Operation} ${string}`, string>();
  /** What was asked for beside reads and writes, in order. */
  readonly asked: string[] = [];
  writes = 0;
  openFiles = 0;
  #numbers = 0n;

  /** What another process finds after this one died. */
  afterCrash(): MemoryFiles {
    const copy = new MemoryFiles();
    for (const path of this.inodes.keys()) copy.put(path, this.get(path));
    return copy;
  }

  /** A copy of the file's bytes. */
  get(path: string): Buffer {
    const { bytes, size } = this.inode(path);
    return Buffer.from(bytes.subarray(0, size));
  }

  put(path: string, bytes: Uint8Array): void {
    this.give(path, Buffer.from(bytes));
  }

  /** As `put`, with the bytes themselves and not a copy: nobody else changes them from here on. */
  give(path: string, bytes: Buffer): void {
    this.inodes.set(path, { number: (this.#numbers += 1n), bytes, size: bytes.length });
  }

  inode(path: string): Inode {
    const inode = this.inodes.get(path);
    if (inode === undefined) throw systemError('ENOENT', path);
    return inode;
  }

  refuse(operation: Operation, path: string): void {
    if (operation !== 'read') this.asked.push(`${operation} ${path}`);
    const errno = this.errors.get(`${operation} ${path}`);
    if (errno !== undefined) throw systemError(errno, `${operation} ${path}`);
  }

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile> {
    this.refuse('open', path);
    if (mode === 'create') {
      if (this.inodes.has(path)) throw systemError('EEXIST', path);
      this.put(path, new Uint8Array());
    }
    const inode = this.inode(path);
    this.openFiles += 1;
    return new MemoryFile(this, path, inode);
  }

  async rename(from: string, to: string): Promise<void> {
    this.inodes.set(to, this.inode(from));
    this.inodes.delete(from);
  }

  async remove(path: string): Promise<void> {
    this.refuse('remove', path);
    this.inodes.delete(path);
  }

  async makeFolder(): Promise<void> {}

  async list(path: string): Promise<string[]> {
    return [...this.inodes.keys()].filter((name) => dirname(name) === path).map((name) => basename(name)).sort();
  }

  async stat(path: string): Promise<FileStat | null> {
    const found = this.inodes.get(path);
    if (found === undefined) return null;
    const { size, number } = found;
    return { kind: 'file', size, allocated: size, mtimeNs: 0n, ctimeNs: 0n, inode: number, device: 0n };
  }

  async syncFolder(path: string): Promise<void> {
    this.refuse('syncFolder', path);
  }

  async freeBytes(): Promise<number> {
    return Number.MAX_SAFE_INTEGER;
  }
}

class MemoryFile implements OpenFile {
  readonly path: string;
  readonly #files: MemoryFiles;
  /** Stays when the name goes, as on a real file system. */
  readonly #inode: Inode;
  #closed = false;

  constructor(files: MemoryFiles, path: string, inode: Inode) {
    this.#files = files;
    this.path = path;
    this.#inode = inode;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    this.#files.refuse('read', this.path);
    const from = this.#inode.bytes.subarray(position, Math.min(position + into.length, this.#inode.size));
    into.set(from);
    return from.length;
  }

  async write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    if (this.#closed) throw new Error(`a write to ${this.path} after it was closed`);
    const bytes = Buffer.concat(buffers);
    const fate = this.#files.fate({ path: this.path, length: bytes.length, count: this.#files.writes++ });
    this.#put(bytes.subarray(0, fate?.bytes ?? bytes.length), position);
    if (fate?.then === 'hang') await new Promise<never>(() => undefined);
    if (fate !== undefined) throw systemError(fate.then, `write ${this.path}`);
  }

  async datasync(): Promise<void> {
    this.#files.refuse('datasync', this.path);
  }

  async truncate(size: number): Promise<void> {
    this.#inode.bytes.fill(0, Math.min(size, this.#inode.size));
    this.#grow(size);
    this.#inode.size = size;
  }

  async size(): Promise<number> {
    return this.#inode.size;
  }

  async close(): Promise<void> {
    if (this.#closed) throw new Error(`${this.path} closed twice`);
    this.#closed = true;
    this.#files.openFiles -= 1;
  }

  #put(bytes: Buffer, position: number): void {
    if (bytes.length === 0) return;
    this.#grow(position + bytes.length);
    bytes.copy(this.#inode.bytes, position);
    this.#inode.size = Math.max(this.#inode.size, position + bytes.length);
  }

  #grow(size: number): void {
    if (size <= this.#inode.bytes.length) return;
    const larger = Buffer.alloc(Math.max(size, 2 * this.#inode.bytes.length));
    this.#inode.bytes.copy(larger, 0, 0, this.#inode.size);
    this.#inode.bytes = larger;
  }
}

function systemError(errno: string, what: string): Error {
  return Object.assign(new Error(`${errno}: ${what}`), { code: errno });
}

/** Ports over these files; digests are real. */
export function memoryPorts(files: MemoryFiles = new MemoryFiles()): LogPorts & { files: MemoryFiles } {
  return { files, compute: { digester } };
}

function digester(): ReturnType<Compute['digester']> {
  const hasher = new Blake3Hasher();
  return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
}
