import { crc32c } from './crc32c.ts';
import { decodeGuid, encodeGuid } from './guid.ts';
import { FILE_BYTES_MAX, MIB } from './header.ts';
import type { Malformed } from './header.ts';
import { REGION_TABLE_AT } from './region-table.ts';

/*
 *  offset  size  field                VHDX log entry ([MS-VHDX] 2.3.1), in 4 KiB sectors, little-endian
 *       0     4  signature            'loge'
 *       4     4  checksum             CRC-32C over the entry
 *       8     4  entry length         multiple of 4 KiB
 *      12     4  tail                 offset in the log of the oldest entry that this one still needs
 *      16     8  sequence number      one more than the entry before; > 0
 *      24     4  descriptor count
 *      28     4  reserved
 *      32    16  log GUID             as in the header
 *      48     8  flushed file offset  the file is at least this long, or it was cut
 *      56     8  last file offset     replay makes the file this long
 *      64  32×n  descriptors          126 fit into the first sector, 128 into each further one
 *
 *  zero descriptor: 'zero', reserved 4, length u64, file offset u64, sequence number
 *  data descriptor: 'desc', last 4 bytes of the sector, its first 8 bytes, file offset u64, sequence number
 *  data sector (one for each data descriptor): 'data', sequence high, bytes 8–4091, sequence low
 */
export const LOG_SECTOR = 4096;
const HEADER_BYTES = 64;
const DESCRIPTOR_BYTES = 32;
/** So many fit beside the header in one sector, which is all that this writer uses. */
export const DESCRIPTORS_PER_ENTRY_MAX = 126;

export type LogWrite = { offset: number; bytes: Uint8Array } | { offset: number; zeroes: number };

export interface LogEntry {
  /** Where the entry starts in the log, and its length. */
  at: number;
  length: number;
  tail: number;
  sequence: bigint;
  logGuid: string;
  flushedFileOffset: number;
  lastFileOffset: number;
  writes: LogWrite[];
}

const descriptorSectors = (count: number): number => Math.ceil((HEADER_BYTES + count * DESCRIPTOR_BYTES) / LOG_SECTOR);

/**
 * The entry at `at` of a log that is in memory as a whole; null when there is no valid one of this log GUID. Cheap checks
 * come before the checksum, and no sector of an entry can be the first sector of another, so that scanning a log costs its
 * length once.
 */
export function decodeLogEntry(log: Buffer, at: number, logGuid: string): LogEntry | null {
  if (log.toString('latin1', at, at + 4) !== 'loge' || decodeGuid(log, at + 32) !== logGuid) return null;
  const length = log.readUInt32LE(at + 8);
  if (length === 0 || length % LOG_SECTOR !== 0 || length > log.length) return null;
  const entry = Buffer.alloc(length);
  const first = Math.min(length, log.length - at);
  log.copy(entry, 0, at, at + first);
  log.copy(entry, first, 0, length - first);
  const tail = entry.readUInt32LE(12);
  const sequence = entry.readBigUInt64LE(16);
  if (tail % LOG_SECTOR !== 0 || tail >= log.length || sequence === 0n) return null;
  const writes = decodeDescriptors(entry, sequence);
  if (writes === null || crc32c(entry, 4) !== entry.readUInt32LE(4)) return null;
  return {
    at,
    length,
    tail,
    sequence,
    logGuid,
    writes,
    flushedFileOffset: Number(entry.readBigUInt64LE(48)),
    lastFileOffset: Number(entry.readBigUInt64LE(56)),
  };
}

function decodeDescriptors(entry: Buffer, sequence: bigint): LogWrite[] | null {
  const count = entry.readUInt32LE(24);
  const sectors = descriptorSectors(count);
  if (sectors * LOG_SECTOR > entry.length) return null;
  const writes: LogWrite[] = [];
  let dataAt = sectors * LOG_SECTOR;
  for (let index = 0; index < count; index++) {
    const at = HEADER_BYTES + index * DESCRIPTOR_BYTES;
    const signature = entry.toString('latin1', at, at + 4);
    const offset = Number(entry.readBigUInt64LE(at + 16));
    if (entry.readBigUInt64LE(at + 24) !== sequence || offset % LOG_SECTOR !== 0) return null;
    if (signature === 'zero') {
      const zeroes = Number(entry.readBigUInt64LE(at + 8));
      if (zeroes % LOG_SECTOR !== 0) return null;
      writes.push({ offset, zeroes });
      continue;
    }
    if (signature !== 'desc' || dataAt + LOG_SECTOR > entry.length) return null;
    if (entry.toString('latin1', dataAt, dataAt + 4) !== 'data') return null;
    const high = BigInt(entry.readUInt32LE(dataAt + 4));
    if (((high << 32n) | BigInt(entry.readUInt32LE(dataAt + LOG_SECTOR - 4))) !== sequence) return null;
    const bytes = Buffer.from(entry.subarray(dataAt, dataAt + LOG_SECTOR));
    entry.copy(bytes, 0, at + 8, at + 16);
    entry.copy(bytes, LOG_SECTOR - 4, at + 4, at + 8);
    writes.push({ offset, bytes });
    dataAt += LOG_SECTOR;
  }
  return dataAt === entry.length ? writes : null;
}

