/**
 * What Node lacks, straight from libc: holes, byte-range locks, reads that do not wait, and the ioctls of block
 * devices.
 *
 * `libc()` is the native one where koffi loads (Linux on x64 and arm64, glibc or musl) and the portable one elsewhere;
 * the portable one answers every call with what plain Node can promise: everything is data, nothing can be punched,
 * nothing can be locked.
 *
 * Calls that may wait for a device run on the thread pool and return promises. The numbers below (fcntl and lseek
 * commands, ioctls, struct layouts) are those that x64 and arm64 share.
 */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { ioError } from './disk-errors.ts';

type Koffi = typeof import('koffi');
export type LockKind = 'read' | 'write' | 'unlock';

export interface BlockDeviceSizes {
  size: number;
  logicalSectorSize: number;
  physicalSectorSize: number;
}

export interface Libc {
  readonly native: boolean;
  /** The first offset at or after `from` that holds data; null when only a hole follows. */
  seekData(fd: number, from: number): number | null;
  /** The first hole at or after `from`, at most `end`. */
  seekHole(fd: number, from: number, end: number): number;
  /**
   * Makes the range a hole that reads as zeroes; the size stays. False when this file cannot have holes: nothing was
   * done.
   */
  punchHole(fd: number, offset: number, length: number): Promise<boolean>;
  /** Makes the range read as zeroes with its space kept. False when the file system cannot: nothing was done. */
  zeroRange(fd: number, offset: number, length: number): Promise<boolean>;
  /** Open-file-description lock on one byte: it lives as long as this opening of the file, not as the process. */
  lockByte(fd: number, byte: number, kind: LockKind): 'done' | 'conflict' | 'unsupported';
  /** Whether another opening of the file holds any lock on the byte. */
  isByteLocked(fd: number, byte: number): boolean;
  /** Reads from the page cache only: the number of bytes read, or null when it would have to wait (or cannot tell). */
  readNow(fd: number, into: Uint8Array, offset: number): number | null;
  /** Where the bytes begin in this process's memory, for `writeVectors` on any of its threads; null where that cannot be told. */
  addressOf(bytes: Uint8Array): number | null;
  /** pwritev(2) of `count` vectors (address, length; 8 bytes each) that lie at an address: the bytes written, or the errno below zero. */
  writeVectors(fd: number, vectors: number, count: number, position: number): number;
  /**
   * Writes on the thread pool and makes durable what was written, in one call (pwritev2(2) with RWF_DSYNC): the bytes written. Null where
   * this host or file has no such call: nothing was done.
   */
  writeDurably(fd: number, from: Uint8Array, offset: number): Promise<number | null>;
  /**
   * Has the kernel begin to write what of a file's range is dirty in the page cache, on the thread pool. Nothing is durable by that, and an error of the
   * device is left for who syncs the file: sync_file_range(2) looks for one only where it waits. False where this file has no such call.
   */
  startWriteBack(fd: number, offset: number, length: number): Promise<boolean>;
  /**
   * How long a thread of this process (by its number; 0: the calling one), and those that it makes, want to run before others have their turn,
   * ns; 0: as by default. A thread that asks for less than the one that runs is let in at once when it wakes, at no greater share of the
   * processor: Linux 6.12 and newer. False where nothing was changed.
   */
  setSlice(ns: number, thread?: number): boolean;
  /** Lets the kernel hold so many bytes that were sent to a socket and not yet received; less where the host allows less. */
  setSendBuffer(fd: number, bytes: number): boolean;
  /** A mark of the file system that survives a reboot where the file system has one. */
  fileSystemId(fd: number): string | null;
  /** True when the file lies on a device of this machine, by the kind of its file system; false also when that cannot be told. */
  isLocal(fd: number): boolean;
  blockDeviceSizes(fd: number): BlockDeviceSizes | null;
  /**
   * Writes zeroes by the device's own command; offset and length are multiples of the logical sector. False: not done.
   */
  blockZeroOut(fd: number, offset: number, length: number): Promise<boolean>;
  blockDiscard(fd: number, offset: number, length: number): Promise<boolean>;
}

/** For `setSlice`: the longest that the scheduler takes. Who asks for it is interrupted at once for everybody who wakes. */
export const LONGEST_SLICE_NS = 100_000_000;

