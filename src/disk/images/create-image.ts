/** Makes new disk images of any format. */
import { UnderstudyError } from '../../model/errors.ts';
import { diskNotSupported, openFailure } from '../disk-errors.ts';
import { hostClock, hostRandom } from '../host-clock.ts';
import { hostFiles } from '../host-files.ts';
import { createRawDisk } from '../raw-disk.ts';
import { createVhd } from '../vhd/create.ts';
import { imageFiles } from '../vhd/image-files.ts';
import type { DiskFormat, Geometry } from '../virtual-disk.ts';
import { createVhdx } from '../vhdx/create.ts';
import { qemuCreate } from './qemu-tools.ts';

export interface NewImage {
  format: DiskFormat;
  /** Bytes that the guest sees. */
  size: number;
  /** Of VHD and VHDX. Default dynamic: it grows as it is written. */
  variant?: 'fixed' | 'dynamic';
  /** Of dynamic VHD and VHDX, in bytes. Default: what Windows chooses. */
  blockSize?: number;
  /** VHDX only; the others have 512. */
  logicalSectorSize?: number;
  physicalSectorSize?: number;
  /** VHD only; default: what the specification computes from the size. */
  geometry?: Geometry | null;
}

/**
 * Durable when it resolves.
 * @throws DISK_EXISTS, DISK_SIZE_REFUSED, DISK_SIZE_NOT_SECTORS, IMAGE_OPTION_REFUSED, DISK_NO_SPACE, …
 */
export async function createImage(path: string, image: NewImage): Promise<void> {
  refuseForeignOptions(image);
  const { format, size, variant = 'dynamic', blockSize, geometry } = image;
  try {
    if (format === 'raw') return await createRaw(path, size);
    if ((await hostFiles.stat(path)) !== null) throw Object.assign(new Error(`${path} exists`), { code: 'EEXIST' });
    const shape = { random: hostRandom, size, variant, ...(blockSize === undefined ? {} : { blockSize }) };
    if (format === 'vhd') {
      await createVhd(path, imageFiles('none'), { ...shape, clock: hostClock, ...(geometry ? { geometry } : {}) });
    } else if (format === 'vhdx') await createVhdx(path, imageFiles('none'), { ...shape, ...sectorSizes(image) });
    else if (format === 'qcow2') await qemuCreate(path, { size });
    else throw diskNotSupported(path, `cannot be made as ${format}`, 'Choose raw, vhd, vhdx or qcow2.');
  } catch (error) {
    throw openFailure(path, error);
  }
}

/** By the end of its name; what says nothing is raw. */
export function formatOfName(path: string): DiskFormat {
  const extension = /\.([^./]+)$/.exec(path)?.[1]?.toLowerCase();
  switch (extension) {
    case 'vhd':
    case 'avhd':
      return 'vhd';
    case 'vhdx':
    case 'avhdx':
      return 'vhdx';
    case 'qcow2':
      return 'qcow2';
    default:
      return 'raw';
  }
}

async function createRaw(path: string, size: number): Promise<void> {
  const disk = await createRawDisk(path, size);
  await disk.flush();
  await disk.close();
}

function sectorSizes({ logicalSectorSize, physicalSectorSize }: NewImage) {
  return {
    ...(logicalSectorSize === undefined ? {} : { logicalSectorSize: sectorSize(logicalSectorSize) }),
    ...(physicalSectorSize === undefined ? {} : { physicalSectorSize: sectorSize(physicalSectorSize) }),
  };
}

function sectorSize(bytes: number): 512 | 4096 {
  if (bytes === 512 || bytes === 4096) return bytes;
  throw refused(`a VHDX cannot have sectors of ${bytes} bytes`, 'Choose 512 or 4096.');
}

/** An option that the format does not have would silently mean nothing. */
function refuseForeignOptions({ format, variant, blockSize, logicalSectorSize }: NewImage): void {
  const sparse = format === 'vhd' || format === 'vhdx';
  if (!sparse && (variant !== undefined || blockSize !== undefined)) {
    throw refused(`a ${format} image has neither variants nor a block size`, 'Leave them away, or choose vhd or vhdx.');
  }
  if (format !== 'vhdx' && logicalSectorSize !== undefined && logicalSectorSize !== 512) {
    throw refused(`a ${format} image has sectors of 512 bytes, asked were ${logicalSectorSize}`, 'Choose vhdx.');
  }
}

const refused = (message: string, remedy: string): UnderstudyError => new UnderstudyError('usage', 'IMAGE_OPTION_REFUSED', message, remedy);
