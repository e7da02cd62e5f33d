/** Opens a disk by its location: an image file, a block device, or an NBD URI. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import { openBlockDisk } from './block-disk.ts';
import { diskNotSupported, openFailure, shellWord } from './disk-errors.ts';
import { PROBE_HEAD_BYTES, PROBE_TAIL_BYTES, probeFormat, type ProbedFormat } from './disk-probe.ts';
import { decodeQcow2Header } from './images/qcow2-header.ts';
import { openNbdDisk } from './nbd/nbd-disk.ts';
import { isNbdUri } from './nbd/uri.ts';
import { openDescriptor } from './open-descriptor.ts';
import { openRawDisk } from './raw-disk.ts';
import type { ReadRing } from './read-ring.ts';
import { openVhdFile, openVhdxFile } from './vhd/image-files.ts';
import type { DiskFormat, DiskVariant, Geometry, VirtualDisk } from './virtual-disk.ts';
import type { WriteThread } from './write-thread.ts';

export interface OpenDiskOptions {
  readOnly: boolean;
  /** Default true: keep others from writing, and fail with DISK_IN_USE when somebody does. */
  lock?: boolean;
  /** Default: what the file looks like. Name it once it is known: a guest can make a raw disk look like anything. */
  format?: DiskFormat;
  bootIdFile?: string;
  /** Follow the parent locator of a VHD or VHDX to a file outside of its folder. Default no. */
  allowParentOutside?: boolean;
  clock?: Clock;
  /** For large writes to raw files. Default: the pool of threads. */
  writeThread?: WriteThread;
  /** For reads of raw files and block devices that wait for the device. Default: the pool of threads. */
  readRing?: ReadRing;
}

export type FormatOpener = (path: string, options: OpenDiskOptions) => Promise<VirtualDisk>;

/** One opener for each format that is kept in a file or on a block device. A format without one is refused. */
export const FORMAT_OPENERS: Partial<Record<DiskFormat, FormatOpener>> = {
  raw: openRaw,
  vhd: openVhdFile,
  vhdx: openVhdxFile,
};

/** Fails with FORMAT_NOT_SUPPORTED for formats that have to be served by QEMU's tools, and as the openers do. */
export async function openDisk(location: string, options: OpenDiskOptions): Promise<VirtualDisk> {
  if (isNbdUri(location)) return openNbdDisk(location, options);
  const path = localPath(location);
  const format = options.format ?? (await probedFormat(path));
  const opener = FORMAT_OPENERS[format];
  if (opener === undefined) throw formatNotSupported(path, format);
  return opener(path, options);
}

/** What `disk info` tells. */
export interface DiskFacts {
  location: string;
  format: DiskFormat;
  variant: DiskVariant;
  virtualSize: number;
  logicalSectorSize: number;
  physicalSectorSize: number;
  geometry: Geometry | null;
}

/**
 * Looks at a disk without writing and without locks, so that it works beside a running VM. qcow2 is read by its header
 * only.
 */
export async function probeDisk(location: string, options: Pick<OpenDiskOptions, 'format' | 'clock' | 'allowParentOutside'> = {}): Promise<DiskFacts> {
  if (!isNbdUri(location) && options.format === undefined) {
    const path = localPath(location);
    const { head, found } = await look(path);
    if (found.known && found.format === 'qcow2') return qcow2Facts(path, head);
  }
  const disk = await openDisk(location, { ...options, readOnly: true, lock: false });
  try {
    const { format, variant, virtualSize, logicalSectorSize, physicalSectorSize, geometry } = disk;
    return { location: disk.location, format, variant, virtualSize, logicalSectorSize, physicalSectorSize, geometry };
  } finally {
    await disk.close();
  }
}

async function openRaw(path: string, options: OpenDiskOptions): Promise<VirtualDisk> {
  const { readOnly, lock = true, bootIdFile, writeThread, readRing } = options;
  const found = await stat(path).catch((error: unknown) => {
    throw openFailure(path, error);
  });
  if (!found.isBlockDevice()) return openRawDisk(path, { readOnly, lock, writeThread, readRing });
  return openBlockDisk(path, { readOnly, lock, readRing, ...(bootIdFile === undefined ? {} : { bootIdFile }) });
}

/** What the file looks like. A format that only QEMU's tools open fails with FORMAT_NOT_SUPPORTED. */
export async function probedFormat(path: string): Promise<DiskFormat> {
  const { found } = await look(path);
  if (!found.known) throw formatNotSupported(path, found.name);
  return found.format;
}

async function look(path: string): Promise<{ head: Buffer; found: ProbedFormat }> {
  const file = await openDescriptor(path, { readOnly: true });
  try {
    const facts = await file.stat();
    const isBlockDevice = facts.isBlockDevice();
    if (!isBlockDevice && !facts.isFile()) {
      const what = facts.isDirectory() ? 'is a folder' : 'is neither a file nor a block device';
      throw diskNotSupported(path, what, 'Name an image file, a block device, or an NBD URI.');
    }
    const head = Buffer.alloc(PROBE_HEAD_BYTES);
    const tail = Buffer.alloc(PROBE_TAIL_BYTES);
    const headBytes = await file.read(head, 0);
    // No size can be had from a block device by stat; a fixed VHD is a file anyway.
    const tailBytes = isBlockDevice ? 0 : await file.read(tail, Math.max(0, Number(facts.size) - tail.length));
    const seen = head.subarray(0, headBytes);
    return { head: seen, found: probeFormat(seen, tail.subarray(0, tailBytes)) };
  } catch (error) {
    throw openFailure(path, error);
  } finally {
    await file.close();
  }
}

function qcow2Facts(path: string, head: Buffer): DiskFacts {
  const header = decodeQcow2Header(head);
  if ('malformed' in header) {
    throw diskNotSupported(path, `is not understood: ${header.malformed}`, 'Check it with: qemu-img check.');
  }
  return {
    location: path, format: 'qcow2', variant: header.hasBackingFile ? 'differencing' : 'dynamic', virtualSize: header.virtualSize,
    logicalSectorSize: 512, physicalSectorSize: 4096, geometry: null,
  };
}

function formatNotSupported(path: string, format: string): UnderstudyError {
  const serve = `qemu-nbd --persistent --format=${format} --socket=/run/understudy-disk.sock ${shellWord(path)}`;
  return new UnderstudyError('usage', 'FORMAT_NOT_SUPPORTED', `${path} is a ${format} image, which is not opened directly`,
    `Serve it with: ${serve} and name nbd+unix:///?socket=/run/understudy-disk.sock; ` +
    'if it is a raw disk that only looks like that, say so with the format raw.');
}

/** Other programs' URIs would otherwise be looked up as strange file names. */
function localPath(location: string): string {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(location)?.[1];
  if (scheme === undefined) return resolve(location);
  if (scheme === 'file') throw diskNotSupported(location, 'is a file URI', 'Write the path alone.');
  throw diskNotSupported(location, `has the scheme ${scheme}, which is not opened directly`,
    'Serve it with qemu-nbd and name the NBD URI; write ./ before a file name that has a colon in it.');
}