export const portableLibc: Libc = {
  native: false,
  seekData: (_fd, from) => from,
  seekHole: (_fd, _from, end) => end,
  punchHole: () => Promise.resolve(false),
  zeroRange: () => Promise.resolve(false),
  lockByte: () => 'unsupported',
  isByteLocked: () => false,
  readNow: () => null,
  addressOf: () => null,
  writeVectors: () => -constants.errno.ENOSYS,
  writeDurably: () => Promise.resolve(null),
  startWriteBack: () => Promise.resolve(false),
  setSlice: () => false,
  setSendBuffer: () => false,
  fileSystemId: () => null,
  isLocal: () => false,
  blockDeviceSizes: () => null,
  blockZeroOut: () => Promise.resolve(false),
  blockDiscard: () => Promise.resolve(false),
};

let loaded: Libc | undefined;

export function libc(): Libc {
  loaded ??= loadNative() ?? portableLibc;
  return loaded;
}

function loadNative(): Libc | null {
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) return null;
  try {
    return nativeLibc(createRequire(import.meta.url)('koffi') as Koffi);
  } catch {
    // Without the library, or on a libc without one of the calls, the portable answers are slower and still right.
    return null;
  }
}

const [SEEK_DATA, SEEK_HOLE] = [3, 4];
const FALLOC = { KEEP_SIZE: 0x01, PUNCH_HOLE: 0x02, ZERO_RANGE: 0x10 } as const;
const [F_OFD_GETLK, F_OFD_SETLK] = [36, 37];
const LOCK_TYPE: Record<LockKind, number> = { read: 0, write: 1, unlock: 2 };
const [RWF_DSYNC, RWF_NOWAIT] = [0x02, 0x08];
const SYNC_FILE_RANGE_WRITE = 2;
/** statfs(2): ext, XFS, Btrfs, F2FS, ZFS, tmpfs. Not the ones behind a network or a program, which may hang alone. */
const LOCAL_FILE_SYSTEMS = new Set([0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994]);
const IOCTL = {
  BLKSSZGET: 0x1268, BLKPBSZGET: 0x127b, BLKGETSIZE64: 0x8008_1272, BLKDISCARD: 0x1277, BLKZEROOUT: 0x127f,
} as const;
/** "This file, file system or device has no such call", as opposed to "it failed". */
const NOT_SUPPORTED = new Set(['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EINVAL', 'ENOTTY', 'ENODEV']);

type Native = ReturnType<typeof bind>;

function bind(koffi: Koffi) {
  const library = koffi.load(null);
  return {
    // fcntl and ioctl are variadic in C; on both architectures a pointer argument is passed the same way in either
    // case.
    lseek: library.func('int64_t lseek(int, int64_t, int)'),
    fallocate: library.func('int fallocate(int, int, int64_t, int64_t)'),
    fcntl: library.func('int fcntl(int, int, void *)'),
    ioctl: library.func('int ioctl(int, unsigned long, void *)'),
    pwritev: library.func('int64_t pwritev(int, uintptr_t, int, int64_t)'),
    preadv2: library.func('int64_t preadv2(int, uintptr_t, int, int64_t, int)'),
    pwritev2: library.func('int64_t pwritev2(int, void *, int, int64_t, int)'),
    sync_file_range: library.func('int sync_file_range(int, int64_t, int64_t, unsigned int)'),
    syscall: library.func('long syscall(long, long, void *, long, long)'),
    setsockopt: library.func('int setsockopt(int, int, int, void *, unsigned int)'),
    fstatfs: library.func('int fstatfs(int, void *)'),
    address: (of: Uint8Array): bigint => koffi.address(of),
    addressOf: addresses(koffi),
    errnoNumber: (): number => koffi.errno(),
    /** Must be asked directly behind the call: any other call may overwrite it. */
    errno: (): string => getSystemErrorName(-koffi.errno()),
  };
}

/**
 * Where bytes lie, as a number, which holds any address that a program gets: 47 bits of it are used, on arm64 at most 52. To ask takes
 * longer than a short call, and the memory that was asked for last is mostly the next one too. Good until that memory is given away.
 */
