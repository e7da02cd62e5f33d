/**
 * What the server serves: a named disk with its traits. Plain disks are wrapped by `diskExport`; tracked ones bring
 * their own.
 */
import type { Extent, VirtualDisk } from '../disk/virtual-disk.ts';
import type { Clock } from '../model/ports.ts';
import { promptWrites } from '../disk/prompt-writes.ts';

/**
 * A promise, or undefined when the work is already done: the hot path then costs neither a promise nor a turn of the
 * loop.
 */
export type Done = Promise<void> | undefined;

export interface ClientInfo {
  /** Unique within one server, for logs. */
  readonly id: number;
  /** `unix`, or `host:port` of the client. */
  readonly address: string;
}

/**
 * Offsets and lengths are bytes, validated by the server: inside `[0, size)`, at least 1. Calls overlap in time; all
 * requests that arrive together are started within one tick, so that an implementation may group them. Rejections (and
 * throws) carry an errno in `code`; ENOSPC, EPERM, EINVAL, ENOTSUP, … reach the client as they are, all others as EIO.
 */
export interface NbdExport {
  readonly name: string;
  /** For people, in lists. */
  readonly description: string;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Bytes, a power of two; 1 when any alignment will do. Requests that are not multiples of it are refused. */
  readonly minimumBlockSize: number;
  /** Bytes, a power of two. */
  readonly preferredBlockSize: number;
  /** Set only when a flush covers the writes that were answered on other connections too. */
  readonly multiConnection: boolean;
  readonly canTrim: boolean;

  /** Fills `into` completely. */
  read(into: Uint8Array, offset: number): Done;
  /**
   * Done when later reads see `from`; with `fua` also durable. `from` belongs to the export until then; afterwards the
   * server reuses the memory.
   */
  write(from: Uint8Array, offset: number, flags: { fua: boolean }): Done;
  /** A `write` without `fua` that costs no promise: `ended` is called once, after this has returned, with null or why it failed. */
  writeThen?(from: Uint8Array, offset: number, ended: (failure: unknown) => void): void;
  /** The range reads as zeroes afterwards. Without `mayDiscard` its space stays allocated. */
  zero(offset: number, length: number, flags: { fua: boolean; mayDiscard: boolean }): Done;
  /** A hint; the contents of the range are undefined afterwards. */
  trim(offset: number, length: number, flags: { fua: boolean }): Done;
  /** Done when every write that was done before this call is durable. */
  flush(): Done;
  /** As `VirtualDisk.extents`. */
  extents(offset: number, length: number): AsyncIterable<Extent>;
  /** Throws an UnderstudyError to refuse the client, which sees the message. */
  clientConnected(client: ClientInfo): void;
  /** Called once for each accepted client, when its last operation has ended. */
  clientGone(client: ClientInfo): void;
}

export interface DiskExportOptions {
  /** Default: as the disk. */
  readOnly?: boolean;
  description?: string;
  /**
   * With a clock, small writes are done on this thread where the disk can (disk/prompt-writes.ts says at what risk).
   * Default: never.
   */
  promptWrites?: Pick<Clock, 'monotonic'>;
}

/** What `diskExport` needs: any VirtualDisk, or what wraps one. */
export type ServedDisk =
  Pick<VirtualDisk, 'virtualSize' | 'readOnly' | 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'extents' | 'readNow' | 'writeNow'>;

/** More than this is copied out of the page cache by the pool, while this thread hands other replies to their sockets. */
const READ_NOW_BYTES_MAX = 128 * 1024;
const ZEROES = new Uint8Array(1024 * 1024);

/** Fills `into` on this thread where the page cache has all of it, else by the thread pool. */
export function readPromptly(disk: Pick<VirtualDisk, 'read' | 'readNow'>, into: Uint8Array, offset: number): Done {
  const isDone = into.length <= READ_NOW_BYTES_MAX && disk.readNow?.(into, offset) === true;
  return isDone ? undefined : disk.read(into, offset);
}

/**
 * Serves a disk as it is. Several connections are safe: all share the one disk, and its flush covers every write that
 * resolved, whoever sent it.
 */
export function diskExport(name: string, disk: ServedDisk, options: DiskExportOptions = {}): NbdExport {
  const writeNow = options.promptWrites === undefined ? () => false : promptWrites(disk, options.promptWrites);
  const write = (from: Uint8Array, offset: number) => (writeNow(from, offset) ? undefined : disk.write(from, offset));
  const flushAfter = async (work: Promise<void>) => {
    await work;
    await disk.flush();
  };
  // Replication logs zeroes that were asked to stay allocated as data; so they are written as data.
  const writeZeroes = async (offset: number, length: number) => {
    for (let done = 0; done < length; done += ZEROES.length) {
      await disk.write(ZEROES.subarray(0, Math.min(ZEROES.length, length - done)), offset + done);
    }
  };
  return {
    name,
    description: options.description ?? '',
    size: disk.virtualSize,
    readOnly: options.readOnly ?? disk.readOnly,
    minimumBlockSize: 1,
    preferredBlockSize: 4096,
    multiConnection: true,
    canTrim: true,
    read: (into, offset) => readPromptly(disk, into, offset),
    write: (from, offset, { fua }) => (fua ? flushAfter(disk.write(from, offset)) : write(from, offset)),
    zero: (offset, length, { fua, mayDiscard }) => {
      const work = mayDiscard ? disk.zero(offset, length) : writeZeroes(offset, length);
      return fua ? flushAfter(work) : work;
    },
    trim: (offset, length, { fua }) => (fua ? flushAfter(disk.discard(offset, length)) : disk.discard(offset, length)),
    flush: () => disk.flush(),
    extents: (offset, length) => disk.extents(offset, length),
    clientConnected: () => undefined,
    clientGone: () => undefined,
  };
}
