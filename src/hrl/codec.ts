/*
 * MS-HRL (section 2) as bytes. Everything is little-endian and packed. `decode…` takes bytes from outside: it never throws,
 * it says why.
 *
 *  offset  size  field                  file header, 4,096 bytes at 0
 *       0     8  Cookie                 "msctlog" and a blank (a zero is accepted)
 *       8     4  LogFormatVersion       0x00020000; 0x00010000 is read too
 *      12     4  TimeStamp              creation, seconds since 2000-01-01 UTC
 *      16     4  CreatorApplication     not checked
 *      20     4  CreatorVersion         not checked
 *      24     8  OriginalSize           size of the file when it was created
 *      32     8  CurrentSize
 *      40     4  Checksum               byte sum of the header without these four bytes
 *      44     8  EOLLocation            just past the last metadata block; 0 while the log is open
 *      52     4  ErrorCode              signed
 *      56     4  MetadataSize           bytes per metadata block, a multiple of 512
 *      60    16  UniqueId
 *      76    16  PreviousUniqueId       the log before this one
 *      92     4  LastModifiedTimeStamp
 *      96     8  TotalMetadataEntries
 *     104     4  FileType               0 is a tracking log
 *     108     2  Flags
 *     110    16  Vhd2DataWriteGuid      version 2 only
 *     126  3970  reserved, 0
 *
 *  offset  size  field                  metadata block, MetadataSize bytes: this header, then slots of 32 bytes
 *       0     8  PreviousMetadataLocation   distance back to the block before; 0 in the first block
 *       8     4  ValidMetadataEntries
 *      12     4  Checksum               byte sum of these 32 bytes, this field taken as 0
 *      16    16  reserved, 0
 *
 *  offset  size  field                  entry; its data lies before the block, after the data of the entry before it
 *       0     8  ByteOffset             on the virtual disk
 *       8     4  Checksum               byte sum of these 32 bytes, this field taken as 0
 *      12     4  DataLength
 *      16     4  TimeStamp              seconds since 2000-01-01 UTC
 *      20     1  MetaOperation          1 write; 0x81 zero (ours: DataLength bytes read as zeroes, no data in the file)
 *      21     4  DataChecksum           byte sum of the data; 0 is absent
 *      25     1  Location, 0
 *      26     6  reserved, 0
 */
import { addBytes, byteSumChecksum, complement } from './byte-sum.ts';
import { readGuid, writeGuid, ZERO_GUID } from './guid.ts';

export const HEADER_BYTES = 4096;
export const METADATA_BYTES = 4096;
export const SLOT_BYTES = 32;
/** Bounds what a reader allocates for one block; Windows writes 4,096. */
export const METADATA_BYTES_MAX = 1 << 20;

const COOKIE = 'msctlog';
const VERSION = { 1: 0x0001_0000, 2: 0x0002_0000 } as const;
const CREATOR_APPLICATION = 'us  ';
const CREATOR_VERSION = 0x0001_0000;
const CHECKSUM_AT = { header: 40, block: 12, entry: 8 } as const;
const SECONDS_2000 = 946_684_800;

export const OPERATION = { write: 1, zero: 0x81 } as const;
export type Operation = keyof typeof OPERATION;

export interface LogHeader {
  version: 1 | 2;
  /** Milliseconds since 1970, whole seconds; so is `modifiedAt`. */
  createdAt: number;
  modifiedAt: number;
  creatorApplication: string;
  creatorVersion: number;
  originalSize: number;
  currentSize: number;
  /** Just past the last metadata block; 0 while the log is open or when it was not closed. */
  endOfLog: number;
  errorCode: number;
  metadataSize: number;
  uniqueId: string;
  /** Null for the first log of a chain. */
  previousUniqueId: string | null;
  totalEntries: number;
  /** 0 is a tracking log. */
  fileType: number;
  flags: number;
  /** Null when absent: version 1, or a disk without one. */
  dataWriteGuid: string | null;
}

export interface BlockHeader {
  /** Bytes back to the block before; 0 in the first block. */
  distance: number;
  entries: number;
}

/** An entry as the file holds it; where its data lies follows from its place in the chain. */
export interface RawEntry {
  op: Operation;
  /** Bytes on the virtual disk. */
  offset: number;
  length: number;
  /** Milliseconds since 1970, whole seconds. */
  timestamp: number;
  /** 0 is absent. */
  dataChecksum: number;
}

export interface Malformed {
  malformed: string;
}

/** Slots of a metadata block: 127 in 4,096 bytes. */
export function slotsOf(metadataSize: number): number {
  return metadataSize / SLOT_BYTES - 1;
}

