import { resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Files, OpenFile, Random } from '../../model/ports.ts';
import { writeNewFile } from '../vhd/create.ts';
import { malformedImage, readExactly } from '../vhd/image-errors.ts';
import { relativeWindowsPath } from '../vhd/parent-path.ts';
import { alignUp } from '../vhd/space.ts';
import { Bat, batShape, PAYLOAD, payloadIndex } from './bat.ts';
import type { BatShape } from './bat.ts';
import { GUID_ZERO } from './guid.ts';
import { encodeHeader, encodeIdentifier, HEADER_AT, MIB } from './header.ts';
import type { Header } from './header.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  encodeFileParameters,
  encodeGuidItem,
  encodeMetadataTable,
  encodeSize,
  encodeU32,
  FLAG,
  ITEM,
  METADATA_TABLE_BYTES,
  VIRTUAL_BYTES_MAX,
} from './metadata.ts';
import type { DiskParameters, MetadataEntry } from './metadata.ts';
import { encodeParentLocator } from './parent-locator.ts';
import { encodeRegionTable, REGION_BAT, REGION_METADATA, REGION_TABLE_AT } from './region-table.ts';
import { readVhdx } from './vhdx-image.ts';
import type { VhdxImage } from './vhdx-image.ts';

export interface CreateOptions {
  random: Pick<Random, 'uuid'>;
  /** Bytes, a multiple of the logical sector size. A differencing disk takes its parent's. */
  size?: number;
  variant: 'fixed' | 'dynamic' | 'differencing';
  /** Path of the parent; for `differencing` only. */
  parent?: string;
  /**
   * Power of two, 1 to 256 MiB; unless told 32 MiB as Windows does, 2 MiB for differencing disks so that they stay
   * small.
   */
  blockSize?: number;
  /** A differencing disk takes its parent's. Unless told 512, and 4096 physical. */
  logicalSectorSize?: 512 | 4096;
  physicalSectorSize?: 512 | 4096;
}

const CREATOR = 'Understudy';
const LOG_AT = MIB;
const METADATA_AT = 2 * MIB;
const BAT_AT = 3 * MIB;
/** Copies of other people's metadata items: what Windows itself writes is a few hundred bytes. */
const COPIED_BYTES_MAX = 16 * MIB;

export interface NewItem {
  guid: string;
  flags: number;
  bytes: Buffer;
}

/**
 * Makes a new VHDX, durable when it resolves.
 * @throws UnderstudyError DISK_SIZE_REFUSED, DISK_MALFORMED of the parent; EEXIST when there is a file already
 */
export async function createVhdx(path: string, files: Files, options: CreateOptions): Promise<void> {
  const parent = options.variant === 'differencing' ? await readParent(options.parent!, files) : null;
  const parameters = parametersFor(options, parent?.image ?? null);
  const items = itemsFor(path, parameters, options, parent);
  const shape = batShape(parameters.virtualSize, parameters.blockSize, parameters.logicalSectorSize, parameters.hasParent);
  const batLength = alignUp(shape.entries * 8, MIB);
  const table = encodeRegionTable([
    { guid: REGION_BAT, offset: BAT_AT, length: batLength, required: true },
    { guid: REGION_METADATA, offset: METADATA_AT, length: MIB, required: true },
  ]);
  const header: Header = {
    sequence: 1n,
    fileWriteGuid: options.random.uuid(),
    dataWriteGuid: options.random.uuid(),
    logGuid: GUID_ZERO,
    logLength: MIB,
    logOffset: LOG_AT,
  };
  const payloadAt = BAT_AT + batLength;
  await writeNewFile(path, files, async (file) => {
    await file.truncate(payloadAt + (options.variant === 'fixed' ? shape.payloadBlocks * shape.blockSize : 0));
    await file.write([encodeIdentifier(CREATOR)], 0);
    await file.write([encodeHeader(header)], HEADER_AT[0]);
    await file.write([encodeHeader({ ...header, sequence: 2n })], HEADER_AT[1]);
    for (const at of REGION_TABLE_AT) await file.write([table], at);
    await file.write([encodeMetadata(items)], METADATA_AT);
    if (options.variant !== 'differencing')
      await writeFirstTable(file, shape, options.variant === 'fixed' ? payloadAt : null);
  });
}

/** Dynamic disks start as ZERO, as Windows makes them: `not present` would leave undefined what a guest reads. */
async function writeFirstTable(file: OpenFile, shape: BatShape, payloadAt: number | null): Promise<void> {
  const bat = new Bat(new Uint32Array(shape.entries * 2));
  for (let block = 0; block < shape.payloadBlocks; block++) {
    if (payloadAt === null) bat.set(payloadIndex(shape, block), PAYLOAD.zero, 0);
    else bat.set(payloadIndex(shape, block), PAYLOAD.full, payloadAt + block * shape.blockSize);
  }
  await file.write([new Uint8Array(bat.words.buffer)], BAT_AT);
}

