import { crc32c } from './crc32c.ts';
import { decodeGuid, encodeGuid } from './guid.ts';
import { FILE_BYTES_MAX, MIB } from './header.ts';
import type { Malformed } from './header.ts';

/*
 *  offset  size  field        region table ([MS-VHDX] 2.2.3), 64 KiB, little-endian; one at 192 KiB and one at 256 KiB
 *       0     4  signature    'regi'
 *       4     4  checksum     CRC-32C over the 64 KiB
 *       8     4  entry count  at most 2047
 *      12     4  reserved
 *      16  32×n  entries      GUID 16, file offset u64, length u32 (both multiples of 1 MiB), required u32
 */
export const REGION_TABLE_BYTES = 64 << 10;
export const REGION_TABLE_AT = [192 << 10, 256 << 10] as const;
export const REGION_BAT = '2dc27766-f623-4200-9d64-115e9bfd4a08';
export const REGION_METADATA = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
const ENTRIES_MAX = 2047;

export interface Region {
  guid: string;
  offset: number;
  length: number;
  required: boolean;
}

export function decodeRegionTable(from: Uint8Array): { regions: Region[] } | Malformed {
  if (from.length !== REGION_TABLE_BYTES) return { malformed: `region table of ${from.length} bytes` };
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  const signature = bytes.toString('latin1', 0, 4);
  if (signature !== 'regi') return { malformed: `region table signature ${JSON.stringify(signature)}, expected "regi"` };
  const stored = bytes.readUInt32LE(4);
  const computed = crc32c(bytes, 4);
  if (stored !== computed)
    return { malformed: `region table checksum 0x${stored.toString(16)}, computed 0x${computed.toString(16)}` };
  const count = bytes.readUInt32LE(8);
  if (count > ENTRIES_MAX) return { malformed: `region table with ${count} entries, at most ${ENTRIES_MAX}` };
  const regions: Region[] = [];
  for (let index = 0; index < count; index++) {
    const at = 16 + index * 32;
    const region: Region = {
      guid: decodeGuid(bytes, at),
      offset: Number(bytes.readBigUInt64LE(at + 16)),
      length: bytes.readUInt32LE(at + 24),
      required: (bytes.readUInt32LE(at + 28) & 1) === 1,
    };
    if (region.offset < MIB || region.offset % MIB !== 0 || region.offset > FILE_BYTES_MAX || region.length % MIB !== 0) {
      return { malformed: `region ${region.guid} at ${region.offset}+${region.length}` };
    }
    if (regions.some((one) => one.guid === region.guid)) return { malformed: `region ${region.guid} twice` };
    regions.push(region);
  }
  const unknown = regions.find((one) => one.required && one.guid !== REGION_BAT && one.guid !== REGION_METADATA);
  if (unknown !== undefined) return { malformed: `unknown region ${unknown.guid} is required` };
  for (const guid of [REGION_BAT, REGION_METADATA]) {
    if (!regions.some((one) => one.guid === guid && one.length > 0)) return { malformed: `region ${guid} is missing` };
  }
  return { regions };
}

export function encodeRegionTable(regions: readonly Region[]): Buffer {
  const bytes = Buffer.alloc(REGION_TABLE_BYTES);
  bytes.write('regi', 0, 'latin1');
  bytes.writeUInt32LE(regions.length, 8);
  regions.forEach((region, index) => {
    const at = 16 + index * 32;
    encodeGuid(region.guid, bytes, at);
    bytes.writeBigUInt64LE(BigInt(region.offset), at + 16);
    bytes.writeUInt32LE(region.length, at + 24);
    bytes.writeUInt32LE(region.required ? 1 : 0, at + 28);
  });
  bytes.writeUInt32LE(crc32c(bytes, 4), 4);
  return bytes;
}
