/*
 * The index beside an open log (rule R1): which records it holds, where, and whose disk writes have finished. Gone once the
 * log is closed. Little-endian. docs/formats/log-index.md says how it is used.
 *
 *  offset  size  field                  header, 4,096 bytes at 0
 *       0     8  magic                  "usdylidx"
 *       8     4  version                1
 *      12     4  crc32 of the 4,096 bytes, this field taken as 0
 *      16    16  uniqueId               of the log
 *      32    16  previousUniqueId
 *      48    16  dataWriteGuid
 *      64     8  createdAt              milliseconds since 1970
 *      72     8  diskSize
 *      80     4  fileType
 *      84  4012  reserved, 0
 *
 *  offset  size  field                  frame: one batch
 *       0     4  magic                  "FRAM"
 *       4     4  crc32                  of the frame from byte 8 to its end
 *       8     4  entryCount
 *      12     4  markCount
 *      16     4  timestamp              seconds since 2000, of all entries
 *      20     4  reserved, 0
 *      24     8  firstRecord            number of the first record
 *      32     8  acknowledged           records below this number were wholly written before this frame was
 *      40     8  finishedBelow          disk writes of all records below this number have finished
 *      48     8  position               of the batch in the log
 *      56     8  length                 of the batch in the log, metadata blocks included
 *      64    32  × entryCount           entries
 *             4  × markCount            finished records: number minus finishedBelow
 *
 *  offset  size  field                  entry
 *       0     8  offset                 on the virtual disk
 *       8     8  position               of the data in the log
 *      16     4  length
 *      20     4  dataChecksum           MS-HRL byte sum; 0 for zeroes
 *      24     1  operation              as in MS-HRL
 *      25     1  startsRecord           0 for the second and later pieces of a split record
 *      26     6  reserved, 0
 */
import { crc32 } from 'node:zlib';
import { fromLogTime, OPERATION, toLogTime, type Malformed } from './codec.ts';
import { readGuid, writeGuid, ZERO_GUID } from './guid.ts';
import type { PlacedEntry } from './log-layout.ts';

export const INDEX_HEADER_BYTES = 4096;
export const FRAME_HEADER_BYTES = 64;
export const INDEX_ENTRY_BYTES = 32;
/** What one append may hold: 8 MiB of frame. */
export const FRAME_ENTRIES_MAX = 1 << 18;
/** What a reader allocates for one frame: the entries, and 14 million finish marks. */
export const FRAME_BYTES_MAX = 64 << 20;
const [MAGIC, FRAME_MAGIC, VERSION, MARK_BYTES] = ['usdylidx', 'FRAM', 1, 4];

export interface IndexHeader {
  uniqueId: string;
  previousUniqueId: string | null;
  dataWriteGuid: string | null;
  createdAt: number;
  diskSize: number;
  fileType: number;
}

export interface FrameHeader {
  entryCount: number;
  markCount: number;
  /** Milliseconds since 1970, whole seconds. */
  timestamp: number;
  firstRecord: number;
  acknowledged: number;
  finishedBelow: number;
  position: number;
  length: number;
}

export interface Frame extends Omit<FrameHeader, 'entryCount' | 'markCount'> {
  entries: PlacedEntry[];
  /** Numbers of finished records, at or above `finishedBelow`. */
  marks: number[];
}

/** The index of the log at this path. */
export function indexPathOf(logPath: string): string {
  return `${logPath}.index`;
}

export function frameBytes(entryCount: number, markCount: number): number {
  return FRAME_HEADER_BYTES + INDEX_ENTRY_BYTES * entryCount + MARK_BYTES * markCount;
}

export function encodeIndexHeader(header: IndexHeader): Buffer {
  const bytes = Buffer.alloc(INDEX_HEADER_BYTES);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  writeGuid(bytes, 16, header.uniqueId);
  writeGuid(bytes, 32, header.previousUniqueId ?? ZERO_GUID);
  writeGuid(bytes, 48, header.dataWriteGuid ?? ZERO_GUID);
  bytes.writeBigUInt64LE(BigInt(header.createdAt), 64);
  bytes.writeBigUInt64LE(BigInt(header.diskSize), 72);
  bytes.writeUInt32LE(header.fileType, 80);
  bytes.writeUInt32LE(crc32(bytes), 12);
  return bytes;
}

