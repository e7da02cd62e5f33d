import { UnderstudyError } from '../../model/errors.ts';
import type { Files, OpenFile } from '../../model/ports.ts';
import { patchTable } from './dynamic-header.ts';
import { encodeFooter, FOOTER_BYTES, VHD_BYTES_MAX } from './footer.ts';
import type { Footer } from './footer.ts';
import { geometryOf } from './geometry.ts';
import { readExactly } from './image-errors.ts';
import { assertGrows } from './merge-runs.ts';
import { alignUp, layout, type Range } from './space.ts';
import { ABSENT, readVhd, usedRanges } from './vhd-image.ts';
import type { SparseParts, VhdImage } from './vhd-image.ts';

/**
 * Makes a VHD larger; the new part reads as zeroes. The disk must not be open. A crash leaves the old size or the new one.
 * @throws UnderstudyError DISK_SHRINK_REFUSED, DISK_SIZE_REFUSED, DISK_MALFORMED
 */
export async function resizeVhd(path: string, files: Files, options: { size: number }): Promise<void> {
  const file = await files.open(path, 'write');
  try {
    await resizeFile(file, options.size);
  } finally {
    await file.close();
  }
}

/** The same for a file that is open, but at rest: stored blocks stay where they are, so they may be read and written meanwhile. */
export async function resizeFile(file: OpenFile, size: number): Promise<void> {
  const image = await readForWriting(file);
  assertGrows(file.path, image.virtualSize, size);
  if (size % 512 !== 0 || size > VHD_BYTES_MAX) {
    throw new UnderstudyError('usage', 'DISK_SIZE_REFUSED', `a VHD cannot have ${size} bytes`,
      `Choose a multiple of 512 up to ${VHD_BYTES_MAX} bytes (2040 GiB).`);
  }
  if (size === image.virtualSize) return;
  // As `win ` every reader takes the size from the footer and not from the geometry.
  const footer: Footer = { ...image.footer, creatorApp: 'win ', currentSize: size, geometry: geometryOf(size) };
  if (image.sparse === null) await growFixed(file, image, footer);
  else await growSparse(file, image, image.sparse, footer);
}

/**
 * The new footer is durable before the old one, now inside of the disk, becomes zeroes; until that is durable too, the new one says where
 * it lies. So a crash leaves the old disk, or the larger one with nothing but zeroes behind the old end.
 */
async function growFixed(file: OpenFile, image: VhdImage, footer: Footer): Promise<void> {
  const growth = { start: image.virtualSize, end: Math.min(image.fileSize, footer.currentSize) };
  await file.write([encodeFooter({ ...footer, growth })], footer.currentSize);
  await file.datasync();
  // A file that was longer than its disk: the footer that counts is the last one.
  if (image.fileSize > footer.currentSize + FOOTER_BYTES) await file.truncate(footer.currentSize + FOOTER_BYTES);
  await endGrowth(file, footer, growth);
}

async function endGrowth(file: OpenFile, { growth: _, ...footer }: Footer, { start, end }: Range): Promise<void> {
  const zeroes = Buffer.alloc(Math.min(end - start, 1 << 20));
  for (let at = start; at < end; at += zeroes.length) await file.write([zeroes.subarray(0, Math.min(zeroes.length, end - at))], at);
  await file.datasync();
  await file.write([encodeFooter(footer)], footer.currentSize);
  await file.datasync();
}

/** What the file says, once a growth that was interrupted has come to its end. Whoever will write to the disk begins here. */
export async function readForWriting(file: OpenFile): Promise<VhdImage> {
  const image = await readVhd(file);
  const { growth } = image.footer;
  if (growth === undefined) return image;
  await endGrowth(file, image.footer, growth);
  return readVhd(file);
}

/** Table, then header, then footers: each step is durable before the next, and each in-between state is the old disk. */
async function growSparse(file: OpenFile, image: VhdImage, sparse: SparseParts, footer: Footer): Promise<void> {
  await zeroBehindLastBlock(file, image, sparse);
  const used = layout(usedRanges(image, sparse), 0);
  if ('overlap' in used) throw new TypeError('the image was checked when it was opened');
  const entries = Math.ceil(footer.currentSize / sparse.header.blockSize);
  const bytes = Buffer.alloc(alignUp(entries * 4, 512), 0xff);
  sparse.bat.forEach((sector, block) => bytes.writeUInt32BE(sector, block * 4));
  const tableEnd = sparse.header.batOffset + bytes.length;
  const inTheWay = usedRanges(image, sparse).some(({ start }) => start > sparse.header.batOffset && start < tableEnd);
  const batOffset = inTheWay ? alignUp(used.end, 512) : sparse.header.batOffset;
  await file.write([bytes], batOffset);
  const end = Math.max(used.end, batOffset + bytes.length);
  if (end + FOOTER_BYTES < (await file.size())) await file.truncate(end);
  await file.datasync();
  const header = await readExactly(file, image.footer.headerOffset!, 1024, 'dynamic header');
  patchTable(header, batOffset, Math.max(entries, sparse.header.maxTableEntries));
  await file.write([header.subarray(0, 512)], image.footer.headerOffset!);
  await file.datasync();
  await writeFooters(file, end, footer);
}

/** The tail is durable before the copy is touched: one of the two is good at any moment. */
export async function writeFooters(file: OpenFile, end: number, footer: Footer): Promise<void> {
  const bytes = encodeFooter(footer);
  await file.write([bytes], end);
  await file.datasync();
  await file.write([bytes], 0);
  await file.datasync();
}

/**
 * What lies in the last block behind the old end becomes part of the disk: it must be zeroes. No guest sees this
 * change.
 */
async function zeroBehindLastBlock(file: OpenFile, image: VhdImage, { bat, header, bitmapBytes }: SparseParts): Promise<void> {
  const used = image.virtualSize % header.blockSize;
  const sector = bat[bat.length - 1]!;
  if (used === 0 || sector === ABSENT) return;
  await file.write([Buffer.alloc(header.blockSize - used)], sector * 512 + bitmapBytes + used);
}
