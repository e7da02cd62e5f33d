import type { OpenFile } from '../../model/ports.ts';
import { readExactly } from '../vhd/image-errors.ts';
import { encodeMetadata } from './create.ts';
import type { NewItem } from './create.ts';
import { encodeRegionTable, REGION_TABLE_AT } from './region-table.ts';
import type { Region } from './region-table.ts';
import type { VhdxImage } from './vhdx-image.ts';
import type { Page } from './vhdx-session.ts';

/** New contents of structures as the pages that have to change: what goes into one log entry changes all at once. */

const PAGE = 4096;

/** The 4 KiB pages of `[offset, offset + bytes.length)` that are not as wanted; the rest of the last page stays. */
export async function changedPages(file: OpenFile, offset: number, bytes: Uint8Array): Promise<Page[]> {
  const pages: Page[] = [];
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = await readExactly(file, offset + at, PAGE, 'structure');
    const before = Buffer.from(page);
    page.set(bytes.subarray(at, at + PAGE));
    if (!page.equals(before)) pages.push({ offset: offset + at, bytes: page });
  }
  return pages;
}

/** The metadata region with these items and no others. */
export function metadataPages(image: VhdxImage, file: OpenFile, items: readonly NewItem[]): Promise<Page[]> {
  return changedPages(file, image.metadataRegion.offset, encodeMetadata(items));
}

export async function regionTablePages(file: OpenFile, regions: readonly Region[]): Promise<Page[]> {
  const bytes = encodeRegionTable(regions);
  const pages: Page[] = [];
  for (const at of REGION_TABLE_AT) pages.push(...(await changedPages(file, at, bytes)));
  return pages;
}

export function withItem(items: readonly NewItem[], guid: string, bytes: Buffer): NewItem[] {
  return items.map((item) => (item.guid === guid && (item.flags & 1) === 0 ? { ...item, bytes } : item));
}
