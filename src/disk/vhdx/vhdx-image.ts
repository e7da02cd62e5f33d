import type { OpenFile } from '../../model/ports.ts';
import type { DiskVariant } from '../virtual-disk.ts';
import { decoded, malformedImage, readExactly } from '../vhd/image-errors.ts';
import type { Range } from '../vhd/space.ts';
import { Bat, BITMAP_PRESENT, bitmapIndex, batShape, PAYLOAD, payloadIndex } from './bat.ts';
import type { BatShape } from './bat.ts';
import { GUID_ZERO } from './guid.ts';
import { currentHeader, decodeHeader, decodeIdentifier, HEADER_AT, HEADER_BYTES, IDENTIFIER_BYTES, MIB } from './header.ts';
import type { Header } from './header.ts';
import { activeSequence } from './log-entry.ts';
import type { LogEntry } from './log-entry.ts';
import { replayedInMemory, ReplayedSectors } from './log-replay.ts';
import { decodeDiskParameters, decodeMetadataTable, ITEM, METADATA_TABLE_BYTES } from './metadata.ts';
import type { DiskParameters, MetadataEntry } from './metadata.ts';
import { decodeParentLocator } from './parent-locator.ts';
import type { ParentLocator } from './parent-locator.ts';
import { decodeRegionTable, REGION_BAT, REGION_METADATA, REGION_TABLE_AT, REGION_TABLE_BYTES } from './region-table.ts';
import type { Region } from './region-table.ts';

/** Everything that a VHDX file says about itself, read and validated as it is after its log; blocks are not touched. */
export interface VhdxImage {
  path: string;
  creator: string;
  /** The file, seen through its log when there is something to replay. */
  file: OpenFile;
  fileSize: number;
  header: Header;
  /** Which of the two headers is current. */
  slot: 0 | 1;
  /** Why a header or a region table is bad; null when it is good. */
  damage: { headers: (string | null)[]; regionTables: (string | null)[] };
  /** What has to be replayed; empty when the file was closed cleanly. */
  pendingLog: LogEntry[];
  regions: Region[];
  batRegion: Region;
  metadataRegion: Region;
  metadata: MetadataEntry[];
  parameters: DiskParameters;
  parentLocator: ParentLocator | null;
  variant: DiskVariant;
  shape: BatShape;
  bat: Bat;
}

/** 16 Mi entries are 128 MiB of memory: 64 TiB with blocks of 4 MiB, 16 TiB with blocks of 1 MiB. */
const BAT_ENTRIES_MAX = 1 << 24;

/** @throws UnderstudyError DISK_MALFORMED with what is wrong and where. */
export async function readVhdx(file: OpenFile): Promise<VhdxImage> {
  const path = file.path;
  const { creator } = decoded(path, decodeIdentifier(await readExactly(file, 0, IDENTIFIER_BYTES, 'file identifier')));
  const { header, slot, headers } = await readHeaders(file);
  const pendingLog = header.logGuid === GUID_ZERO ? [] : await readLog(file, header);
  const fileNow = await file.size();
  const sectors = pendingLog.length === 0 ? null : new ReplayedSectors(pendingLog, fileNow);
  const view = sectors === null ? file : replayedInMemory(file, sectors);
  const { regions, regionTables } = await readRegions(view);
  const batRegion = regions.find((region) => region.guid === REGION_BAT)!;
  const metadataRegion = regions.find((region) => region.guid === REGION_METADATA)!;
  if (metadataRegion.length < METADATA_TABLE_BYTES)
    throw malformedImage(path, `metadata region of ${metadataRegion.length} bytes`);
  const { metadata, parameters, parentLocator } = await readMetadata(view, metadataRegion);
  const shape = batShape(parameters.virtualSize, parameters.blockSize, parameters.logicalSectorSize, parameters.hasParent);
  const image: VhdxImage = {
    path,
    creator,
    file: view,
    fileSize: sectors?.fileSize ?? fileNow,
    header,
    slot,
    damage: { headers, regionTables },
    pendingLog,
    regions,
    batRegion,
    metadataRegion,
    metadata,
    parameters,
    parentLocator,
    shape,
    variant: parameters.hasParent ? 'differencing' : parameters.leaveBlocksAllocated ? 'fixed' : 'dynamic',
    bat: await readBat(view, batRegion, shape),
  };
  const wrong = batProblem(image);
  if (wrong !== null) throw malformedImage(path, wrong);
  return image;
}

async function readHeaders(file: OpenFile): Promise<{ header: Header; slot: 0 | 1; headers: (string | null)[] }> {
  const found = [];
  for (const at of HEADER_AT) found.push(decodeHeader(await readExactly(file, at, HEADER_BYTES, 'header')));
  const current = decoded(file.path, currentHeader(found[0]!, found[1]!));
  return { ...current, headers: found.map((one) => ('malformed' in one ? one.malformed : null)) };
}

async function readLog(file: OpenFile, header: Header): Promise<LogEntry[]> {
  const log = await readExactly(file, header.logOffset, header.logLength, 'log');
  return decoded(file.path, activeSequence(log, header.logGuid, await file.size())).entries;
}

