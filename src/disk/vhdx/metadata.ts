import { decodeGuid, encodeGuid } from './guid.ts';
import { MIB } from './header.ts';
import type { Malformed } from './header.ts';

/*
 *  offset  size  field         metadata table ([MS-VHDX] 2.6.1), 64 KiB at the start of the metadata region, little-endian
 *       0     8  signature     'metadata'
 *       8     2  reserved
 *      10     2  entry count   at most 2047
 *      12    20  reserved
 *      32  32×n  entries       item GUID 16, offset u32 (from the region's start, at least 64 KiB), length u32 (at most 1
 *                              MiB), flags u32 (1 user, 2 virtual disk, 4 required), reserved 4
 */
export const METADATA_TABLE_BYTES = 64 << 10;
const ENTRIES_MAX = 2047;
const USER_ENTRIES_MAX = 1024;

export const ITEM = {
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  virtualDiskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  virtualDiskId: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSectorSize: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSectorSize: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;
const KNOWN: ReadonlySet<string> = new Set(Object.values(ITEM));

export const FLAG = { user: 1, virtualDisk: 2, required: 4 } as const;
export const VIRTUAL_BYTES_MAX = 64 * 2 ** 40;
export const BLOCK_BYTES_MIN = MIB;
export const BLOCK_BYTES_MAX = 256 * MIB;

/** Where an item is, relative to the region. */
export interface MetadataEntry {
  guid: string;
  offset: number;
  length: number;
  flags: number;
}

export function decodeMetadataTable(from: Uint8Array, regionLength: number): { entries: MetadataEntry[] } | Malformed {
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  const signature = bytes.toString('latin1', 0, 8);
  if (signature !== 'metadata') return { malformed: `metadata signature ${JSON.stringify(signature)}, expected "metadata"` };
  const count = bytes.readUInt16LE(10);
  if (count > ENTRIES_MAX) return { malformed: `metadata table with ${count} entries, at most ${ENTRIES_MAX}` };
  const entries: MetadataEntry[] = [];
  for (let index = 0; index < count; index++) {
    const at = 32 + index * 32;
    const entry: MetadataEntry = {
      guid: decodeGuid(bytes, at),
      offset: bytes.readUInt32LE(at + 16),
      length: bytes.readUInt32LE(at + 20),
      flags: bytes.readUInt32LE(at + 24) & 7,
    };
    const misplaced =
      entry.length > 0 && (entry.offset < METADATA_TABLE_BYTES || entry.offset + entry.length > regionLength);
    if (misplaced || entry.length > MIB)
      return { malformed: `metadata item ${entry.guid} at ${entry.offset}+${entry.length}` };
    if ((entry.flags & FLAG.required) !== 0 && !KNOWN.has(entry.guid))
      return { malformed: `unknown metadata item ${entry.guid} is required` };
    if (entries.some((one) => one.guid === entry.guid && (one.flags & FLAG.user) === (entry.flags & FLAG.user))) {
      return { malformed: `metadata item ${entry.guid} twice` };
    }
    entries.push(entry);
  }
  const placed = entries.filter((entry) => entry.length > 0).sort((a, b) => a.offset - b.offset);
  const clash = placed.find(
    (entry, index) => index > 0 && entry.offset < placed[index - 1]!.offset + placed[index - 1]!.length,
  );
  if (clash !== undefined) return { malformed: `metadata item ${clash.guid} overlaps another` };
  const users = entries.filter((entry) => (entry.flags & FLAG.user) !== 0).length;
  if (users > USER_ENTRIES_MAX) return { malformed: `${users} user metadata items, at most ${USER_ENTRIES_MAX}` };
  return { entries };
}

export function encodeMetadataTable(entries: readonly MetadataEntry[]): Buffer {
  const bytes = Buffer.alloc(METADATA_TABLE_BYTES);
  bytes.write('metadata', 0, 'latin1');
  bytes.writeUInt16LE(entries.length, 10);
  entries.forEach((entry, index) => {
    const at = 32 + index * 32;
    encodeGuid(entry.guid, bytes, at);
    bytes.writeUInt32LE(entry.offset, at + 16);
    bytes.writeUInt32LE(entry.length, at + 20);
    bytes.writeUInt32LE(entry.flags, at + 24);
  });
  return bytes;
}

/** The values of the system items, decoded and checked against each other. */
export interface DiskParameters {
  blockSize: number;
  leaveBlocksAllocated: boolean;
  hasParent: boolean;
  virtualSize: number;
  virtualDiskId: string;
  logicalSectorSize: number;
  physicalSectorSize: number;
}

/** `items` holds the bytes of the five required system items. */
export function decodeDiskParameters(items: ReadonlyMap<string, Buffer>): DiskParameters | Malformed {
  const need = (guid: string, length: number): Buffer | null => {
    const bytes = items.get(guid);
    return bytes === undefined || bytes.length < length ? null : bytes;
  };
  const parameters = need(ITEM.fileParameters, 8);
  const size = need(ITEM.virtualDiskSize, 8);
  const id = need(ITEM.virtualDiskId, 16);
  const logical = need(ITEM.logicalSectorSize, 4);
  const physical = need(ITEM.physicalSectorSize, 4);
  if (parameters === null || size === null || id === null || logical === null || physical === null) {
    return { malformed: 'a required metadata item is missing or too short' };
  }
  const blockSize = parameters.readUInt32LE(0);
  if (blockSize < BLOCK_BYTES_MIN || blockSize > BLOCK_BYTES_MAX || (blockSize & (blockSize - 1)) !== 0) {
    return { malformed: `block size ${blockSize}, expected a power of two from 1 MiB to 256 MiB` };
  }
  const logicalSectorSize = logical.readUInt32LE(0);
  const physicalSectorSize = physical.readUInt32LE(0);
  for (const bytes of [logicalSectorSize, physicalSectorSize]) {
    if (bytes !== 512 && bytes !== 4096) return { malformed: `sector size ${bytes}, expected 512 or 4096` };
  }
  const virtualSize = size.readBigUInt64LE(0);
  if (virtualSize === 0n || virtualSize > BigInt(VIRTUAL_BYTES_MAX) || virtualSize % BigInt(logicalSectorSize) !== 0n) {
    return { malformed: `virtual disk size ${virtualSize}, expected a multiple of ${logicalSectorSize} up to 64 TiB` };
  }
  const flags = parameters.readUInt32LE(4);
  return {
    blockSize,
    leaveBlocksAllocated: (flags & 1) !== 0,
    hasParent: (flags & 2) !== 0,
    virtualSize: Number(virtualSize),
    virtualDiskId: decodeGuid(id, 0),
    logicalSectorSize,
    physicalSectorSize,
  };
}

export function encodeFileParameters(
  parameters: Pick<DiskParameters, 'blockSize' | 'leaveBlocksAllocated' | 'hasParent'>,
): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(parameters.blockSize, 0);
  bytes.writeUInt32LE((parameters.leaveBlocksAllocated ? 1 : 0) | (parameters.hasParent ? 2 : 0), 4);
  return bytes;
}

export function encodeSize(size: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(size), 0);
  return bytes;
}

export function encodeU32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}

export function encodeGuidItem(guid: string): Buffer {
  const bytes = Buffer.alloc(16);
  encodeGuid(guid, bytes, 0);
  return bytes;
}
