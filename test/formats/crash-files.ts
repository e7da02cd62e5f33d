import type { Files, FileStat, OpenFile } from '../../src/model/ports.ts';
import { dirname } from 'node:path';

/**
 * Files in memory that remember every write, so that a power cut can be tried at every sync afterwards.
 *
 * The fault model: what was synced is there. Of what was not, everything is there (kept), nothing (lost), the last write
 * alone (newest), or by the toss of a coin each write (mixed) or each 512-byte sector of each write (torn); a longer file
 * may be there without the bytes that made it longer.
 */

const PAGE = 4096;
const SECTOR = 512;

type Operation =
  | { file: string; kind: 'write'; position: number; bytes: Uint8Array }
  | { file: string; kind: 'truncate'; size: number }
  | { file: string; kind: 'punch'; position: number; length: number }
  | { file: string; kind: 'sync' }
  | { file: string; kind: 'create' }
  | { file: string; kind: 'remove' }
  | { kind: 'mark'; label: number };

/** Sparse bytes; pages are shared between copies until they are written. */
export class SparseBytes {
  size = 0;
  #pages: Map<number, Uint8Array>;
  #own = new Set<number>();

  constructor(pages = new Map<number, Uint8Array>(), size = 0) {
    this.#pages = pages;
    this.size = size;
  }

  copy(): SparseBytes {
    this.#own.clear();
    return new SparseBytes(new Map(this.#pages), this.size);
  }

  read(into: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(into.length, this.size - position));
    for (let done = 0; done < count;) {
      const at = position + done;
      const length = Math.min(count - done, PAGE - (at % PAGE));
      const page = this.#pages.get(Math.floor(at / PAGE));
      if (page === undefined) into.fill(0, done, done + length);
      else into.set(page.subarray(at % PAGE, (at % PAGE) + length), done);
      done += length;
    }
    return count;
  }

  write(bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length;) {
      const at = position + done;
      const length = Math.min(bytes.length - done, PAGE - (at % PAGE));
      this.#page(Math.floor(at / PAGE)).set(bytes.subarray(done, done + length), at % PAGE);
      done += length;
    }
    this.size = Math.max(this.size, position + bytes.length);
  }

