/**
 * A Linux block device as a disk: a partition, a logical volume, a loop device.
 *
 * It has no holes that can be seen: every extent is `data`. `zero` asks the device to unmap with zeroes, then to write
 * zeroes by its own command, then writes them. A plain discard promises nothing about what is read afterwards, so
 * `discard` does nothing.
 */
import { constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Descriptor } from './descriptor.ts';
import { assertWholeSectors, diskInUse, diskNotSupported, diskReadOnly, ioError, openFailure } from './disk-errors.ts';
import { lockImage } from './image-lock.ts';
import { libc, type BlockDeviceSizes, type Libc } from './libc.ts';
import { openDescriptor } from './open-descriptor.ts';
import type { ReadRing } from './read-ring.ts';
import { assertInside, type Extent, type Seal, type VirtualDisk } from './virtual-disk.ts';

export interface BlockDiskOptions {
  readOnly: boolean;
  /** Take QEMU's image locks, and for writing open exclusively: refused while mounted or held by the device mapper. */
  lock: boolean;
  /** Where this boot's id is read for the seal. */
  bootIdFile?: string;
  /** The sysfs folder that describes block devices by number. */
  sysfsFolder?: string;
  libc?: Libc;
  /** For reads that wait for the device. */
  readRing?: ReadRing | undefined;
}

interface BlockDiskFacts extends BlockDeviceSizes {
  readOnly: boolean;
  lockHeld: boolean;
  libc: Libc;
  major: number;
  minor: number;
  bootIdFile: string;
  sysfs: string;
}

export class BlockDisk implements VirtualDisk {
  readonly location: string;
  readonly format = 'raw';
  readonly variant = 'fixed';
  readonly virtualSize: number;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  readonly geometry = null;
  readonly readOnly: boolean;
  readonly discardReadsZero = false;
  readonly lockHeld: boolean;
  readonly #device: Descriptor;
  readonly #facts: BlockDiskFacts;

