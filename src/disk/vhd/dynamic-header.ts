import { hex, uuidBytes, uuidText, vhdChecksum } from './footer.ts';
import type { Malformed } from './footer.ts';

/*
 *  offset  size  field              VHD dynamic header, 1024 bytes, big-endian; at the footer's data offset
 *       0     8  cookie             'cxsparse'
 *       8     8  data offset        all ones
 *      16     8  BAT offset         absolute bytes
 *      24     4  version            0x00010000
 *      28     4  max table entries  at least size / block size, rounded up
 *      32     4  block size         power of two, 2 MiB by default
 *      36     4  checksum           as the footer's, over 1024 bytes
 *      40    16  parent unique id   the unique id of the parent's footer
 *      56     4  parent timestamp   Windows writes 0
 *      60     4  reserved
 *      64   512  parent name        UTF-16BE, NUL-padded
 *     576  8×24  parent locators    code 4, space 4, length 4, reserved 4, offset 8
 *     768   256  reserved           0
 */
export const HEADER_BYTES = 1024;
/** All that a resize changes lies in the first sector, so that one sector write is the whole update. */
export const HEADER_FIRST_SECTOR_BYTES = 512;
const COOKIE = 'cxsparse';
const CHECKSUM_AT = 36;
const NO_PARENT = '00000000-0000-0000-0000-000000000000';

export const BLOCK_BYTES_MIN = 4096;
export const BLOCK_BYTES_MAX = 256 * 1024 * 1024;
/** Paths in locators: Windows ends at 32767 characters. */
export const LOCATOR_BYTES_MAX = 65536;

export interface Locator {
  /** 'W2ru' (relative), 'W2ku' (absolute), 'MacX', … */
  code: string;
  /** As written: bytes (Windows) or sectors (the specification); never computed with. */
  space: number;
  length: number;
  offset: number;
}

export interface DynamicHeader {
  batOffset: number;
  maxTableEntries: number;
  blockSize: number;
  /** All zeroes without a parent. */
  parentUniqueId: string;
  parentTimestamp: number;
  parentName: string;
  locators: Locator[];
}

export function decodeDynamicHeader(from: Uint8Array): DynamicHeader | Malformed {
  if (from.length !== HEADER_BYTES) return { malformed: `dynamic header of ${from.length} bytes, expected ${HEADER_BYTES}` };
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  const cookie = bytes.toString('latin1', 0, 8);
  if (cookie !== COOKIE)
    return { malformed: `dynamic header cookie ${JSON.stringify(cookie)}, expected ${JSON.stringify(COOKIE)}` };
  const stored = bytes.readUInt32BE(CHECKSUM_AT);
  const computed = vhdChecksum(bytes, CHECKSUM_AT);
  if (stored !== computed) return { malformed: `dynamic header checksum ${hex(stored)}, computed ${hex(computed)}` };
  const version = bytes.readUInt32BE(24);
  if (version >>> 16 !== 1) return { malformed: `dynamic header version ${hex(version)}, expected 0x10000` };
  const blockSize = bytes.readUInt32BE(32);
  if (blockSize < BLOCK_BYTES_MIN || blockSize > BLOCK_BYTES_MAX || (blockSize & (blockSize - 1)) !== 0) {
    return { malformed: `block size ${blockSize}, expected a power of two in ${BLOCK_BYTES_MIN}..${BLOCK_BYTES_MAX}` };
  }
  const batOffset = bytes.readBigUInt64BE(16);
  if (batOffset < 512n || batOffset % 512n !== 0n || batOffset > 1n << 42n) return { malformed: `BAT offset ${batOffset}` };
  const locators: Locator[] = [];
  for (let at = 576; at < 768; at += 24) {
    const code = bytes.toString('latin1', at, at + 4);
    if (code === '\0\0\0\0') continue;
    const length = bytes.readUInt32BE(at + 8);
    const offset = bytes.readBigUInt64BE(at + 16);
    if (length > LOCATOR_BYTES_MAX) return { malformed: `parent locator ${JSON.stringify(code)} of ${length} bytes` };
    if (offset > 1n << 42n) return { malformed: `parent locator ${JSON.stringify(code)} at ${offset}` };
    locators.push({ code, space: bytes.readUInt32BE(at + 4), length, offset: Number(offset) });
  }
  return {
    batOffset: Number(batOffset),
    maxTableEntries: bytes.readUInt32BE(28),
    blockSize,
    parentUniqueId: uuidText(bytes.subarray(40, 56)),
    parentTimestamp: bytes.readUInt32BE(56),
    parentName: decodeName(bytes.subarray(64, 576)),
    locators,
  };
}

export function encodeDynamicHeader(header: DynamicHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(COOKIE, 0, 'latin1');
  bytes.writeBigUInt64BE(0xffffffffffffffffn, 8);
  bytes.writeBigUInt64BE(BigInt(header.batOffset), 16);
  bytes.writeUInt32BE(0x00010000, 24);
  bytes.writeUInt32BE(header.maxTableEntries, 28);
  bytes.writeUInt32BE(header.blockSize, 32);
  bytes.set(uuidBytes(header.parentUniqueId), 40);
  bytes.writeUInt32BE(header.parentTimestamp, 56);
  bytes.set(Buffer.from(header.parentName, 'utf16le').subarray(0, 510).swap16(), 64);
  header.locators.slice(0, 8).forEach((locator, index) => {
    const at = 576 + index * 24;
    bytes.write(locator.code, at, 4, 'latin1');
    bytes.writeUInt32BE(locator.space, at + 4);
    bytes.writeUInt32BE(locator.length, at + 8);
    bytes.writeBigUInt64BE(BigInt(locator.offset), at + 16);
  });
  bytes.writeUInt32BE(vhdChecksum(bytes, CHECKSUM_AT), CHECKSUM_AT);
  return bytes;
}

export const noParent = (): Pick<DynamicHeader, 'parentUniqueId' | 'parentTimestamp' | 'parentName' | 'locators'> => ({
  parentUniqueId: NO_PARENT,
  parentTimestamp: 0,
  parentName: '',
  locators: [],
});

function decodeName(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).swap16().toString('utf16le');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** Puts another table into the bytes of a header; all other bytes, known or not, stay. */
export function patchTable(header: Buffer, batOffset: number, maxTableEntries: number): void {
  header.writeBigUInt64BE(BigInt(batOffset), 16);
  header.writeUInt32BE(maxTableEntries, 28);
  header.writeUInt32BE(vhdChecksum(header, CHECKSUM_AT), CHECKSUM_AT);
}
