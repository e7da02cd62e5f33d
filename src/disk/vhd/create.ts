import { basename, dirname } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Clock, Files, OpenFile, Random } from '../../model/ports.ts';
import type { Geometry } from '../virtual-disk.ts';
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, encodeDynamicHeader, HEADER_BYTES, noParent } from './dynamic-header.ts';
import type { DynamicHeader } from './dynamic-header.ts';
import { encodeFooter, FOOTER_BYTES, VHD_BYTES_MAX, VHD_TYPE, vhdTimestamp } from './footer.ts';
import type { Footer, VhdType } from './footer.ts';
import { geometryOf } from './geometry.ts';
import { relativeWindowsPath } from './parent-path.ts';
import { alignUp } from './space.ts';
import { inspectVhd } from './vhd-image.ts';

export interface CreateOptions {
  random: Random;
  clock: Pick<Clock, 'now'>;
  /** Bytes, a multiple of 512. A differencing disk takes its parent's. */
  size?: number;
  variant: 'fixed' | 'dynamic' | 'differencing';
  /** Path of the parent; for `differencing` only. */
  parent?: string;
  /** Power of two, 4 KiB to 256 MiB; 2 MiB unless told. */
  blockSize?: number;
  /** As another disk has it; computed from the size unless told. */
  geometry?: Geometry;
}

const BLOCK_BYTES = 2 << 20;
const BAT_AT = 1536;

/**
 * Makes a new VHD, durable when it resolves.
 * @throws UnderstudyError DISK_SIZE_REFUSED; EEXIST when there is a file already
 */
export async function createVhd(path: string, files: Files, options: CreateOptions): Promise<void> {
  const parent = options.variant === 'differencing' ? await inspectVhd(options.parent!, files) : null;
  const size = parent?.virtualSize ?? options.size ?? 0;
  if (!Number.isSafeInteger(size) || size <= 0 || size % 512 !== 0 || size > VHD_BYTES_MAX) {
    throw new UnderstudyError(
      'usage',
      'DISK_SIZE_REFUSED',
      `a VHD cannot have ${size} bytes`,
      `Choose a multiple of 512 up to ${VHD_BYTES_MAX} bytes (2040 GiB), or VHDX for larger disks.`,
    );
  }
  const { blockSize = BLOCK_BYTES } = options;
  if (blockSize < BLOCK_BYTES_MIN || blockSize > BLOCK_BYTES_MAX || (blockSize & (blockSize - 1)) !== 0) {
    throw new UnderstudyError('usage', 'DISK_SIZE_REFUSED', `a VHD cannot have blocks of ${blockSize} bytes`,
      'Choose a power of two from 4 KiB to 256 MiB; 2 MiB is usual.');
  }
  const footer = newFooter(size, VHD_TYPE[options.variant], options);
  if (parent !== null) footer.geometry = parent.footer.geometry;
  const image =
    options.variant === 'fixed'
      ? null
      : sparseLayout(
          path,
          size,
          options,
          parent === null
            ? null
            : {
                path: options.parent!,
                uniqueId: parent.footer.uniqueId,
                timestamp: parent.footer.timestamp,
              },
        );
  await writeNewFile(path, files, async (file) => {
    if (image === null) {
      await file.truncate(size);
      await file.write([encodeFooter(footer)], size);
      return;
    }
    const bytes = encodeFooter(footer);
    await file.write(
      [bytes, encodeDynamicHeader(image.header), Buffer.alloc(image.batBytes, 0xff), image.locator, bytes],
      0,
    );
  });
}

/** Creates, fills and syncs a file and its folder; takes it away again when that fails. */
export async function writeNewFile(path: string, files: Files, fill: (file: OpenFile) => Promise<void>): Promise<void> {
  const file = await files.open(path, 'create');
  try {
    try {
      await fill(file);
      await file.datasync();
    } finally {
      await file.close();
    }
    await files.syncFolder(dirname(path));
  } catch (error) {
    await files.remove(path);
    throw error;
  }
}

function newFooter(size: number, type: VhdType, options: CreateOptions): Footer {
  return {
    features: 2,
    headerOffset: type === VHD_TYPE.fixed ? null : FOOTER_BYTES,
    timestamp: vhdTimestamp(options.clock.now()),
    // QEMU takes the size of files by `qemu` and `vpc ` from the geometry; of `win ` files everybody takes the current
    // size.
    creatorApp: 'win ',
    creatorVersion: 0x000a0000,
    creatorOs: 'Wi2k',
    originalSize: size,
    currentSize: size,
    geometry: options.geometry ?? geometryOf(size),
    type,
    uniqueId: options.random.uuid(),
    savedState: 0,
  };
}

/** Footer copy, header, table, locator, footer: one after another. */
function sparseLayout(
  path: string,
  size: number,
  options: CreateOptions,
  parent: { path: string; uniqueId: string; timestamp: number } | null,
): { header: DynamicHeader; batBytes: number; locator: Buffer } {
  const blockSize = options.blockSize ?? BLOCK_BYTES;
  const entries = Math.ceil(size / blockSize);
  const batBytes = alignUp(entries * 4, 512);
  const header: DynamicHeader = { batOffset: BAT_AT, maxTableEntries: entries, blockSize, ...noParent() };
  if (parent === null) return { header, batBytes, locator: Buffer.alloc(0) };
  const text = Buffer.from(relativeWindowsPath(path, parent.path), 'utf16le');
  const locator = Buffer.alloc(alignUp(text.length, 512));
  locator.set(text);
  header.parentUniqueId = parent.uniqueId;
  header.parentTimestamp = parent.timestamp;
  header.parentName = basename(parent.path).slice(0, 255);
  header.locators = [
    { code: 'W2ru', space: locator.length, length: text.length, offset: FOOTER_BYTES + HEADER_BYTES + batBytes },
  ];
  return { header, batBytes, locator };
}