  /** Takes the device over and closes it with the disk. Use `openBlockDisk`. */
  constructor(device: Descriptor, facts: BlockDiskFacts) {
    this.location = device.path;
    this.virtualSize = facts.size;
    this.logicalSectorSize = facts.logicalSectorSize;
    this.physicalSectorSize = facts.physicalSectorSize;
    this.readOnly = facts.readOnly;
    this.lockHeld = facts.lockHeld;
    this.#device = device;
    this.#facts = facts;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    await this.#device.readFully(into, offset);
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    this.#assertWritable(offset, from.length);
    await this.#device.writeOne(from, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    this.#assertWritable(offset, length);
    // The device's commands take whole sectors, and drop what the page cache holds of them: whole pages keep neighbours
    // out of it.
    const unit = Math.max(this.logicalSectorSize, 4096);
    const start = Math.ceil(offset / unit) * unit;
    const end = Math.floor((offset + length) / unit) * unit;
    if (start >= end) return this.#device.writeZeroes(offset, length);
    if (!(await this.#zeroByDevice(start, end - start))) return this.#device.writeZeroes(offset, length);
    await this.#device.writeZeroes(offset, start - offset);
    await this.#device.writeZeroes(end, offset + length - end);
  }

  async discard(_offset: number, _length: number): Promise<void> {}

  async flush(): Promise<void> {
    await this.#device.datasync();
  }

  startWriteBack(offset: number, length: number): Promise<boolean> {
    return this.#device.startWriteBack(offset, length);
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertInside(this, offset, length);
    if (length > 0) yield { offset, length, kind: 'data' };
  }

  /**
   * The kernel's count of sectors written, which only counts what has left the page cache: hence the flush. A partition
   * is judged by the whole device, because writes to the device do not count for the partition.
   */
  async seal(): Promise<Seal> {
    if (!this.readOnly) await this.flush();
    const { major, minor, bootIdFile, sysfs } = this.#facts;
    const whole = (await readText(`${sysfs}/partition`)) === null ? sysfs : `${sysfs}/..`;
    const [bootId, stat, counting, diskSequence] = await Promise.all([
      readText(bootIdFile), readText(`${whole}/stat`), readText(`${whole}/queue/iostats`), readText(`${whole}/diskseq`),
    ]);
    if (bootId === null || stat === null) return { kind: 'none', reason: 'the kernel tells no write counters of this device' };
    if (counting === '0') return { kind: 'none', reason: 'the write counters of this device are switched off (queue/iostats)' };
    const sectorsWritten = sectorsChanged(stat);
    if (sectorsWritten === null) return { kind: 'none', reason: `${whole}/stat is not understood` };
    const seal: Seal = { kind: 'block', size: this.virtualSize, bootId, sectorsWritten, major, minor };
    return diskSequence === null ? seal : { ...seal, diskSequence };
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  async #zeroByDevice(offset: number, length: number): Promise<boolean> {
    if (await this.#device.tryPunch(offset, length)) return true;
    return this.#device.use((fd) => this.#facts.libc.blockZeroOut(fd, offset, length));
  }

  #assertWritable(offset: number, length: number): void {
    assertInside(this, offset, length);
    if (this.readOnly) throw ioError('EPERM', `${this.location} is open read-only`);
  }
}

/** Opens a block device. Fails with DISK_NOT_FOUND, DISK_NOT_SUPPORTED, DISK_NO_PERMISSION, DISK_IN_USE or DISK_IO. */
export async function openBlockDisk(path: string, options: BlockDiskOptions): Promise<BlockDisk> {
  const native = options.libc ?? libc();
  const exclusive = options.lock && !options.readOnly ? constants.O_EXCL : 0;
  const device = await openDescriptor(path, { readOnly: options.readOnly, flags: exclusive, libc: native, readRing: options.readRing });
  try {
    const stat = await device.stat();
    if (!stat.isBlockDevice()) throw diskNotSupported(path, 'is not a block device', 'Name a block device or an image file.');
    const { major, minor } = deviceNumbers(stat.rdev);
    const sysfs = `${options.sysfsFolder ?? '/sys/dev/block'}/${major}:${minor}`;
    // Opening a write-protected device for writing may succeed, and every write fail.
    if (!options.readOnly && (await readText(`${sysfs}/ro`)) === '1') throw diskReadOnly(path, 'the device is write-protected');
    const sizes = native.blockDeviceSizes(device.fd) ?? (await sizesFromSysfs(path, sysfs));
    assertWholeSectors(path, sizes.size);
    const lock = options.lock ? lockImage(device.fd, options.readOnly ? 'read' : 'write', native) : null;
    if (lock?.kind === 'conflict') throw diskInUse(path, lock.by);
    return new BlockDisk(device, {
      ...sizes, major, minor, sysfs, libc: native, readOnly: options.readOnly, lockHeld: lock?.kind === 'held',
      bootIdFile: options.bootIdFile ?? '/proc/sys/kernel/random/boot_id',
    });
  } catch (error) {
    await device.close();
    throw openFailure(path, error);
  }
}

/** Linux' encoding of a device number in 64 bits (gnu_dev_major, gnu_dev_minor). */
export function deviceNumbers(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffff_ff00n)),
  };
}

/**
 * Sectors written plus sectors discarded, from a `stat` file of sysfs (kernel: Documentation/block/stat.rst, fields 7
 * and 14); null when it is not one.
 */
export function sectorsChanged(stat: string): string | null {
  const fields = stat.trim().split(/\s+/);
  const [written, discarded] = [fields[6], fields[13] ?? '0'];
  if (written === undefined || !/^\d+$/.test(written) || !/^\d+$/.test(discarded)) return null;
  return String(BigInt(written) + BigInt(discarded));
}

async function sizesFromSysfs(path: string, sysfs: string): Promise<BlockDeviceSizes> {
  const whole = (await readText(`${sysfs}/partition`)) === null ? sysfs : `${sysfs}/..`;
  const [sectors, logical, physical] = await Promise.all([
    readText(`${sysfs}/size`), readText(`${whole}/queue/logical_block_size`), readText(`${whole}/queue/physical_block_size`),
  ]);
  if (sectors === null || logical === null || physical === null) {
    throw diskNotSupported(path, 'does not tell its size', 'Mount sysfs at /sys, or serve the device with qemu-nbd.');
  }
  return { size: Number(sectors) * 512, logicalSectorSize: Number(logical), physicalSectorSize: Number(physical) };
}

async function readText(path: string): Promise<string | null> {
  return readFile(path, 'utf8').then((text) => text.trim(), () => null);
}