/** Bytes of the log file that the data of this entry takes. */
export function dataBytesOf(entry: Pick<RawEntry, 'op' | 'length'>): number {
  return entry.op === 'write' ? entry.length : 0;
}

/** Whole seconds; what lies outside of 2000 … 2136 becomes the nearest end of that range. */
export function toLogTime(ms: number): number {
  return Math.min(Math.max(Math.floor(ms / 1000) - SECONDS_2000, 0), 0xffff_ffff);
}

export function fromLogTime(seconds: number): number {
  return (seconds + SECONDS_2000) * 1000;
}

/** The four bytes at `at` count as 0. */
function checksumWithout(bytes: Buffer, at: number): number {
  return complement(addBytes(0, bytes) - bytes[at]! - bytes[at + 1]! - bytes[at + 2]! - bytes[at + 3]!);
}

/** Null when the checksum is right. */
function checksumError(bytes: Buffer, at: number): string | null {
  const [stored, computed] = [bytes.readUInt32LE(at), checksumWithout(bytes, at)];
  return stored === computed ? null : `checksum ${stored}, but the bytes give ${computed}`;
}

/** Null for a value above 2^53 − 1, which no file or disk of ours reaches. */
function readSafe(from: Buffer, at: number): number | null {
  const value = from.readBigUInt64LE(at);
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : null;
}

export function encodeHeader(header: LogHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(`${COOKIE} `, 0, 'latin1');
  bytes.writeUInt32LE(VERSION[header.version], 8);
  bytes.writeUInt32LE(toLogTime(header.createdAt), 12);
  bytes.write(header.creatorApplication.padEnd(4).slice(0, 4), 16, 'latin1');
  bytes.writeUInt32LE(header.creatorVersion, 20);
  bytes.writeBigUInt64LE(BigInt(header.originalSize), 24);
  bytes.writeBigUInt64LE(BigInt(header.currentSize), 32);
  bytes.writeBigUInt64LE(BigInt(header.endOfLog), 44);
  bytes.writeInt32LE(header.errorCode, 52);
  bytes.writeUInt32LE(header.metadataSize, 56);
  writeGuid(bytes, 60, header.uniqueId);
  writeGuid(bytes, 76, header.previousUniqueId ?? ZERO_GUID);
  bytes.writeUInt32LE(toLogTime(header.modifiedAt), 92);
  bytes.writeBigUInt64LE(BigInt(header.totalEntries), 96);
  bytes.writeUInt32LE(header.fileType, 104);
  bytes.writeUInt16LE(header.flags, 108);
  if (header.version === 2) writeGuid(bytes, 110, header.dataWriteGuid ?? ZERO_GUID);
  bytes.writeUInt32LE(checksumWithout(bytes, CHECKSUM_AT.header), CHECKSUM_AT.header);
  return bytes;
}

export function decodeHeader(bytes: Buffer): LogHeader | Malformed {
  if (bytes.length < HEADER_BYTES) return { malformed: `${bytes.length} bytes, a log header has ${HEADER_BYTES}` };
  if (bytes.toString('latin1', 0, 7) !== COOKIE || (bytes[7] !== 0x20 && bytes[7] !== 0)) {
    return { malformed: 'it does not begin as a tracking log does' };
  }
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION[1] && version !== VERSION[2]) {
    return { malformed: `log format version 0x${version.toString(16)} is not known` };
  }
  const wrong = checksumError(bytes.subarray(0, HEADER_BYTES), CHECKSUM_AT.header);
  if (wrong !== null) return { malformed: `header: ${wrong}` };
  const metadataSize = bytes.readUInt32LE(56);
  if (metadataSize === 0 || metadataSize % 512 !== 0 || metadataSize > METADATA_BYTES_MAX) {
    return { malformed: `metadata blocks of ${metadataSize} bytes` };
  }
  const [originalSize, currentSize] = [readSafe(bytes, 24), readSafe(bytes, 32)];
  const [endOfLog, totalEntries] = [readSafe(bytes, 44), readSafe(bytes, 96)];
  if (originalSize === null || currentSize === null || endOfLog === null || totalEntries === null) {
    return { malformed: 'header: a size or count above 2^53' };
  }
  const guidOrNull = (at: number): string | null => {
    const guid = readGuid(bytes, at);
    return guid === ZERO_GUID ? null : guid;
  };
  return {
    version: version === VERSION[2] ? 2 : 1,
    createdAt: fromLogTime(bytes.readUInt32LE(12)),
    modifiedAt: fromLogTime(bytes.readUInt32LE(92)),
    creatorApplication: bytes.toString('latin1', 16, 20),
    creatorVersion: bytes.readUInt32LE(20),
    originalSize, currentSize, endOfLog, totalEntries, metadataSize,
    errorCode: bytes.readInt32LE(52),
    uniqueId: readGuid(bytes, 60),
    previousUniqueId: guidOrNull(76),
    fileType: bytes.readUInt32LE(104),
    flags: bytes.readUInt16LE(108),
    dataWriteGuid: version === VERSION[2] ? guidOrNull(110) : null,
  };
}

