import type { Geometry } from '../virtual-disk.ts';
import { GEOMETRY_LARGEST, geometryBytes, sameGeometry } from './geometry.ts';
import type { Range } from './space.ts';

/*
 *  offset  size  field            VHD footer, 512 bytes, big-endian; last sector of the file, copied to sector 0 unless
 *       fixed 0     8  cookie           'conectix'
 *       8     4  features         bit 1 always set; bit 0 = temporary
 *      12     4  format version   0x00010000
 *      16     8  data offset      dynamic header; all ones when fixed
 *      24     4  timestamp        seconds since 2000-01-01T00:00:00Z
 *      28     4  creator app      four characters
 *      32     4  creator version  major, minor (u16 each)
 *      36     4  creator OS       'Wi2k' or 'Mac '
 *      40     8  original size    bytes
 *      48     8  current size     bytes
 *      56     4  geometry         cylinders u16, heads u8, sectors per track u8
 *      60     4  type             2 fixed, 3 dynamic, 4 differencing
 *      64     4  checksum         one's complement of the sum of all other bytes
 *      68    16  unique id        what a child stores as its parent
 *      84     1  saved state
 *      85   395  reserved         0
 *     480    24  growth           0, or 'ustgrow\0', start u64, end u64: see `Footer.growth`
 *     504     8  reserved         0
 */
export const FOOTER_BYTES = 512;
const COOKIE = 'conectix';
const CHECKSUM_AT = 64;
const GROWTH_AT = 480;
const GROWTH_MARK = 'ustgrow\0';

/** 2040 GiB: the largest VHD that Windows and QEMU open. */
export const VHD_BYTES_MAX = 0xff000000 * 512;

export const VHD_TYPE = { fixed: 2, dynamic: 3, differencing: 4 } as const;
export type VhdType = (typeof VHD_TYPE)[keyof typeof VHD_TYPE];

export interface Footer {
  features: number;
  /** Byte offset of the dynamic header; null for a fixed disk. */
  headerOffset: number | null;
  /** Seconds since 2000-01-01T00:00:00Z. */
  timestamp: number;
  creatorApp: string;
  creatorVersion: number;
  creatorOs: string;
  originalSize: number;
  currentSize: number;
  geometry: Geometry;
  type: VhdType;
  /** Lower case with dashes. */
  uniqueId: string;
  savedState: number;
  /**
   * Of a fixed disk that has just grown: these bytes of the disk are what lay behind its old end, with the old footer, and mean zeroes. Ours;
   * other readers ignore it, as the format has them do with reserved bytes. Gone as soon as they are zeroes.
   */
  growth?: Range;
}

export interface Malformed {
  malformed: string;
}

/** One's complement of the byte sum, with the four checksum bytes taken as 0. */
export function vhdChecksum(bytes: Uint8Array, checksumAt: number): number {
  let sum = 0;
  for (let index = 0; index < bytes.length; index++) {
    if (index < checksumAt || index >= checksumAt + 4) sum += bytes[index]!;
  }
  return ~sum >>> 0;
}

/** Decodes a footer; `from` is 512 bytes (511 for very old Virtual PC files, which lack the last reserved byte). */
export function decodeFooter(from: Uint8Array): Footer | Malformed {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  bytes.set(from.subarray(0, FOOTER_BYTES));
  if (from.length < FOOTER_BYTES - 1) return { malformed: `footer of ${from.length} bytes, expected ${FOOTER_BYTES}` };
  const cookie = bytes.toString('latin1', 0, 8);
  if (cookie !== COOKIE) return { malformed: `footer cookie ${JSON.stringify(cookie)}, expected ${JSON.stringify(COOKIE)}` };
  const stored = bytes.readUInt32BE(CHECKSUM_AT);
  const computed = vhdChecksum(bytes, CHECKSUM_AT);
  if (stored !== computed) return { malformed: `footer checksum ${hex(stored)}, computed ${hex(computed)}` };
  const version = bytes.readUInt32BE(12);
  if (version >>> 16 !== 1) return { malformed: `footer format version ${hex(version)}, expected 0x10000` };
  const type = bytes.readUInt32BE(60);
  if (type !== 2 && type !== 3 && type !== 4) return { malformed: `disk type ${type}, expected 2, 3 or 4` };
  const currentSize = bytes.readBigUInt64BE(48);
  if (currentSize > BigInt(VHD_BYTES_MAX)) return { malformed: `current size ${currentSize}, at most ${VHD_BYTES_MAX}` };
  if (currentSize === 0n || currentSize % 512n !== 0n)
    return { malformed: `current size ${currentSize} is not a positive multiple of 512` };
  const headerOffset = bytes.readBigUInt64BE(16);
  if (type !== VHD_TYPE.fixed && (headerOffset % 512n !== 0n || headerOffset < 512n || headerOffset > 1n << 40n)) {
    return { malformed: `dynamic header at ${headerOffset}` };
  }
  return {
    features: bytes.readUInt32BE(8),
    headerOffset: type === VHD_TYPE.fixed ? null : Number(headerOffset),
    timestamp: bytes.readUInt32BE(24),
    creatorApp: bytes.toString('latin1', 28, 32),
    creatorVersion: bytes.readUInt32BE(32),
    creatorOs: bytes.toString('latin1', 36, 40),
    originalSize: Number(bytes.readBigUInt64BE(40)),
    currentSize: Number(currentSize),
    geometry: { cylinders: bytes.readUInt16BE(56), heads: bytes[58]!, sectorsPerTrack: bytes[59]! },
    type,
    uniqueId: uuidText(bytes.subarray(68, 84)),
    savedState: bytes[84]!,
    ...(type === VHD_TYPE.fixed && growthOf(bytes, Number(currentSize))),
  };
}