function addresses(koffi: Koffi): (of: Uint8Array) => number {
  let last: { buffer: ArrayBufferLike; address: number } | null = null;
  return ({ buffer, byteOffset }) => {
    if (last?.buffer !== buffer) last = { buffer, address: Number(koffi.address(new Uint8Array(buffer))) };
    return last.address + byteOffset;
  };
}

function nativeLibc(koffi: Koffi): Libc {
  const native = bind(koffi);
  return {
    native: true, ...holes(native), ...locks(native), ...reads(native), ...writes(native), ...sockets(native), ...scheduling(native),
    ...blockDevices(native),
  };
}

/**
 * Runs the call on the thread pool: its result, or null where there is no such call here. The closure holds on to the arguments, and to what
 * `describe` speaks of, so that their memory stays where it is.
 */
function later(native: Native, call: Native['fallocate'], describe: (args: unknown[]) => string, ...args: unknown[]): Promise<number | null> {
  return new Promise((resolve, reject) => {
    call.async(...args, (failure: Error | null, result: number) => {
      const code = Number(result) < 0 ? native.errno() : null;
      if (failure !== null) reject(failure);
      else if (code === null) resolve(Number(result));
      else if (NOT_SUPPORTED.has(code)) resolve(null);
      else reject(ioError(code, describe(args)));
    });
  });
}

/** The same for a call that answers 0, and whose arguments behind the descriptor say all about it. */
async function doneLater(native: Native, call: Native['fallocate'], name: string, ...args: unknown[]): Promise<boolean> {
  return (await later(native, call, (given) => `${name}(${given.slice(1).join(', ')})`, ...args)) === 0;
}

function holes(native: Native): Pick<Libc, 'seekData' | 'seekHole' | 'punchHole' | 'zeroRange'> {
  const seek = (fd: number, from: number, whence: number): number | null => {
    const found = Number(native.lseek(fd, from, whence));
    if (found >= 0) return found;
    const code = native.errno();
    if (code === 'ENXIO') return null;
    throw ioError(code, `lseek(${from}, ${whence === SEEK_DATA ? 'SEEK_DATA' : 'SEEK_HOLE'})`);
  };
  const { PUNCH_HOLE, ZERO_RANGE, KEEP_SIZE } = FALLOC;
  return {
    seekData: (fd, from) => seek(fd, from, SEEK_DATA),
    seekHole: (fd, from, end) => Math.min(end, seek(fd, from, SEEK_HOLE) ?? end),
    punchHole: (fd, offset, length) =>
      doneLater(native, native.fallocate, 'punch hole', fd, PUNCH_HOLE | KEEP_SIZE, offset, length),
    zeroRange: (fd, offset, length) =>
      doneLater(native, native.fallocate, 'zero range', fd, ZERO_RANGE | KEEP_SIZE, offset, length),
  };
}

function locks(native: Native): Pick<Libc, 'lockByte' | 'isByteLocked'> {
  const lockRequest = (kind: LockKind, byte: number): Buffer => {
    // struct flock: i16 type, i16 whence (0 = from the start), i64 start, i64 length, i32 pid (must be 0 here)
    const request = Buffer.alloc(32);
    request.writeInt16LE(LOCK_TYPE[kind], 0);
    request.writeBigInt64LE(BigInt(byte), 8);
    request.writeBigInt64LE(1n, 16);
    return request;
  };
  return {
    lockByte(fd, byte, kind) {
      if (native.fcntl(fd, F_OFD_SETLK, lockRequest(kind, byte)) === 0) return 'done';
      const code = native.errno();
      return code === 'EAGAIN' || code === 'EACCES' ? 'conflict' : 'unsupported';
    },
    isByteLocked(fd, byte) {
      const request = lockRequest('write', byte);
      return native.fcntl(fd, F_OFD_GETLK, request) === 0 && request.readInt16LE(0) !== LOCK_TYPE.unlock;
    },
  };
}

