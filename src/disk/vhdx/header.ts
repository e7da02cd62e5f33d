import { crc32c } from './crc32c.ts';
import { decodeGuid, encodeGuid, GUID_ZERO } from './guid.ts';

/*
 *  offset  size  field            VHDX header ([MS-VHDX] 2.2.2), 4 KiB, little-endian; one at 64 KiB and one at 128 KiB
 *       0     4  signature        'head'
 *       4     4  checksum         CRC-32C over the 4 KiB
 *       8     8  sequence number  the valid header with the larger one is current
 *      16    16  file write GUID  new before the first change of any kind in a session
 *      32    16  data write GUID  new before the first change a guest can see
 *      48    16  log GUID         zero = nothing to replay
 *      64     2  log version      0
 *      66     2  version          1
 *      68     4  log length       multiple of 1 MiB
 *      72     8  log offset       multiple of 1 MiB
 */
export const HEADER_BYTES = 4096;
export const HEADER_AT = [64 << 10, 128 << 10] as const;
export const MIB = 1 << 20;
/** Beyond any file system that this runs on; keeps sums of offsets exact. */
export const FILE_BYTES_MAX = 2 ** 50;
/** Windows always makes 1 MiB. The whole log is read into memory when it has to be replayed. */
export const LOG_BYTES_MAX = 64 * MIB;

export interface Malformed {
  malformed: string;
}

export interface Header {
  sequence: bigint;
  fileWriteGuid: string;
  dataWriteGuid: string;
  logGuid: string;
  logLength: number;
  logOffset: number;
}

/*
 *  offset  size  field       file type identifier, at 0; never written again
 *       0     8  signature   'vhdxfile'
 *       8   512  creator     UTF-16LE
 */
export const IDENTIFIER_BYTES = 520;

export function decodeIdentifier(from: Uint8Array): { creator: string } | Malformed {
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  const signature = bytes.toString('latin1', 0, 8);
  if (signature !== 'vhdxfile') return { malformed: `file signature ${JSON.stringify(signature)}, expected "vhdxfile"` };
  return { creator: bytes.toString('utf16le', 8, IDENTIFIER_BYTES).split('\0')[0]! };
}

export function encodeIdentifier(creator: string): Buffer {
  const bytes = Buffer.alloc(IDENTIFIER_BYTES);
  bytes.write('vhdxfile', 0, 'latin1');
  bytes.write(creator.slice(0, 255), 8, 'utf16le');
  return bytes;
}

export function decodeHeader(from: Uint8Array): Header | Malformed {
  if (from.length !== HEADER_BYTES) return { malformed: `header of ${from.length} bytes, expected ${HEADER_BYTES}` };
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  const signature = bytes.toString('latin1', 0, 4);
  if (signature !== 'head') return { malformed: `header signature ${JSON.stringify(signature)}, expected "head"` };
  const stored = bytes.readUInt32LE(4);
  const computed = crc32c(bytes, 4);
  if (stored !== computed)
    return { malformed: `header checksum 0x${stored.toString(16)}, computed 0x${computed.toString(16)}` };
  const header: Header = {
    sequence: bytes.readBigUInt64LE(8),
    fileWriteGuid: decodeGuid(bytes, 16),
    dataWriteGuid: decodeGuid(bytes, 32),
    logGuid: decodeGuid(bytes, 48),
    logLength: bytes.readUInt32LE(68),
    logOffset: Number(bytes.readBigUInt64LE(72)),
  };
  const version = bytes.readUInt16LE(66);
  if (version !== 1) return { malformed: `format version ${version}, expected 1` };
  const logVersion = bytes.readUInt16LE(64);
  if (logVersion !== 0 && header.logGuid !== GUID_ZERO) return { malformed: `log version ${logVersion}, expected 0` };
  if (header.logLength === 0 || header.logLength % MIB !== 0 || header.logLength > LOG_BYTES_MAX) {
    return { malformed: `log of ${header.logLength} bytes, expected a multiple of 1 MiB up to ${LOG_BYTES_MAX}` };
  }
  if (header.logOffset < MIB || header.logOffset % MIB !== 0 || header.logOffset > FILE_BYTES_MAX) {
    return { malformed: `log at ${header.logOffset}` };
  }
  return header;
}

export function encodeHeader(header: Header): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write('head', 0, 'latin1');
  bytes.writeBigUInt64LE(header.sequence, 8);
  encodeGuid(header.fileWriteGuid, bytes, 16);
  encodeGuid(header.dataWriteGuid, bytes, 32);
  encodeGuid(header.logGuid, bytes, 48);
  bytes.writeUInt16LE(1, 66);
  bytes.writeUInt32LE(header.logLength, 68);
  bytes.writeBigUInt64LE(BigInt(header.logOffset), 72);
  bytes.writeUInt32LE(crc32c(bytes, 4), 4);
  return bytes;
}

/** Which of the two headers is current (0 or 1), or why none is. */
export function currentHeader(
  first: Header | Malformed,
  second: Header | Malformed,
): { slot: 0 | 1; header: Header } | Malformed {
  if ('malformed' in first) {
    if ('malformed' in second) return { malformed: `neither header is valid: ${first.malformed}; ${second.malformed}` };
    return { slot: 1, header: second };
  }
  if ('malformed' in second || first.sequence >= second.sequence) return { slot: 0, header: first };
  return { slot: 1, header: second };
}