function parametersFor(options: CreateOptions, parent: VhdxImage | null): DiskParameters {
  const logicalSectorSize = parent?.parameters.logicalSectorSize ?? options.logicalSectorSize ?? 512;
  const virtualSize = parent?.parameters.virtualSize ?? options.size ?? 0;
  if (
    !Number.isSafeInteger(virtualSize) ||
    virtualSize <= 0 ||
    virtualSize % logicalSectorSize !== 0 ||
    virtualSize > VIRTUAL_BYTES_MAX
  ) {
    throw new UnderstudyError(
      'usage',
      'DISK_SIZE_REFUSED',
      `a VHDX with sectors of ${logicalSectorSize} bytes cannot have ${virtualSize} bytes`,
      `Choose a multiple of ${logicalSectorSize} up to ${VIRTUAL_BYTES_MAX} bytes (64 TiB).`,
    );
  }
  const blockSize = options.blockSize ?? (parent === null ? 32 * MIB : 2 * MIB);
  if (blockSize < BLOCK_BYTES_MIN || blockSize > BLOCK_BYTES_MAX || (blockSize & (blockSize - 1)) !== 0) {
    throw new UnderstudyError(
      'usage',
      'DISK_SIZE_REFUSED',
      `a VHDX cannot have blocks of ${blockSize} bytes`,
      'Choose a power of two from 1 MiB to 256 MiB.',
    );
  }
  return {
    blockSize,
    leaveBlocksAllocated: options.variant === 'fixed',
    hasParent: parent !== null,
    virtualSize,
    logicalSectorSize,
    virtualDiskId: parent?.parameters.virtualDiskId ?? options.random.uuid(),
    physicalSectorSize: parent?.parameters.physicalSectorSize ?? options.physicalSectorSize ?? 4096,
  };
}

function itemsFor(
  path: string,
  parameters: DiskParameters,
  options: CreateOptions,
  parent: { image: VhdxImage; items: NewItem[] } | null,
): NewItem[] {
  const { required, virtualDisk } = FLAG;
  const own: NewItem[] = [{ guid: ITEM.fileParameters, flags: required, bytes: encodeFileParameters(parameters) }];
  if (parent === null) {
    const flags = required | virtualDisk;
    return [
      ...own,
      { guid: ITEM.virtualDiskSize, flags, bytes: encodeSize(parameters.virtualSize) },
      { guid: ITEM.virtualDiskId, flags, bytes: encodeGuidItem(parameters.virtualDiskId) },
      { guid: ITEM.logicalSectorSize, flags, bytes: encodeU32(parameters.logicalSectorSize) },
      { guid: ITEM.physicalSectorSize, flags, bytes: encodeU32(parameters.physicalSectorSize) },
    ];
  }
  const relative = relativeWindowsPath(path, options.parent!);
  // Some readers (libvhdi) take the parent's name from the absolute path, which needs a drive; everybody tries the
  // relative one first.
  const absolute = `\\\\?\\C:${resolve(options.parent!).replaceAll('/', '\\')}`;
  const locator = { linkage: parent.image.header.dataWriteGuid, linkage2: null, relative, volume: null, absolute };
  return [...own, ...parent.items, { guid: ITEM.parentLocator, flags: required, bytes: encodeParentLocator(locator) }];
}

/** The parent and those of its metadata items that a child has to copy: all that describe the virtual disk. */
async function readParent(path: string, files: Files): Promise<{ image: VhdxImage; items: NewItem[] }> {
  const file = await files.open(path, 'read');
  try {
    const image = await readVhdx(file);
    return { image, items: await virtualDiskItems(image) };
  } finally {
    await file.close();
  }
}

export async function virtualDiskItemsOf(path: string, files: Files): Promise<NewItem[]> {
  return (await readParent(path, files)).items;
}

/** The items that a child copies and a merge brings back ([MS-VHDX] 2.6.1.2, IsVirtualDisk). */
async function virtualDiskItems(image: VhdxImage): Promise<NewItem[]> {
  return (await allItems(image)).filter((item) => (item.flags & FLAG.virtualDisk) !== 0);
}

export async function allItems(image: VhdxImage): Promise<NewItem[]> {
  const total = image.metadata.reduce((sum, entry) => sum + entry.length, 0);
  if (total > COPIED_BYTES_MAX)
    throw malformedImage(image.path, `${total} bytes of metadata, at most ${COPIED_BYTES_MAX} can be copied`);
  const items: NewItem[] = [];
  for (const { guid, flags, offset, length } of image.metadata) {
    items.push({
      guid,
      flags,
      bytes: await readExactly(image.file, image.metadataRegion.offset + offset, length, `metadata item ${guid}`),
    });
  }
  return items;
}

/** Table and items, one behind the other; each on its own 8 bytes, the parent locator on a page of its own. */
export function encodeMetadata(items: readonly NewItem[]): Buffer {
  let at = METADATA_TABLE_BYTES;
  const entries: MetadataEntry[] = items.map(({ guid, flags, bytes }) => {
    const offset = alignUp(at, guid === ITEM.parentLocator ? 4096 : 8);
    at = offset + bytes.length;
    return { guid, offset: bytes.length === 0 ? 0 : offset, length: bytes.length, flags };
  });
  if (at > MIB) throw new RangeError(`${at} bytes of metadata do not fit into 1 MiB`);
  const region = Buffer.alloc(at);
  region.set(encodeMetadataTable(entries));
  items.forEach(({ bytes }, index) => region.set(bytes, entries[index]!.offset));
  return region;
}
