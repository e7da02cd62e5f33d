/**
 * A `Files` port whose volumes cannot take each other's threads.
 *
 * Node does all file I/O on one pool of threads, and an operation on a volume that hangs keeps its thread for as long as it hangs. So
 * of the operations in one folder only a few are under way at once; the others wait here, where waiting costs no thread. A hung
 * volume of tracking logs then leaves the rest of the pool to the disks of the guests (promise 1).
 *
 * Invariant: an operation waits for operations in its own folder only, and in the order in which they were asked for.
 */
import { dirname } from 'node:path';
import type { Files, OpenFile } from '../model/ports.ts';
import { settleAll } from '../model/settle-all.ts';
import { Descriptor } from './descriptor.ts';
import type { WriteThread } from './write-thread.ts';

/** A quarter of the pool's 16 threads (`bin/understudy`); more at once makes no volume faster by much. */
const PER_FOLDER = 4;

/** Operations in one folder: how many are under way, and who waits. */
class Lane {
  #running = 0;
  #waiting: (() => void)[] = [];

  run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < PER_FOLDER) return this.#start(work);
    return new Promise((resolve, reject) => {
      this.#waiting.push(() => void this.#start(work).then(resolve, reject));
    });
  }

  #start<T>(work: () => Promise<T>): Promise<T> {
    this.#running += 1;
    const ended = () => {
      this.#running -= 1;
      this.#waiting.shift()?.();
    };
    const promise = work();
    promise.then(ended, ended);
    return promise;
  }
}

/** `thread`: for writes to two files at once, which then take no thread of the pool. */
export function sharedFiles(files: Files, thread?: WriteThread): Files {
  const lanes = new Map<string, Lane>();
  const descriptors = new WeakMap<OpenFile, Descriptor>();
  const within = <T>(folder: string, work: () => Promise<T>): Promise<T> => {
    let lane = lanes.get(folder);
    if (lane === undefined) lanes.set(folder, lane = new Lane());
    return lane.run(work);
  };
  return {
    open: async (path, mode) => {
      const folder = dirname(path);
      const file = await within(folder, () => files.open(path, mode));
      const opened = inLane(file, (work) => within(folder, work));
      if (thread === undefined || !(file instanceof Descriptor)) return opened;
      descriptors.set(opened, file);
      return Object.assign(opened, { writeTogether: together(opened, file, thread, descriptors) });
    },
    rename: (from, to) => within(dirname(to), () => files.rename(from, to)),
    remove: (path) => within(dirname(path), () => files.remove(path)),
    makeFolder: (path) => within(path, () => files.makeFolder(path)),
    list: (path) => within(path, () => files.list(path)),
    stat: (path) => within(dirname(path), () => files.stat(path)),
    syncFolder: (path) => within(path, () => files.syncFolder(path)),
    freeBytes: (path) => within(path, () => files.freeBytes(path)),
  };
}

/** By the thread, if it can now, else side by side in the lanes. */
function together(
  opened: OpenFile, file: Descriptor, thread: WriteThread, descriptors: WeakMap<OpenFile, Descriptor>,
): NonNullable<OpenFile['writeTogether']> {
  return async (buffers, position, second) => {
    const other = descriptors.get(second.file);
    const isDone = other !== undefined && await thread.write([{ file, buffers, position }, { ...second, file: other }]);
    if (isDone === true) return;
    await settleAll([opened.write(buffers, position), second.file.write(second.buffers, second.position)]);
  };
}

function inLane(file: OpenFile, within: <T>(work: () => Promise<T>) => Promise<T>): OpenFile {
  const under = new Set<Promise<unknown>>();
  const turn = <T>(work: () => Promise<T>): Promise<T> => {
    const promise = within(work);
    under.add(promise);
    const ended = () => void under.delete(promise);
    promise.then(ended, ended);
    return promise;
  };
  const opened: OpenFile = {
    path: file.path,
    read: (into, position) => turn(() => file.read(into, position)),
    write: (buffers, position) => turn(() => file.write(buffers, position)),
    datasync: () => turn(() => file.datasync()),
    truncate: (size) => turn(() => file.truncate(size)),
    size: () => turn(() => file.size()),
    // In no lane: an operation that was asked for before must have had its turn first.
    close: async () => {
      await Promise.allSettled(under);
      await file.close();
    },
  };
  // On the calling thread: they take nobody's.
  if (file.readNow !== undefined) opened.readNow = (into, position) => file.readNow!(into, position);
  if (file.writeNow !== undefined) opened.writeNow = (from, position) => file.writeNow!(from, position);
  if (file.writeDurably !== undefined) opened.writeDurably = (from, position) => turn(() => file.writeDurably!(from, position));
  if (file.punch !== undefined) opened.punch = (position, length) => turn(() => file.punch!(position, length));
  return opened;
}