async function readRegions(file: OpenFile): Promise<{ regions: Region[]; regionTables: (string | null)[] }> {
  const found = [];
  for (const at of REGION_TABLE_AT)
    found.push(decodeRegionTable(await readExactly(file, at, REGION_TABLE_BYTES, 'region table')));
  const regionTables = found.map((one) => ('malformed' in one ? one.malformed : null));
  const good = found.find((one) => !('malformed' in one));
  return { regions: decoded(file.path, good ?? found[0]!).regions, regionTables };
}

async function readMetadata(
  file: OpenFile,
  region: Region,
): Promise<{ metadata: MetadataEntry[]; parameters: DiskParameters; parentLocator: ParentLocator | null }> {
  const table = await readExactly(file, region.offset, METADATA_TABLE_BYTES, 'metadata table');
  const metadata = decoded(file.path, decodeMetadataTable(table, region.length)).entries;
  const items = new Map<string, Buffer>();
  for (const entry of metadata) {
    if (!isSystemItem(entry)) continue;
    items.set(
      entry.guid,
      await readExactly(file, region.offset + entry.offset, entry.length, `metadata item ${entry.guid}`),
    );
  }
  const parameters = decoded(file.path, decodeDiskParameters(items));
  if (!parameters.hasParent) return { metadata, parameters, parentLocator: null };
  const locator = items.get(ITEM.parentLocator);
  if (locator === undefined) throw malformedImage(file.path, 'the disk has a parent, but no parent locator');
  return { metadata, parameters, parentLocator: decoded(file.path, decodeParentLocator(locator)) };
}

const SYSTEM_ITEMS: ReadonlySet<string> = new Set(Object.values(ITEM));
const isSystemItem = (entry: MetadataEntry): boolean => (entry.flags & 1) === 0 && SYSTEM_ITEMS.has(entry.guid);

async function readBat(file: OpenFile, region: Region, shape: BatShape): Promise<Bat> {
  if (shape.entries > BAT_ENTRIES_MAX)
    throw malformedImage(file.path, `${shape.entries} blocks, at most ${BAT_ENTRIES_MAX} are supported`);
  if (shape.entries * 8 > region.length) {
    throw malformedImage(file.path, `the block table needs ${shape.entries * 8} bytes, its region has ${region.length}`);
  }
  const size = await file.size();
  if (region.offset + shape.entries * 8 > size)
    throw malformedImage(file.path, `the block table goes past the end of the file (${size})`);
  const bytes = await readExactly(file, region.offset, shape.entries * 8, 'block allocation table');
  return new Bat(new Uint32Array(bytes.buffer, bytes.byteOffset, shape.entries * 2));
}

/** Bounds and states of all entries; null when they are good. */
function batProblem({ bat, shape, parameters, fileSize }: VhdxImage): string | null {
  for (let block = 0; block < shape.payloadBlocks; block++) {
    const index = payloadIndex(shape, block);
    const state = bat.state(index);
    if (state === 4 || state === 5) return `block ${block} has the reserved state ${state}`;
    if (state === PAYLOAD.partial) {
      if (!parameters.hasParent) return `block ${block} is partially present, but the disk has no parent`;
      if (bat.state(bitmapIndex(shape, Math.floor(block / shape.ratio))) !== BITMAP_PRESENT) {
        return `block ${block} is partially present, but its sector bitmap is not`;
      }
    }
    if (state !== PAYLOAD.full && state !== PAYLOAD.partial) continue;
    const offset = bat.offset(index);
    if (offset < MIB || offset + shape.blockSize > fileSize)
      return `block ${block} lies at ${offset}, the file ends at ${fileSize}`;
  }
  for (let chunk = 0; parameters.hasParent && chunk < shape.chunks; chunk++) {
    const index = bitmapIndex(shape, chunk);
    if (bat.state(index) !== BITMAP_PRESENT) continue;
    const offset = bat.offset(index);
    if (offset < MIB || offset + MIB > fileSize)
      return `sector bitmap ${chunk} lies at ${offset}, the file ends at ${fileSize}`;
  }
  return null;
}

/** Everything in use: header section, log, regions, payload and sector bitmap blocks. */
export function usedRanges(image: VhdxImage): Range[] {
  const { shape, bat, header } = image;
  const used: Range[] = [
    { start: 0, end: MIB },
    { start: header.logOffset, end: header.logOffset + header.logLength },
  ];
  for (const region of image.regions) used.push({ start: region.offset, end: region.offset + region.length });
  for (let block = 0; block < shape.payloadBlocks; block++) {
    const start = roomOf(bat, payloadIndex(shape, block));
    if (start !== null) used.push({ start, end: start + shape.blockSize });
  }
  for (let chunk = 0; image.parameters.hasParent && chunk < shape.chunks; chunk++) {
    const index = bitmapIndex(shape, chunk);
    if (bat.state(index) === BITMAP_PRESENT) used.push({ start: bat.offset(index), end: bat.offset(index) + MIB });
  }
  return used;
}

/**
 * Where the room of a payload block is. Trimmed blocks (states 1 and 3) may keep theirs; in states 0 and 2 the field means
 * nothing.
 */
export function roomOf(bat: Bat, index: number): number | null {
  const state = bat.state(index);
  if (state === PAYLOAD.notPresent || state === PAYLOAD.zero) return null;
  const offset = bat.offset(index);
  return offset === 0 ? null : offset;
}
