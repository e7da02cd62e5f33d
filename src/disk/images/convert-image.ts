/**
 * Copies a disk into a new image of another format. Raw, VHD and VHDX are read and written by our own code, qcow2 by QEMU's, through
 * a sparse raw file beside the new image where the other side is one that QEMU may not open.
 *
 * - The image appears under its name when it is whole and durable; until then, and after an interruption, there is nothing.
 * - The source is only read.
 */
import { dirname } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import { openFailure } from '../disk-errors.ts';
import { hostFiles } from '../host-files.ts';
import { isNbdUri } from '../nbd/uri.ts';
import { openDisk, probeDisk, probedFormat } from '../open-disk.ts';
import type { LongWork } from '../vhd/merge-runs.ts';
import type { DiskFormat, VirtualDisk } from '../virtual-disk.ts';
import { copyDisk } from './copy-disk.ts';
import { createImage, type NewImage } from './create-image.ts';
import { qemuConvert, qemuImage } from './qemu-tools.ts';

export interface ConvertOptions extends LongWork {
  /** Of the source; default: what it looks like. */
  from?: DiskFormat;
  to: Omit<NewImage, 'size' | 'geometry'>;
  allowParentOutside?: boolean;
}

/** Returns the size that the guest sees. @throws DISK_EXISTS, and what opening and creating throw */
export async function convertImage(source: string, dest: string, options: ConvertOptions): Promise<{ virtualSize: number }> {
  if ((await hostFiles.stat(dest)) !== null) throw openFailure(dest, Object.assign(new Error(dest), { code: 'EEXIST' }));
  const from = options.from ?? (await formatOfSource(source));
  const partial = `${dest}.partial`;
  await hostFiles.remove(partial);
  try {
    const virtualSize = await convertInto(source, from, partial, options);
    options.signal?.throwIfAborted();
    await sync(partial);
    await hostFiles.rename(partial, dest);
    await hostFiles.syncFolder(dirname(dest));
    return { virtualSize };
  } catch (error) {
    await hostFiles.remove(partial);
    throw openFailure(dest, error);
  }
}

async function convertInto(source: string, from: DiskFormat, partial: string, options: ConvertOptions): Promise<number> {
  const { to, progress, signal } = options;
  const qemu = { ...(signal && { signal }), onProgress: (percent: number) => progress?.(percent, 100) };
  const access = { write: false, ...(options.allowParentOutside === true && { allowParentOutside: true }) };
  const staged = `${partial}.raw`;
  try {
    if (from === 'qcow2') {
      const image = await qemuImage(source, from, hostFiles, access);
      await qemuConvert(image, to.format === 'raw' || to.format === 'qcow2' ? partial : staged, to.format === 'qcow2' ? 'qcow2' : 'raw', qemu);
      if (to.format === 'raw' || to.format === 'qcow2') return await sizeOf(partial, to.format);
      return await copyInto(staged, 'raw', partial, options);
    }
    if (to.format !== 'qcow2') return await copyInto(source, from, partial, options);
    // Read by us, whatever it is: QEMU may not open every VHD and VHDX, and of an NBD export it would need the address in its own words.
    const direct = from === 'raw';
    const size = direct ? await sizeOf(source, from) : await copyInto(source, from, staged, { ...options, to: { format: 'raw' } });
    await qemuConvert(await qemuImage(direct ? source : staged, 'raw', hostFiles, access), partial, 'qcow2', qemu);
    return size;
  } finally {
    await hostFiles.remove(staged);
  }
}

async function copyInto(source: string, from: DiskFormat, dest: string, options: ConvertOptions): Promise<number> {
  const { to, allowParentOutside } = options;
  const reading = await openDisk(source, { readOnly: true, format: from, ...(allowParentOutside === true && { allowParentOutside }) });
  try {
    const { virtualSize, logicalSectorSize, physicalSectorSize, geometry } = reading;
    const sectors = to.format === 'vhdx' && reading.format === 'vhdx' ? { logicalSectorSize, physicalSectorSize } : {};
    await hostFiles.remove(dest);
    await createImage(dest, { ...sectors, ...to, size: virtualSize, geometry });
    const writing = await openDisk(dest, { readOnly: false, format: to.format });
    try {
      await copyDisk(reading, writing, options);
    } finally {
      await closeQuietly(writing, options.signal);
    }
    return virtualSize;
  } finally {
    await reading.close();
  }
}

/** After an interruption the file is removed: what closing it would say is of no interest. */
async function closeQuietly(disk: VirtualDisk, signal: AbortSignal | undefined): Promise<void> {
  await disk.close().catch((error: unknown) => {
    if (signal?.aborted !== true) throw error;
  });
}

async function sizeOf(path: string, format: 'raw' | 'qcow2'): Promise<number> {
  return (await probeDisk(path, format === 'raw' ? { format } : {})).virtualSize;
}

/**
 * A guest may have made its raw disk look like an image that is built on another file, which a copy would then hold: under a name
 * that says raw nothing else is believed.
 */
async function formatOfSource(source: string): Promise<DiskFormat> {
  if (isNbdUri(source)) return 'nbd';
  const format = await probedFormat(source);
  if (format === 'raw' || !/\.(raw|img)$/i.test(source)) return format;
  throw new UnderstudyError('usage', 'DISK_FORMAT_UNCLEAR', `${source} has the name of a raw disk, but looks like ${format}`,
    `Say what it is: --from raw, or --from ${format}.`);
}

async function sync(path: string): Promise<void> {
  const file = await hostFiles.open(path, 'write');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}