/** At most 126 writes, so that the descriptors fill one sector. */
export function encodeLogEntry(entry: Omit<LogEntry, 'at' | 'length'>): Buffer {
  const data = entry.writes.filter((write) => 'bytes' in write).length;
  const bytes = Buffer.alloc((descriptorSectors(entry.writes.length) + data) * LOG_SECTOR);
  bytes.write('loge', 0, 'latin1');
  bytes.writeUInt32LE(bytes.length, 8);
  bytes.writeUInt32LE(entry.tail, 12);
  bytes.writeBigUInt64LE(entry.sequence, 16);
  bytes.writeUInt32LE(entry.writes.length, 24);
  encodeGuid(entry.logGuid, bytes, 32);
  bytes.writeBigUInt64LE(BigInt(entry.flushedFileOffset), 48);
  bytes.writeBigUInt64LE(BigInt(entry.lastFileOffset), 56);
  let dataAt = descriptorSectors(entry.writes.length) * LOG_SECTOR;
  entry.writes.forEach((write, index) => {
    const at = HEADER_BYTES + index * DESCRIPTOR_BYTES;
    bytes.writeBigUInt64LE(BigInt(write.offset), at + 16);
    bytes.writeBigUInt64LE(entry.sequence, at + 24);
    if ('zeroes' in write) {
      bytes.write('zero', at, 'latin1');
      bytes.writeBigUInt64LE(BigInt(write.zeroes), at + 8);
      return;
    }
    bytes.write('desc', at, 'latin1');
    bytes.set(write.bytes.subarray(LOG_SECTOR - 4), at + 4);
    bytes.set(write.bytes.subarray(0, 8), at + 8);
    bytes.set(write.bytes, dataAt);
    bytes.write('data', dataAt, 'latin1');
    bytes.writeUInt32LE(Number(entry.sequence >> 32n), dataAt + 4);
    bytes.writeUInt32LE(Number(entry.sequence & 0xffffffffn), dataAt + LOG_SECTOR - 4);
    dataAt += LOG_SECTOR;
  });
  bytes.writeUInt32LE(crc32c(bytes, 4), 4);
  return bytes;
}

/**
 * The entries to replay, oldest first: the complete sequence with the greatest sequence number ([MS-VHDX] 2.3.3).
 * `fileSize` is the size of the file as it is.
 */
export function activeSequence(log: Buffer, logGuid: string, fileSize: number): { entries: LogEntry[] } | Malformed {
  const byOffset = new Map<number, LogEntry>();
  for (let at = 0; at < log.length; at += LOG_SECTOR) {
    const entry = decodeLogEntry(log, at, logGuid);
    if (entry !== null) byOffset.set(at, entry);
  }
  const heads = [...byOffset.values()].sort((a, b) => (a.sequence < b.sequence ? 1 : -1));
  for (const head of heads) {
    const entries = sequenceTo(head, byOffset, log.length);
    if (entries === null) continue;
    const bad =
      head.flushedFileOffset > fileSize
        ? `the file has ${fileSize} bytes, but the log says it had ${head.flushedFileOffset}: it was cut`
        : entries.map(misplaced).find((reason) => reason !== null);
    return bad === undefined || bad === null ? { entries } : { malformed: bad };
  }
  return { malformed: `the log (${logGuid}) holds no complete sequence` };
}

function sequenceTo(head: LogEntry, byOffset: ReadonlyMap<number, LogEntry>, logLength: number): LogEntry[] | null {
  const entries: LogEntry[] = [];
  for (let at = head.tail; ;) {
    const entry = byOffset.get(at);
    if (entry === undefined || (entries.length > 0 && entry.sequence !== entries[entries.length - 1]!.sequence + 1n))
      return null;
    entries.push(entry);
    if (entry === head) return entries;
    if (entry.sequence >= head.sequence) return null;
    at = (at + entry.length) % logLength;
  }
}

/** Replay must neither touch the headers nor make a file of absurd size. */
function misplaced(entry: LogEntry): string | null {
  const limit = FILE_BYTES_MAX;
  if (entry.lastFileOffset > limit || entry.lastFileOffset % MIB !== 0)
    return `log entry with last file offset ${entry.lastFileOffset}`;
  for (const write of entry.writes) {
    const length = 'bytes' in write ? LOG_SECTOR : write.zeroes;
    if (write.offset < REGION_TABLE_AT[0] || write.offset + length > limit)
      return `log entry that writes ${length} bytes at ${write.offset}`;
  }
  return null;
}