export function decodeIndexHeader(bytes: Buffer): IndexHeader | Malformed {
  if (bytes.length < INDEX_HEADER_BYTES) {
    return { malformed: `${bytes.length} bytes, an index header has ${INDEX_HEADER_BYTES}` };
  }
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return { malformed: 'it does not begin as an index does' };
  if (bytes.readUInt32LE(8) !== VERSION) return { malformed: `index version ${bytes.readUInt32LE(8)} is not known` };
  const plain = Buffer.from(bytes.subarray(0, INDEX_HEADER_BYTES));
  plain.writeUInt32LE(0, 12);
  if (crc32(plain) !== bytes.readUInt32LE(12)) return { malformed: 'the crc32 of the index header does not match' };
  const [createdAt, diskSize] = [bytes.readBigUInt64LE(64), bytes.readBigUInt64LE(72)];
  if (createdAt > Number.MAX_SAFE_INTEGER || diskSize > Number.MAX_SAFE_INTEGER) {
    return { malformed: 'a size or time above 2^53' };
  }
  const guidOrNull = (at: number): string | null => {
    const guid = readGuid(bytes, at);
    return guid === ZERO_GUID ? null : guid;
  };
  return {
    uniqueId: readGuid(bytes, 16), previousUniqueId: guidOrNull(32), dataWriteGuid: guidOrNull(48),
    createdAt: Number(createdAt), diskSize: Number(diskSize), fileType: bytes.readUInt32LE(80),
  };
}

export function encodeFrame(frame: Frame): Buffer {
  const bytes = Buffer.alloc(frameBytes(frame.entries.length, frame.marks.length));
  bytes.write(FRAME_MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(frame.entries.length, 8);
  bytes.writeUInt32LE(frame.marks.length, 12);
  bytes.writeUInt32LE(toLogTime(frame.timestamp), 16);
  writeU64(bytes, frame.firstRecord, 24);
  writeU64(bytes, frame.acknowledged, 32);
  writeU64(bytes, frame.finishedBelow, 40);
  writeU64(bytes, frame.position, 48);
  writeU64(bytes, frame.length, 56);
  let at = FRAME_HEADER_BYTES;
  for (const entry of frame.entries) {
    writeU64(bytes, entry.offset, at);
    writeU64(bytes, entry.position, at + 8);
    bytes.writeUInt32LE(entry.length, at + 16);
    bytes.writeUInt32LE(entry.dataChecksum, at + 20);
    bytes[at + 24] = OPERATION[entry.op];
    bytes[at + 25] = entry.startsRecord ? 1 : 0;
    at += INDEX_ENTRY_BYTES;
  }
  for (const mark of frame.marks) at = bytes.writeUInt32LE(mark - frame.finishedBelow, at);
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  return bytes;
}

/**
 * The fixed part alone: it says how long the frame is. It is believed only when `decodeFrame` has checked the whole.
 */
export function decodeFrameHeader(bytes: Buffer): FrameHeader | Malformed {
  if (bytes.length < FRAME_HEADER_BYTES) {
    return { malformed: `${bytes.length} bytes, a frame header has ${FRAME_HEADER_BYTES}` };
  }
  if (bytes.toString('latin1', 0, 4) !== FRAME_MAGIC) return { malformed: 'it does not begin as a frame does' };
  const u64 = (at: number): number => Number(bytes.readBigUInt64LE(at));
  return {
    entryCount: bytes.readUInt32LE(8), markCount: bytes.readUInt32LE(12), timestamp: fromLogTime(bytes.readUInt32LE(16)),
    firstRecord: u64(24), acknowledged: u64(32), finishedBelow: u64(40), position: u64(48), length: u64(56),
  };
}

/** `bytes` is exactly one frame. */
export function decodeFrame(bytes: Buffer): Frame | Malformed {
  const header = decodeFrameHeader(bytes);
  if ('malformed' in header) return header;
  const { entryCount, markCount, ...rest } = header;
  if (bytes.length !== frameBytes(entryCount, markCount)) {
    return { malformed: `${bytes.length} bytes for ${entryCount} entries and ${markCount} marks` };
  }
  if (crc32(bytes.subarray(8)) !== bytes.readUInt32LE(4)) return { malformed: 'the crc32 of the frame does not match' };
  const entries: PlacedEntry[] = [];
  let at = FRAME_HEADER_BYTES;
  for (let n = 0; n < entryCount; n++, at += INDEX_ENTRY_BYTES) {
    const code = bytes[at + 24];
    if (code !== OPERATION.write && code !== OPERATION.zero) return { malformed: `operation ${code} is not known` };
    entries.push({
      op: code === OPERATION.write ? 'write' : 'zero',
      offset: Number(bytes.readBigUInt64LE(at)), position: Number(bytes.readBigUInt64LE(at + 8)),
      length: bytes.readUInt32LE(at + 16), dataChecksum: bytes.readUInt32LE(at + 20),
      timestamp: header.timestamp, startsRecord: bytes[at + 25] === 1,
    });
  }
  const markAt = (n: number): number => header.finishedBelow + bytes.readUInt32LE(at + MARK_BYTES * n);
  const marks = Array.from({ length: markCount }, (_, n) => markAt(n));
  return { ...rest, entries, marks };
}

/** Two halves: four times faster than a BigInt, and this runs for every guest write. `value` is a safe integer. */
function writeU64(into: Buffer, value: number, at: number): void {
  into.writeUInt32LE(value % 2 ** 32, at);
  into.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}
