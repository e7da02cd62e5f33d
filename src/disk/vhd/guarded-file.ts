import type { OpenFile } from '../../model/ports.ts';

/**
 * An image file whose every change waits for leave first: a disk that keeps tables writes by itself, at a flush or a seal, and who
 * serves it must be on record as writing then (R2).
 */
export class GuardedFile implements OpenFile {
  readonly path: string;
  readonly #file: OpenFile;
  /** Null: go on. */
  leave: () => Promise<void> | null = () => null;
  readonly punch?: (position: number, length: number) => Promise<void>;

  constructor(file: OpenFile) {
    this.path = file.path;
    this.#file = file;
    const punch = file.punch?.bind(file);
    if (punch !== undefined) this.punch = async (position, length) => this.#after(() => punch(position, length));
  }

  read(into: Uint8Array, position: number): Promise<number> {
    return this.#file.read(into, position);
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    return this.#after(() => this.#file.write(buffers, position));
  }

  truncate(size: number): Promise<void> {
    return this.#after(() => this.#file.truncate(size));
  }

  datasync(): Promise<void> {
    return this.#file.datasync();
  }

  size(): Promise<number> {
    return this.#file.size();
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #after(change: () => Promise<void>): Promise<void> {
    const wait = this.leave();
    return wait === null ? change() : wait.then(change);
  }
}