  truncate(size: number): void {
    if (size < this.size) {
      const last = Math.floor(size / PAGE);
      for (const page of this.#pages.keys()) if (page > last) this.#pages.delete(page);
      if (this.#pages.has(last)) this.#page(last).fill(0, size % PAGE);
    }
    this.size = size;
  }

  punch(position: number, length: number): void {
    const end = Math.min(this.size, position + length);
    for (let at = position; at < end;) {
      const next = Math.min(end, at - (at % PAGE) + PAGE);
      const page = Math.floor(at / PAGE);
      if (next - at === PAGE) this.#pages.delete(page);
      else if (this.#pages.has(page)) this.#page(page).fill(0, at % PAGE, (at % PAGE) + next - at);
      at = next;
    }
  }

  *dataPages(): Iterable<[number, Uint8Array]> {
    for (const [page, bytes] of this.#pages) yield [page * PAGE, bytes];
  }

  get allocated(): number {
    return this.#pages.size * PAGE;
  }

  #page(index: number): Uint8Array {
    const known = this.#pages.get(index);
    if (known !== undefined && this.#own.has(index)) return known;
    const page = known === undefined ? new Uint8Array(PAGE) : Uint8Array.from(known);
    this.#pages.set(index, page);
    this.#own.add(index);
    return page;
  }
}

export type CrashMode = { kind: 'kept' | 'lost' | 'newest' } | { kind: 'torn' | 'mixed'; coin: () => boolean };

export class CrashFiles implements Files {
  readonly contents = new Map<string, SparseBytes>();
  readonly trace: Operation[] = [];
  /** Set to make the n-th next operation of that kind fail. */
  failNext: { kind: 'write' | 'truncate' | 'sync'; code: string; after: number } | null = null;
  recording = true;
  canPunch = true;

  put(path: string, bytes: Uint8Array): void {
    const content = new SparseBytes();
    content.write(bytes, 0);
    this.contents.set(path, content);
  }

  mark(label: number): void {
    this.#note({ kind: 'mark', label });
  }

  #note(operation: Operation): void {
    if (this.recording) this.trace.push(operation);
  }

  #maybeFail(kind: 'write' | 'truncate' | 'sync'): void {
    if (this.failNext?.kind !== kind || this.failNext.after-- > 0) return;
    const { code } = this.failNext;
    this.failNext = null;
    throw Object.assign(new Error(`injected ${code} of ${kind}`), { code });
  }

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile> {
    await Promise.resolve();
    let content = this.contents.get(path);
    if (mode === 'create') {
      if (content !== undefined) throw Object.assign(new Error(`EEXIST ${path}`), { code: 'EEXIST' });
      content = new SparseBytes();
      this.contents.set(path, content);
      this.#note({ file: path, kind: 'create' });
    }
    if (content === undefined) throw Object.assign(new Error(`ENOENT ${path}`), { code: 'ENOENT' });
    return this.#handle(path, content, mode === 'read');
  }

  #handle(path: string, content: SparseBytes, readOnly: boolean): OpenFile {
    const writable = () => {
      if (readOnly) throw Object.assign(new Error(`EBADF ${path} is open for reading`), { code: 'EBADF' });
    };
    return {
      path,
      read: async (into, position) => {
        await Promise.resolve();
        return content.read(into, position);
      },
      write: async (buffers, position) => {
        writable();
        await Promise.resolve();
        this.#maybeFail('write');
        const bytes = Uint8Array.from(Buffer.concat(buffers));
        content.write(bytes, position);
        this.#note({ file: path, kind: 'write', position, bytes });
      },
      datasync: async () => {
        await Promise.resolve();
        this.#maybeFail('sync');
        this.#note({ file: path, kind: 'sync' });
      },
      truncate: async (size) => {
        writable();
        await Promise.resolve();
        this.#maybeFail('truncate');
        content.truncate(size);
        this.#note({ file: path, kind: 'truncate', size });
      },
      punch: async (position, length) => {
        writable();
        await Promise.resolve();
        if (!this.canPunch) throw Object.assign(new Error(`EOPNOTSUPP ${path}`), { code: 'EOPNOTSUPP' });
        content.punch(position, length);
        this.#note({ file: path, kind: 'punch', position, length });
      },
      size: () => Promise.resolve(content.size),
      close: () => Promise.resolve(),
    };
  }

  async rename(from: string, to: string): Promise<void> {
    await Promise.resolve();
    const content = this.contents.get(from);
    if (content === undefined) throw Object.assign(new Error(`ENOENT ${from}`), { code: 'ENOENT' });
    this.contents.delete(from);
    this.contents.set(to, content);
  }

  async remove(path: string): Promise<void> {
    await Promise.resolve();
    this.contents.delete(path);
    this.#note({ file: path, kind: 'remove' });
  }

  makeFolder(): Promise<void> {
    return Promise.resolve();
  }

  list(folder: string): Promise<string[]> {
    const names = [...this.contents.keys()]
      .filter((path) => dirname(path) === folder)
      .map((path) => path.slice(folder.length + 1));
    return Promise.resolve(names.sort());
  }

  stat(path: string): Promise<FileStat | null> {
    const content = this.contents.get(path);
    if (content === undefined) return Promise.resolve(null);
    const inode = BigInt([...this.contents.keys()].indexOf(path) + 1);
    return Promise.resolve({
      kind: 'file',
      size: content.size,
      allocated: content.allocated,
      mtimeNs: 0n,
      ctimeNs: 0n,
      inode,
      device: 1n,
    });
  }

  syncFolder(): Promise<void> {
    return Promise.resolve();
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(2 ** 50);
  }

  /** What the death of the process leaves: the files after each of its operations. */
  *kills(before: ReadonlyMap<string, SparseBytes>): Iterable<{ files: CrashFiles; at: number }> {
    const now = new Map([...before].map(([path, content]) => [path, content.copy()]));
    for (const [at, operation] of this.trace.entries()) {
      if (operation.kind === 'mark' || operation.kind === 'sync') continue;
      apply(now, operation);
      yield { files: crashed(now, [], { kind: 'lost' }), at };
    }
  }

  /**
   * What a power cut leaves, at every sync of the trace (just before it) and at its end. `before` are the files when
   * recording began. A removed file is gone at once and a created one is there at once: the code under test syncs the
   * folder itself.
   */
  *crashes(
    before: ReadonlyMap<string, SparseBytes>,
    modes: readonly CrashMode[],
  ): Iterable<{ files: CrashFiles; mark: number; at: number; mode: string }> {
    const durable = new Map([...before].map(([path, content]) => [path, content.copy()]));
    let pending: Exclude<Operation, { kind: 'mark' }>[] = [];
    let mark = 0;
    for (let at = 0; at <= this.trace.length; at++) {
      const operation = this.trace[at];
      if (operation === undefined || operation.kind === 'sync') {
        for (const mode of modes) yield { files: crashed(durable, pending, mode), mark, at, mode: mode.kind };
      }
      if (operation === undefined) return;
      if (operation.kind === 'mark') mark = operation.label;
      else if (operation.kind === 'sync') {
        for (const one of pending) if (one.file === operation.file) apply(durable, one);
        pending = pending.filter((one) => one.file !== operation.file);
      } else if (operation.kind === 'create' || operation.kind === 'remove') {
        pending = pending.filter((one) => one.file !== operation.file);
        apply(durable, operation);
      } else pending.push(operation);
    }
  }
}

function crashed(
  durable: Map<string, SparseBytes>,
  pending: readonly Exclude<Operation, { kind: 'mark' }>[],
  mode: CrashMode,
): CrashFiles {
  const files = new CrashFiles();
  for (const [path, content] of durable) files.contents.set(path, content.copy());
  if (mode.kind === 'lost') return files;
  for (const operation of mode.kind === 'newest' ? pending.slice(-1) : pending) {
    if (mode.kind !== 'torn' || operation.kind !== 'write') {
      if (!('coin' in mode) || mode.coin()) apply(files.contents, operation);
      continue;
    }
    const content = files.contents.get(operation.file);
    for (let start = 0; content !== undefined && start < operation.bytes.length;) {
      const length = Math.min(operation.bytes.length - start, SECTOR - ((operation.position + start) % SECTOR));
      if ('coin' in mode && mode.coin())
        content.write(operation.bytes.subarray(start, start + length), operation.position + start);
      start += length;
    }
  }
  return files;
}

function apply(contents: Map<string, SparseBytes>, operation: Exclude<Operation, { kind: 'mark' }>): void {
  if (operation.kind === 'create') contents.set(operation.file, new SparseBytes());
  else if (operation.kind === 'remove') contents.delete(operation.file);
  const content = contents.get(operation.file);
  if (content === undefined) return;
  if (operation.kind === 'write') content.write(operation.bytes, operation.position);
  else if (operation.kind === 'truncate') content.truncate(operation.size);
  else if (operation.kind === 'punch') content.punch(operation.position, operation.length);
}