function growthOf(bytes: Buffer, currentSize: number): Pick<Footer, 'growth'> {
  const [start, end] = [Number(bytes.readBigUInt64BE(GROWTH_AT + 8)), Number(bytes.readBigUInt64BE(GROWTH_AT + 16))];
  const marked = bytes.toString('latin1', GROWTH_AT, GROWTH_AT + 8) === GROWTH_MARK;
  return marked && start % 512 === 0 && start < end && end <= currentSize ? { growth: { start, end } } : {};
}

export function encodeFooter(footer: Footer): Buffer {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  bytes.write(COOKIE, 0, 'latin1');
  bytes.writeUInt32BE(footer.features, 8);
  bytes.writeUInt32BE(0x00010000, 12);
  bytes.writeBigUInt64BE(footer.headerOffset === null ? 0xffffffffffffffffn : BigInt(footer.headerOffset), 16);
  bytes.writeUInt32BE(footer.timestamp, 24);
  bytes.write(footer.creatorApp, 28, 4, 'latin1');
  bytes.writeUInt32BE(footer.creatorVersion, 32);
  bytes.write(footer.creatorOs, 36, 4, 'latin1');
  bytes.writeBigUInt64BE(BigInt(footer.originalSize), 40);
  bytes.writeBigUInt64BE(BigInt(footer.currentSize), 48);
  bytes.writeUInt16BE(footer.geometry.cylinders, 56);
  bytes[58] = footer.geometry.heads;
  bytes[59] = footer.geometry.sectorsPerTrack;
  bytes.writeUInt32BE(footer.type, 60);
  bytes.set(uuidBytes(footer.uniqueId), 68);
  bytes[84] = footer.savedState;
  if (footer.growth !== undefined) {
    bytes.write(GROWTH_MARK, GROWTH_AT, 'latin1');
    bytes.writeBigUInt64BE(BigInt(footer.growth.start), GROWTH_AT + 8);
    bytes.writeBigUInt64BE(BigInt(footer.growth.end), GROWTH_AT + 16);
  }
  bytes.writeUInt32BE(vhdChecksum(bytes, CHECKSUM_AT), CHECKSUM_AT);
  return bytes;
}

/**
 * The size that the guest sees. Virtual PC alone shows the product of its geometry, everybody else the current size; the
 * largest geometry is a mark that the size does not fit, so it is never a size.
 */
export function guestSizeOf(footer: Footer): number {
  const byGeometry = footer.creatorApp === 'vpc ' && !sameGeometry(footer.geometry, GEOMETRY_LARGEST);
  const product = geometryBytes(footer.geometry);
  return byGeometry && product > 0 && product <= footer.currentSize ? product : footer.currentSize;
}

/** Seconds since 2000-01-01T00:00:00Z, as footers and headers keep it, from milliseconds since 1970. */
export function vhdTimestamp(unixMs: number): number {
  return Math.max(0, Math.floor(unixMs / 1000) - 946684800) >>> 0;
}

export function uuidText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('hex');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}

export const uuidBytes = (text: string): Buffer => Buffer.from(text.replaceAll('-', ''), 'hex');

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