function reads(native: Native): Pick<Libc, 'readNow' | 'fileSystemId' | 'isLocal'> {
  const vector = new Uint32Array(4); // struct iovec: address, length, in words since no BigInt is made then
  const ofVector = native.addressOf(new Uint8Array(vector.buffer));
  return {
    readNow(fd, into, offset) {
      const address = native.addressOf(into);
      vector[0] = address % 2 ** 32;
      vector[1] = address / 2 ** 32;
      vector[2] = into.length;
      const count = Number(native.preadv2(fd, ofVector, 1, offset, RWF_NOWAIT));
      return count < 0 ? null : count;
    },
    fileSystemId(fd) {
      const answer = Buffer.alloc(256); // struct statfs; f_fsid is the eighth 8-byte field
      if (native.fstatfs(fd, answer) !== 0) return null;
      const id = answer.readBigUInt64LE(56);
      return id === 0n ? null : id.toString(16).padStart(16, '0');
    },
    isLocal(fd) {
      const answer = Buffer.alloc(256); // f_type is the first 8-byte field
      return native.fstatfs(fd, answer) === 0 && LOCAL_FILE_SYSTEMS.has(Number(answer.readBigUInt64LE(0)));
    },
  };
}

function writes(native: Native): Pick<Libc, 'addressOf' | 'writeVectors' | 'writeDurably' | 'startWriteBack'> {
  return {
    writeDurably(fd, from, offset) {
      const vector = BigUint64Array.of(native.address(from), BigInt(from.length)); // struct iovec: address, length
      return later(native, native.pwritev2, () => `write and sync of ${from.length} bytes at ${offset}`, fd, vector, 1, offset, RWF_DSYNC);
    },
    startWriteBack: (fd, offset, length) =>
      doneLater(native, native.sync_file_range, 'start write-back', fd, offset, length, SYNC_FILE_RANGE_WRITE),
    addressOf: native.addressOf,
    writeVectors(fd, vectors, count, position) {
      const written = Number(native.pwritev(fd, vectors, count, position));
      return written < 0 ? -native.errnoNumber() : written;
    },
  };
}

function sockets(native: Native): Pick<Libc, 'setSendBuffer'> {
  const [SOL_SOCKET, SO_SNDBUF] = [1, 7];
  return {
    setSendBuffer: (fd, bytes) => native.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, Int32Array.of(bytes), 4) === 0,
  };
}

/** sched_setattr(2), which libc has no function for: struct sched_attr of its first version. */
function scheduling(native: Native): Pick<Libc, 'setSlice'> {
  const { SET, GET } = process.arch === 'x64' ? { SET: 314, GET: 315 } : { SET: 274, GET: 275 };
  const [SIZE, AT_POLICY, AT_SLICE] = [48, 4, 24];
  const [SCHED_OTHER, SCHED_BATCH] = [0, 3];
  return {
    setSlice(ns, thread = 0) {
      const attributes = Buffer.alloc(SIZE);
      if (Number(native.syscall(GET, thread, attributes, SIZE, 0)) !== 0) return false;
      // Whoever started the program with another policy, or as what runs when the others are idle, knows why.
      if (![SCHED_OTHER, SCHED_BATCH].includes(attributes.readUInt32LE(AT_POLICY))) return false;
      attributes.writeBigUInt64LE(BigInt(ns), AT_SLICE);
      return Number(native.syscall(SET, thread, attributes, 0, 0)) === 0;
    },
  };
}

function blockDevices(native: Native): Pick<Libc, 'blockDeviceSizes' | 'blockZeroOut' | 'blockDiscard'> {
  const ask = (fd: number, request: number): number | null => {
    const answer = Buffer.alloc(8);
    return native.ioctl(fd, request, answer) === 0 ? Number(answer.readBigUInt64LE(0)) : null;
  };
  const range = (offset: number, length: number): BigUint64Array => BigUint64Array.of(BigInt(offset), BigInt(length));
  return {
    blockDeviceSizes(fd) {
      const size = ask(fd, IOCTL.BLKGETSIZE64);
      const logicalSectorSize = ask(fd, IOCTL.BLKSSZGET);
      const physicalSectorSize = ask(fd, IOCTL.BLKPBSZGET);
      if (size === null || logicalSectorSize === null || physicalSectorSize === null) return null;
      return { size, logicalSectorSize, physicalSectorSize };
    },
    blockZeroOut: (fd, offset, length) =>
      doneLater(native, native.ioctl, 'BLKZEROOUT', fd, IOCTL.BLKZEROOUT, range(offset, length)),
    blockDiscard: (fd, offset, length) =>
      doneLater(native, native.ioctl, 'BLKDISCARD', fd, IOCTL.BLKDISCARD, range(offset, length)),
  };
}
