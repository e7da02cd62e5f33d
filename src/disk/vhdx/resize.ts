import { UnderstudyError } from '../../model/errors.ts';
import type { Files, Random } from '../../model/ports.ts';
import { assertGrows } from '../vhd/merge-runs.ts';
import { alignUp } from '../vhd/space.ts';
import { Bat, batShape, PAYLOAD, payloadIndex } from './bat.ts';
import type { BatShape } from './bat.ts';
import { allItems } from './create.ts';
import { MIB } from './header.ts';
import { writeZeroes } from './log-replay.ts';
import { encodeSize, ITEM, VIRTUAL_BYTES_MAX } from './metadata.ts';
import { openForChange } from './open.ts';
import type { OpenImage } from './open.ts';
import { changedPages, metadataPages, regionTablePages, withItem } from './structure-pages.ts';
import { usedRanges } from './vhdx-image.ts';

export interface ResizeOptions {
  size: number;
  random: Pick<Random, 'uuid'>;
  /** The identity that the disk gets, when somebody was told it before. */
  dataWriteGuid?: string;
}

/**
 * Makes a VHDX larger; the new part reads as zeroes. The disk must not be open. A crash leaves the old size or the new one.
 * @throws UnderstudyError DISK_SHRINK_REFUSED, DISK_SIZE_REFUSED, DISK_MALFORMED
 */
export async function resizeVhdx(path: string, files: Files, options: ResizeOptions): Promise<void> {
  const open = await openForChange(path, files, options.random);
  try {
    await resizeOpen(open, options);
  } finally {
    await open.file.close();
  }
}

/** The same for a file that is open, but at rest: stored blocks stay where they are, so they may be read and written meanwhile. */
export async function resizeOpen(open: OpenImage, { size, dataWriteGuid }: Pick<ResizeOptions, 'size' | 'dataWriteGuid'>): Promise<void> {
  const { parameters } = open.image;
  assertGrows(open.file.path, parameters.virtualSize, size);
  if (size % parameters.logicalSectorSize !== 0 || size > VIRTUAL_BYTES_MAX) {
    throw new UnderstudyError('usage', 'DISK_SIZE_REFUSED',
      `a VHDX with sectors of ${parameters.logicalSectorSize} bytes cannot have ${size} bytes`,
      `Choose a multiple of ${parameters.logicalSectorSize} up to ${VIRTUAL_BYTES_MAX} bytes (64 TiB).`);
  }
  if (size === parameters.virtualSize) return;
  await open.session.beginData(dataWriteGuid);
  await grow(open, size);
  await open.session.rest();
}

/** New table entries first; the size, which brings them into use, in the last log entry. */
async function grow({ file, image, session }: OpenImage, size: number): Promise<void> {
  const { shape, batRegion, regions } = image;
  const wanted = batShape(size, shape.blockSize, shape.sectorSize, image.parameters.hasParent);
  await zeroBehindLastBlock({ file, image, session });
  const bat = new Bat(new Uint32Array(wanted.entries * 2));
  bat.words.set(image.bat.words.subarray(0, bat.words.length));
  let end = usedRanges(image).reduce((last, range) => Math.max(last, range.end), alignUp(image.fileSize, MIB));
  const fits = wanted.entries * 8 <= batRegion.length;
  const table = fits ? batRegion : { ...batRegion, offset: end, length: alignUp(wanted.entries * 8, MIB) };
  if (!fits) end += table.length;
  end = fillNewEntries(bat, shape, wanted, image.variant, end);
  await file.truncate(end);
  session.fileSize = end;
  const bytes = new Uint8Array(bat.words.buffer);
  const last = await metadataPages(image, file, withItem(await allItems(image), ITEM.virtualDiskSize, encodeSize(size)));
  if (fits) {
    await session.sync();
    await session.writePages(await changedPages(file, table.offset, bytes));
  } else {
    // Nothing names the new table yet: it is written in place, and durable before the region table names it.
    await file.write([bytes], table.offset);
    await session.sync();
    last.push(...(await regionTablePages(file, regions.map((region) => (region === batRegion ? table : region)))));
  }
  await session.writeTogether(last);
}

/** New blocks read as zeroes, also where a parent is larger. Returns the end of the file. */
function fillNewEntries(bat: Bat, shape: BatShape, wanted: BatShape, variant: string, fileEnd: number): number {
  let end = fileEnd;
  for (let block = shape.payloadBlocks; block < wanted.payloadBlocks; block++) {
    if (variant !== 'fixed') {
      bat.set(payloadIndex(wanted, block), PAYLOAD.zero, 0);
      continue;
    }
    bat.set(payloadIndex(wanted, block), PAYLOAD.full, end);
    end += wanted.blockSize;
  }
  return end;
}

/**
 * What lies in the last block behind the old end becomes part of the disk: it must be zeroes. No guest sees this
 * change.
 */
async function zeroBehindLastBlock({ file, image }: OpenImage): Promise<void> {
  const { bat, shape, parameters } = image;
  const used = parameters.virtualSize % shape.blockSize;
  const index = payloadIndex(shape, shape.payloadBlocks - 1);
  if (used === 0 || bat.state(index) !== PAYLOAD.full) return;
  await writeZeroes(file, bat.offset(index) + used, shape.blockSize - used);
}
