/**
 * Files that write down what is asked of them and when it is done, and that may never answer. For tests of order and of
 * promise 1.
 */
import type { Files, OpenFile } from '../../src/model/ports.ts';

export type Operation = 'open' | 'read' | 'write' | 'datasync' | 'truncate' | 'remove' | 'rename' | 'syncFolder';

export interface Stall {
  path: RegExp;
  operation: Operation;
  /** What a stalled write has put into the page cache all the same: it is on its way, only its answer is missing. */
  lands?: boolean;
}

export class Watch {
  /** `write> PATH` asked for, `write. PATH` done, `write! PATH` failed, and whatever else a test notes, in order. */
  readonly trace: string[] = [];
  stalls: Stall[] = [];
  /** Paths of the files that are open, each as often as it is. */
  readonly openFiles: string[] = [];
  /** Called after each operation that was done. */
  done: () => void = () => {};

  note(line: string): void {
    this.trace.push(line);
  }

  /** Position of the first line that matches, from `from` on; -1 when there is none. */
  find(line: RegExp | string, from = 0): number {
    return this.trace.findIndex((found, index) => index >= from && (typeof line === 'string' ? found === line : line.test(found)));
  }

  files(files: Files): Files {
    return {
      ...files,
      open: async (path, mode) => this.#file(await this.#watched('open', path, () => files.open(path, mode))),
      rename: (from, to) => this.#watched('rename', to, () => files.rename(from, to)),
      remove: (path) => this.#watched('remove', path, () => files.remove(path)),
      syncFolder: (path) => this.#watched('syncFolder', path, () => files.syncFolder(path)),
    };
  }

  #file(file: OpenFile): OpenFile {
    const { path } = file;
    this.openFiles.push(path);
    return {
      path,
      read: (into, position) => this.#watched('read', path, () => file.read(into, position)),
      write: (buffers, position) => this.#watched('write', path, () => file.write(buffers, position)),
      datasync: () => this.#watched('datasync', path, () => file.datasync()),
      truncate: (size) => this.#watched('truncate', path, () => file.truncate(size)),
      size: () => file.size(),
      close: async () => {
        this.openFiles.splice(this.openFiles.indexOf(path), 1);
        await file.close();
      },
    };
  }

  async #watched<T>(operation: Operation, path: string, work: () => Promise<T>): Promise<T> {
    this.note(`${operation}> ${path}`);
    const stall = this.stalls.find((one) => one.operation === operation && one.path.test(path));
    if (stall !== undefined) {
      if (stall.lands === true) await work();
      return await new Promise<never>(() => {});
    }
    try {
      const result = await work();
      this.note(`${operation}. ${path}`);
      this.done();
      return result;
    } catch (error) {
      this.note(`${operation}! ${path}`);
      throw error;
    }
  }
}
