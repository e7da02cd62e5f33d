import type { Files, OpenFile } from '../../model/ports.ts';
import type { DiskVariant } from '../virtual-disk.ts';
import { decodeDynamicHeader, HEADER_BYTES } from './dynamic-header.ts';
import type { DynamicHeader } from './dynamic-header.ts';
import { decodeFooter, FOOTER_BYTES, guestSizeOf, VHD_TYPE } from './footer.ts';
import type { Footer } from './footer.ts';
import { decoded, malformedImage, readExactly } from './image-errors.ts';
import type { ParentPaths } from './parent-path.ts';
import { alignUp } from './space.ts';
import type { Range } from './space.ts';

/** Everything that a VHD file says about itself, read and validated; blocks are not touched. */
export interface VhdImage {
  path: string;
  fileSize: number;
  footer: Footer;
  variant: DiskVariant;
  virtualSize: number;
  /** Which copies of the footer are good. A fixed disk has no copy at 0. */
  footers: { tail: boolean; head: boolean; equal: boolean };
  /** Null for a fixed disk. */
  sparse: SparseParts | null;
}

export interface SparseParts {
  header: DynamicHeader;
  /** Sector of each block's bitmap, ABSENT when the block is not stored. */
  bat: Uint32Array;
  bitmapBytes: number;
  parentPaths: ParentPaths;
  warnings: string[];
}

export const ABSENT = 0xffffffff;
/** 16 Mi blocks: beyond that a table would not fit into memory, and no real disk needs it. */
const BAT_ENTRIES_MAX = 1 << 24;

export const bitmapBytesOf = (blockSize: number): number => alignUp(blockSize / 512 / 8, 512);

/** @throws UnderstudyError DISK_MALFORMED with what is wrong and where. */
export async function readVhd(file: OpenFile): Promise<VhdImage> {
  const path = file.path;
  const fileSize = await file.size();
  const { footer, footers } = await readFooters(file, fileSize);
  const variant = footer.type === VHD_TYPE.fixed ? 'fixed' : footer.type === VHD_TYPE.dynamic ? 'dynamic' : 'differencing';
  const image: VhdImage = { path, fileSize, footer, variant, virtualSize: guestSizeOf(footer), footers, sparse: null };
  if (footer.headerOffset === null) {
    if (footer.currentSize > fileSize - FOOTER_BYTES + 1) {
      throw malformedImage(path, `${footer.currentSize} bytes of fixed disk do not fit into a file of ${fileSize} bytes`);
    }
    return image;
  }
  const bytes = await readExactly(file, footer.headerOffset, HEADER_BYTES, 'dynamic header');
  const header = decoded(path, decodeDynamicHeader(bytes));
  const blocks = Math.ceil(image.virtualSize / header.blockSize);
  if (blocks > header.maxTableEntries)
    throw malformedImage(path, `${blocks} blocks, but a table of ${header.maxTableEntries} entries`);
  if (blocks > BAT_ENTRIES_MAX) throw malformedImage(path, `${blocks} blocks, at most ${BAT_ENTRIES_MAX} are supported`);
  const bat = await readBat(file, header.batOffset, blocks, fileSize);
  const warnings: string[] = [];
  const parentPaths =
    variant === 'differencing' ? await readLocators(file, header, warnings) : { relative: [], absolute: [] };
  image.sparse = { header, bat, bitmapBytes: bitmapBytesOf(header.blockSize), parentPaths, warnings };
  for (const { start, end, block } of blockRanges(image.sparse)) {
    if (end > fileSize) throw malformedImage(path, `block ${block} lies at ${start}..${end}, the file ends at ${fileSize}`);
  }
  return image;
}

/** The tail footer rules; the copy at 0 stands in when a crash or a cut damaged the tail. */
async function readFooters(file: OpenFile, fileSize: number): Promise<Pick<VhdImage, 'footer' | 'footers'>> {
  if (fileSize < FOOTER_BYTES) throw malformedImage(file.path, `a file of ${fileSize} bytes is too short for a VHD footer`);
  const tailBytes = await readExactly(file, fileSize - FOOTER_BYTES, FOOTER_BYTES, 'footer');
  const headBytes = await readExactly(file, 0, FOOTER_BYTES, 'copy of the footer');
  let tail = decodeFooter(tailBytes);
  if ('malformed' in tail && tailBytes.toString('latin1', 1, 9) === 'conectix') tail = decodeFooter(tailBytes.subarray(1));
  const head = decodeFooter(headBytes);
  if (!('malformed' in tail)) {
    const good = !('malformed' in head);
    return { footer: tail, footers: { tail: true, head: good, equal: good && headBytes.equals(tailBytes) } };
  }
  // The first sector of a fixed disk belongs to the guest: a footer of a fixed disk there proves nothing.
  if ('malformed' in head || head.type === VHD_TYPE.fixed) throw malformedImage(file.path, tail.malformed);
  return { footer: head, footers: { tail: false, head: true, equal: false } };
}

async function readBat(file: OpenFile, offset: number, blocks: number, fileSize: number): Promise<Uint32Array> {
  if (offset + blocks * 4 > fileSize) {
    throw malformedImage(
      file.path,
      `the table of ${blocks} blocks at ${offset} goes past the end of the file (${fileSize})`,
    );
  }
  const bytes = await readExactly(file, offset, blocks * 4, 'block allocation table');
  bytes.swap32();
  return new Uint32Array(bytes.buffer, bytes.byteOffset, blocks);
}

async function readLocators(file: OpenFile, header: DynamicHeader, warnings: string[]): Promise<ParentPaths> {
  const paths: ParentPaths = { relative: [], absolute: [] };
  for (const { code, length, offset } of header.locators) {
    if (code !== 'W2ru' && code !== 'W2ku') continue;
    const bytes = Buffer.alloc(length);
    if ((await file.read(bytes, offset)) < length) {
      warnings.push(`the parent locator ${code} at ${offset}+${length} goes past the end of the file`);
      continue;
    }
    const text = bytes
      .subarray(0, length & ~1)
      .toString('utf16le')
      .split('\0')[0]!;
    if (text === '') continue;
    (code === 'W2ru' ? paths.relative : paths.absolute).push(text);
  }
  if (header.parentName !== '') paths.absolute.push(header.parentName);
  return paths;
}

/** The part of the file that each stored block uses: bitmap and data. */
export function* blockRanges({ bat, bitmapBytes, header }: SparseParts): Iterable<Range & { block: number }> {
  for (let block = 0; block < bat.length; block++) {
    const sector = bat[block]!;
    if (sector === ABSENT) continue;
    const start = sector * 512;
    yield { start, end: start + bitmapBytes + header.blockSize, block };
  }
}

/** Everything in use except the tail footer. */
export function usedRanges(image: VhdImage, sparse: SparseParts): Range[] {
  const { header } = sparse;
  const used: Range[] = [
    { start: 0, end: FOOTER_BYTES },
    { start: image.footer.headerOffset!, end: image.footer.headerOffset! + HEADER_BYTES },
    { start: header.batOffset, end: header.batOffset + alignUp(sparse.bat.length * 4, 512) },
  ];
  for (const { length, offset } of header.locators) {
    if (length > 0) used.push({ start: offset - (offset % 512), end: alignUp(offset + length, 512) });
  }
  for (const { start, end } of blockRanges(sparse)) used.push({ start, end });
  return used;
}

/** Opens for reading, reads, closes. */
export async function inspectVhd(path: string, files: Files): Promise<VhdImage> {
  const file = await files.open(path, 'read');
  try {
    return await readVhd(file);
  } finally {
    await file.close();
  }
}