/** The header of a log of ours. While it is open `endOfLog` is 0. */
export function ourHeader(
  log: Pick<LogHeader, 'createdAt' | 'modifiedAt' | 'uniqueId' | 'previousUniqueId' | 'dataWriteGuid' | 'fileType'>,
  state: Pick<LogHeader, 'currentSize' | 'endOfLog' | 'totalEntries'>,
): LogHeader {
  return {
    ...log, ...state,
    version: 2, creatorApplication: CREATOR_APPLICATION, creatorVersion: CREATOR_VERSION,
    originalSize: 0, errorCode: 0, metadataSize: METADATA_BYTES, flags: 0,
  };
}

/** A whole metadata block of our size. The caller passes at most 127 entries. */
export function encodeBlock(distance: number, entries: readonly RawEntry[]): Buffer {
  const bytes = Buffer.alloc(METADATA_BYTES);
  bytes.writeBigUInt64LE(BigInt(distance), 0);
  bytes.writeUInt32LE(entries.length, 8);
  bytes.writeUInt32LE(checksumWithout(bytes.subarray(0, SLOT_BYTES), CHECKSUM_AT.block), CHECKSUM_AT.block);
  entries.forEach((entry, slot) => encodeEntry(bytes, SLOT_BYTES * (slot + 1), entry));
  return bytes;
}

export function encodeEntry(into: Buffer, at: number, entry: RawEntry): void {
  const bytes = into.subarray(at, at + SLOT_BYTES);
  bytes.writeBigUInt64LE(BigInt(entry.offset), 0);
  bytes.writeUInt32LE(entry.length, 12);
  bytes.writeUInt32LE(toLogTime(entry.timestamp), 16);
  bytes.writeUInt8(OPERATION[entry.op], 20);
  bytes.writeUInt32LE(entry.dataChecksum, 21);
  bytes.writeUInt32LE(checksumWithout(bytes, CHECKSUM_AT.entry), CHECKSUM_AT.entry);
}

/** `bytes` begins with the block; its size is the header's `metadataSize`. */
export function decodeBlockHeader(bytes: Buffer, metadataSize: number): BlockHeader | Malformed {
  if (bytes.length < SLOT_BYTES) return { malformed: `${bytes.length} bytes, a block header has ${SLOT_BYTES}` };
  const wrong = checksumError(bytes.subarray(0, SLOT_BYTES), CHECKSUM_AT.block);
  if (wrong !== null) return { malformed: wrong };
  const [distance, entries] = [readSafe(bytes, 0), bytes.readUInt32LE(8)];
  if (distance === null) return { malformed: 'a distance above 2^53' };
  const slots = slotsOf(metadataSize);
  if (entries > slots) return { malformed: `${entries} entries, it has ${slots} slots` };
  return { distance, entries };
}

export function decodeEntry(block: Buffer, slot: number): RawEntry | Malformed {
  const at = SLOT_BYTES * (slot + 1);
  const bytes = block.subarray(at, at + SLOT_BYTES);
  if (bytes.length < SLOT_BYTES) return { malformed: `slot ${slot} lies outside of the block` };
  const wrong = checksumError(bytes, CHECKSUM_AT.entry);
  if (wrong !== null) return { malformed: wrong };
  const code = bytes.readUInt8(20);
  const op: Operation | null = code === OPERATION.write ? 'write' : code === OPERATION.zero ? 'zero' : null;
  if (op === null) return { malformed: `operation ${code} is not known` };
  const offset = readSafe(bytes, 0);
  if (offset === null) return { malformed: 'an offset above 2^53' };
  const [length, seconds, dataChecksum] = [bytes.readUInt32LE(12), bytes.readUInt32LE(16), bytes.readUInt32LE(21)];
  return { op, offset, length, timestamp: fromLogTime(seconds), dataChecksum };
}

/** Null when the data is as the entry says, or the entry does not say. */
export function dataError(entry: Pick<RawEntry, 'dataChecksum'>, data: Uint8Array): string | null {
  if (entry.dataChecksum === 0) return null;
  const computed = byteSumChecksum(data);
  return computed === entry.dataChecksum ? null : `data checksum ${entry.dataChecksum}, but the data give ${computed}`;
}
