/** A raw image in a regular file: the bytes of the file are the bytes of the disk, holes are zeroes. */
import { constants } from 'node:fs';
import type { Descriptor } from './descriptor.ts';
import { assertWholeSectors, diskInUse, diskNotSupported, ioError, openFailure } from './disk-errors.ts';
import { lockImage } from './image-lock.ts';
import { libc, type Libc } from './libc.ts';
import { openDescriptor } from './open-descriptor.ts';
import type { ReadRing } from './read-ring.ts';
import { assertInside, type Extent, type Seal, type VirtualDisk } from './virtual-disk.ts';
import type { WriteThread } from './write-thread.ts';

export interface RawDiskOptions {
  readOnly: boolean;
  /** Take QEMU's image locks (see image-lock.ts). Without them another program may write at the same time. */
  lock: boolean;
  libc?: Libc;
  /** For large writes. */
  writeThread?: WriteThread | undefined;
  /** For reads that wait for the device. */
  readRing?: ReadRing | undefined;
}

export class RawDisk implements VirtualDisk {
  readonly location: string;
  readonly format = 'raw';
  readonly variant = 'fixed';
  readonly logicalSectorSize = 512;
  readonly physicalSectorSize = 4096;
  readonly geometry = null;
  readonly readOnly: boolean;
  readonly discardReadsZero = true;
  /** False when locks were not wanted, or this host or file system has none: then nobody can prove who wrote (R2). */
  readonly lockHeld: boolean;
  readonly #file: Descriptor;
  #virtualSize: number;
  readonly #libc: Libc;

  /** Takes the file over and closes it with the disk. Use `openRawDisk`. */
  constructor(file: Descriptor, facts: { virtualSize: number; readOnly: boolean; lockHeld: boolean; libc: Libc }) {
    this.location = file.path;
    this.#file = file;
    this.#virtualSize = facts.virtualSize;
    this.readOnly = facts.readOnly;
    this.lockHeld = facts.lockHeld;
    this.#libc = facts.libc;
  }

  get virtualSize(): number {
    return this.#virtualSize;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    await this.#file.readFully(into, offset);
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    this.#assertWritable(offset, from.length);
    await this.#file.writeOne(from, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    this.#assertWritable(offset, length);
    await this.#file.zero(offset, length);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.zero(offset, length);
  }

  async flush(): Promise<void> {
    await this.#file.datasync();
  }

  startWriteBack(offset: number, length: number): Promise<boolean> {
    return this.#file.startWriteBack(offset, length);
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    assertInside(this, offset, length);
    return this.#file.extents(offset, offset + length);
  }

  async seal(): Promise<Seal> {
    const stat = await this.#file.stat();
    // Device numbers may change with every boot; the id of the file system, where it has one, does not.
    const fileSystem = this.#libc.fileSystemId(this.#file.fd);
    return {
      kind: 'file',
      size: Number(stat.size),
      mtimeNs: String(stat.mtimeNs),
      ctimeNs: String(stat.ctimeNs),
      inode: String(stat.ino),
      device: fileSystem === null ? String(stat.dev) : `fsid:${fileSystem}`,
    };
  }

  async grow(size: number): Promise<void> {
    this.#assertWritable(0, 0);
    assertWholeSectors(this.location, size);
    if (size < this.#virtualSize) throw new RangeError(`${this.location}: ${size} is less than its ${this.#virtualSize} bytes`);
    await this.#file.truncate(size);
    await this.#file.sync();
    this.#virtualSize = size;
  }

  /** Waits for operations under way; the locks end with it. */
  close(): Promise<void> {
    return this.#file.close();
  }

  readNow(into: Uint8Array, offset: number): boolean {
    assertInside(this, offset, into.length);
    return this.#file.readNow(into, offset);
  }

  writeNow(from: Uint8Array, offset: number): boolean {
    this.#assertWritable(offset, from.length);
    return this.#file.writeNow(from, offset);
  }

  #assertWritable(offset: number, length: number): void {
    assertInside(this, offset, length);
    if (this.readOnly) throw ioError('EPERM', `${this.location} is open read-only`);
  }
}

/**
 * Opens an existing file as a raw disk. Fails with DISK_NOT_FOUND, DISK_NOT_SUPPORTED, DISK_SIZE_NOT_SECTORS,
 * DISK_READ_ONLY, DISK_NO_PERMISSION, DISK_IN_USE or DISK_IO.
 */
export async function openRawDisk(path: string, options: RawDiskOptions): Promise<RawDisk> {
  return opened(await openDescriptor(path, options), options);
}

/**
 * Creates a file that is one hole of `size` bytes and opens it for writing. Fails with DISK_EXISTS or as `openRawDisk`.
 */
export async function createRawDisk(path: string, size: number, options: { libc?: Libc } = {}): Promise<RawDisk> {
  assertWholeSectors(path, size);
  const file = await openDescriptor(path, { ...options, readOnly: false, flags: constants.O_CREAT | constants.O_EXCL });
  try {
    await file.truncate(size);
  } catch (error) {
    await file.close();
    throw openFailure(path, error);
  }
  return opened(file, { ...options, readOnly: false, lock: true });
}

async function opened(file: Descriptor, options: RawDiskOptions): Promise<RawDisk> {
  const native = options.libc ?? libc();
  try {
    const stat = await file.stat();
    if (stat.isDirectory()) throw diskNotSupported(file.path, 'is a folder', 'Name the image file in it.');
    if (!stat.isFile()) throw diskNotSupported(file.path, 'is not a regular file', 'Name an image file or a block device.');
    assertWholeSectors(file.path, Number(stat.size));
    const lock = options.lock ? lockImage(file.fd, options.readOnly ? 'read' : 'write', native) : null;
    if (lock?.kind === 'conflict') throw diskInUse(file.path, lock.by);
    const lockHeld = lock?.kind === 'held';
    return new RawDisk(file, { virtualSize: Number(stat.size), readOnly: options.readOnly, lockHeld, libc: native });
  } catch (error) {
    await file.close();
    throw openFailure(file.path, error);
  }
}
