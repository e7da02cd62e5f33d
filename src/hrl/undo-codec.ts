/**
 * The bytes of an undo log (`.hru`), version 1, little-endian; ours. Byte table: docs/formats/undo-log.md. Decoding returns
 * `{ malformed }` and never throws.
 *
 *   file    = header block, segments
 *   segment = segment block, data pages, index (runs, then a digest for each data page), padding to 4096
 */
import { crc32 } from 'node:zlib';
import type { Malformed } from './codec.ts';

export const UNDO_PAGE_BYTES = 4096;
export const UNDO_RUN_BYTES = 24;
export const UNDO_DIGEST_BYTES = 16;
/** Bounds what is in memory while a segment is written or its index is read. */
export const SEGMENT_PAGES_MAX = 2048;
export const SEGMENT_RUNS_MAX = 16_384;

const FILE_MAGIC = 'UNDSTHRU';
const SEGMENT_MAGIC = 'UNDSTSEG';
const VERSION = 1;

/** Which point the log leads back to. */
export interface UndoHeader {
  /** Bytes of the disk at the point. */
  diskSize: number;
  epoch: number;
  /** Milliseconds since 1970. */
  time: number;
}

export interface SegmentHeader {
  /** The set of logs that overwrote what is kept here. */
  epoch: number;
  dataPages: number;
  runs: number;
  /** BLAKE3 of the index. */
  indexDigest: Uint8Array;
}

export interface UndoRun {
  page: number;
  pages: number;
  /** Which data page of the segment is its first; null: zeroes. */
  ordinal: number | null;
}

export function encodeUndoHeader({ diskSize, epoch, time }: UndoHeader): Buffer {
  const bytes = Buffer.alloc(UNDO_PAGE_BYTES);
  bytes.write(FILE_MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(UNDO_PAGE_BYTES, 12);
  bytes.writeBigUInt64LE(BigInt(diskSize), 16);
  bytes.writeBigUInt64LE(BigInt(epoch), 24);
  bytes.writeBigUInt64LE(BigInt(time), 32);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 40)), 40);
  return bytes;
}

export function decodeUndoHeader(bytes: Buffer): UndoHeader | Malformed {
  if (bytes.length < UNDO_PAGE_BYTES || bytes.toString('latin1', 0, 8) !== FILE_MAGIC) return { malformed: 'it has no header' };
  if (bytes.readUInt32LE(40) !== crc32(bytes.subarray(0, 40))) return { malformed: 'the header checksum does not match' };
  const [version, page] = [bytes.readUInt32LE(8), bytes.readUInt32LE(12)];
  if (version !== VERSION || page !== UNDO_PAGE_BYTES) return { malformed: `it is of version ${version} with pages of ${page} bytes` };
  return { diskSize: Number(bytes.readBigUInt64LE(16)), epoch: Number(bytes.readBigUInt64LE(24)), time: Number(bytes.readBigUInt64LE(32)) };
}

export function encodeSegmentHeader({ epoch, dataPages, runs, indexDigest }: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(UNDO_PAGE_BYTES);
  bytes.write(SEGMENT_MAGIC, 0, 'latin1');
  bytes.writeBigUInt64LE(BigInt(epoch), 8);
  bytes.writeUInt32LE(dataPages, 16);
  bytes.writeUInt32LE(runs, 20);
  bytes.set(indexDigest, 24);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 56)), 56);
  return bytes;
}

export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | Malformed {
  if (bytes.length < UNDO_PAGE_BYTES || bytes.toString('latin1', 0, 8) !== SEGMENT_MAGIC) return { malformed: 'it is no segment' };
  if (bytes.readUInt32LE(56) !== crc32(bytes.subarray(0, 56))) return { malformed: 'its checksum does not match' };
  const [dataPages, runs] = [bytes.readUInt32LE(16), bytes.readUInt32LE(20)];
  if (dataPages > SEGMENT_PAGES_MAX || runs > SEGMENT_RUNS_MAX) return { malformed: `it has ${dataPages} pages in ${runs} runs` };
  return { epoch: Number(bytes.readBigUInt64LE(8)), dataPages, runs, indexDigest: Uint8Array.from(bytes.subarray(24, 56)) };
}

/** Runs sorted by page, then the digests of the data pages. */
export function encodeIndex(runs: readonly UndoRun[], digests: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.alloc(indexBytes(runs.length, digests.length));
  for (const [number, { page, pages, ordinal }] of runs.entries()) {
    const at = number * UNDO_RUN_BYTES;
    bytes.writeBigUInt64LE(BigInt(page), at);
    bytes.writeUInt32LE(pages, at + 8);
    bytes.writeUInt32LE(ordinal === null ? 0 : 1, at + 12);
    bytes.writeUInt32LE(ordinal ?? 0, at + 16);
  }
  for (const [number, digest] of digests.entries()) {
    bytes.set(digest.subarray(0, UNDO_DIGEST_BYTES), runs.length * UNDO_RUN_BYTES + number * UNDO_DIGEST_BYTES);
  }
  return bytes;
}

/** The runs of a segment, in order of pages, inside the disk's `pagesOfDisk`; or what is wrong with them. */
export function decodeRuns(bytes: Buffer, { runs, dataPages }: SegmentHeader): UndoRun[] | Malformed {
  const found: UndoRun[] = [];
  let from = 0;
  for (let number = 0; number < runs; number++) {
    const at = number * UNDO_RUN_BYTES;
    const page = Number(bytes.readBigUInt64LE(at));
    const [pages, kind, ordinal] = [bytes.readUInt32LE(at + 8), bytes.readUInt32LE(at + 12), bytes.readUInt32LE(at + 16)];
    if (pages === 0 || page < from || !Number.isSafeInteger(page + pages)) return { malformed: `run ${number} is out of order` };
    if (kind > 1 || (kind === 1 && ordinal + pages > dataPages)) return { malformed: `run ${number} has no data` };
    found.push({ page, pages, ordinal: kind === 1 ? ordinal : null });
    from = page + pages;
  }
  return found;
}

export const indexBytes = (runs: number, dataPages: number): number => runs * UNDO_RUN_BYTES + dataPages * UNDO_DIGEST_BYTES;

/** Bytes of the whole segment, padding included. */
export function segmentBytes({ runs, dataPages }: Pick<SegmentHeader, 'runs' | 'dataPages'>): number {
  const used = UNDO_PAGE_BYTES + dataPages * UNDO_PAGE_BYTES + indexBytes(runs, dataPages);
  return Math.ceil(used / UNDO_PAGE_BYTES) * UNDO_PAGE_BYTES;
}
