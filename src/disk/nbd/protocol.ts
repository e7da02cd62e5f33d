/**
 * The NBD protocol as constants and pure codecs, for both ends: the client in this folder and the server in src/nbd.
 * Source: the NBD project's doc/proto.md (fixed newstyle, structured replies, block status; no extended headers).
 * This file holds the constants and the transmission phase; the option haggling is in negotiation.ts; everything is
 * re-exported here.
 *
 * All integers are big-endian. A decoder takes bytes that came from outside: it never throws on what they say, it
 * returns `{ malformed }` with the reason. The caller hands it at least the fixed size of the structure (the `…_BYTES`
 * constants); fewer bytes are malformed too. 64-bit offsets and sizes become numbers: what exceeds 2^53 - 1 is rounded,
 * never wrapped, so that it still lies past the end of every disk.
 */
import { NBD_MAX_STRING, readU64, tooShort, writeU64, wrongMagic, wrongSize, type Malformed } from './wire.ts';

export * from './negotiation.ts';
export * from './wire.ts';

/** What a client may send or ask for when the server stated no maximum block size. */
export const NBD_DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024;

export const NBD_CMD = {
  READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6, BLOCK_STATUS: 7, RESIZE: 8,
} as const;

export const NBD_CMD_FLAG = {
  FUA: 1 << 0, NO_HOLE: 1 << 1, DF: 1 << 2, REQ_ONE: 1 << 3, FAST_ZERO: 1 << 4, PAYLOAD_LEN: 1 << 5,
} as const;

export const NBD_CHUNK = {
  NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, BLOCK_STATUS: 5, BLOCK_STATUS_EXT: 6, ERROR: 0x8001, ERROR_OFFSET: 0x8002,
} as const;
/** Chunk types with this bit set are errors, known or not. */
export const NBD_CHUNK_IS_ERROR = 0x8000;
export const NBD_CHUNK_FLAG = { DONE: 1 << 0 } as const;

/** Flags of one extent in the `base:allocation` context. */
export const NBD_STATE = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

/** The only error numbers that may travel; any other is to be read as EINVAL. */
export const NBD_ERRNO = {
  EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28, EOVERFLOW: 75, ENOTSUP: 95, ESHUTDOWN: 108,
} as const;
export type NbdErrno = keyof typeof NBD_ERRNO;

const ERRNO_NAMES = new Map<number, NbdErrno>(
  Object.entries(NBD_ERRNO).map(([name, number]) => [number, name as NbdErrno]),
);

/** The name of an error number from the wire; unknown ones are EINVAL, as the protocol demands. */
export function nbdErrnoName(number: number): NbdErrno {
  return ERRNO_NAMES.get(number) ?? 'EINVAL';
}

/** The number to send for an errno name of this host; unknown ones become EIO. */
export function nbdErrnoNumber(name: string | undefined): number {
  return name !== undefined && Object.hasOwn(NBD_ERRNO, name) ? NBD_ERRNO[name as NbdErrno] : NBD_ERRNO.EIO;
}

/*
 *  offset  size  field     request header, client to server
 *       0     4  magic     0x25609513
 *       4     2  flags     NBD_CMD_FLAG bits
 *       6     2  command   NBD_CMD
 *       8     8  cookie    opaque, echoed in the reply
 *      16     8  offset    bytes
 *      24     4  length    bytes; for WRITE this many payload bytes follow
 */
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_REQUEST_BYTES = 28;

export interface NbdRequest {
  flags: number;
  command: number;
  cookie: bigint;
  offset: number;
  length: number;
}

export function decodeRequest(from: Buffer, at = 0): NbdRequest | Malformed {
  if (from.length - at < NBD_REQUEST_BYTES) return tooShort('request header', from.length - at, NBD_REQUEST_BYTES);
  const magic = from.readUInt32BE(at);
  if (magic !== NBD_REQUEST_MAGIC) return wrongMagic('request', magic, NBD_REQUEST_MAGIC);
  return {
    flags: from.readUInt16BE(at + 4),
    command: from.readUInt16BE(at + 6),
    cookie: from.readBigUInt64BE(at + 8),
    offset: readU64(from, at + 16),
    length: from.readUInt32BE(at + 24),
  };
}

export function encodeRequest(request: NbdRequest, into = Buffer.allocUnsafe(NBD_REQUEST_BYTES), at = 0): Buffer {
  into.writeUInt32BE(NBD_REQUEST_MAGIC, at);
  into.writeUInt16BE(request.flags, at + 4);
  into.writeUInt16BE(request.command, at + 6);
  into.writeBigUInt64BE(request.cookie, at + 8);
  writeU64(into, request.offset, at + 16);
  into.writeUInt32BE(request.length, at + 24);
  return into;
}

/*
 *  offset  size  field     simple reply header, server to client; for READ without error the data follows
 *       0     4  magic     0x67446698
 *       4     4  error     NBD_ERRNO, 0 = success
 *       8     8  cookie
 */
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_SIMPLE_REPLY_BYTES = 16;

export interface NbdSimpleReply {
  error: number;
  cookie: bigint;
}

export function encodeSimpleReply(
  reply: NbdSimpleReply, into = Buffer.allocUnsafe(NBD_SIMPLE_REPLY_BYTES), at = 0,
): Buffer {
  into.writeUInt32BE(NBD_SIMPLE_REPLY_MAGIC, at);
  into.writeUInt32BE(reply.error, at + 4);
  into.writeBigUInt64BE(reply.cookie, at + 8);
  return into;
}

/*
 *  offset  size  field     structured reply chunk header, server to client; `length` payload bytes follow
 *       0     4  magic     0x668e33ef
 *       4     2  flags     NBD_CHUNK_FLAG
 *       6     2  type      NBD_CHUNK
 *       8     8  cookie
 *      16     4  length
 */
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_STRUCTURED_REPLY_BYTES = 20;

export interface NbdChunkHeader {
  flags: number;
  type: number;
  cookie: bigint;
  length: number;
}

export function encodeChunkHeader(
  chunk: NbdChunkHeader, into = Buffer.allocUnsafe(NBD_STRUCTURED_REPLY_BYTES), at = 0,
): Buffer {
  into.writeUInt32BE(NBD_STRUCTURED_REPLY_MAGIC, at);
  into.writeUInt16BE(chunk.flags, at + 4);
  into.writeUInt16BE(chunk.type, at + 6);
  into.writeBigUInt64BE(chunk.cookie, at + 8);
  into.writeUInt32BE(chunk.length, at + 16);
  return into;
}

export type NbdReplyHeader = ({ kind: 'simple' } & NbdSimpleReply) | ({ kind: 'chunk' } & NbdChunkHeader);

/** How many bytes the reply header that starts with this magic has; null when the magic is neither. */
export function replyHeaderBytes(magic: number): number | null {
  if (magic === NBD_SIMPLE_REPLY_MAGIC) return NBD_SIMPLE_REPLY_BYTES;
  return magic === NBD_STRUCTURED_REPLY_MAGIC ? NBD_STRUCTURED_REPLY_BYTES : null;
}

/** Either kind of reply header. Hand over at least `replyHeaderBytes` of its first four bytes. */
export function decodeReplyHeader(from: Buffer, at = 0): NbdReplyHeader | Malformed {
  const available = from.length - at;
  if (available < NBD_SIMPLE_REPLY_BYTES) return tooShort('reply header', available, NBD_SIMPLE_REPLY_BYTES);
  const magic = from.readUInt32BE(at);
  const cookie = from.readBigUInt64BE(at + 8);
  if (magic === NBD_SIMPLE_REPLY_MAGIC) return { kind: 'simple', error: from.readUInt32BE(at + 4), cookie };
  if (magic !== NBD_STRUCTURED_REPLY_MAGIC) return wrongMagic('reply', magic, NBD_SIMPLE_REPLY_MAGIC);
  if (available < NBD_STRUCTURED_REPLY_BYTES) return tooShort('chunk header', available, NBD_STRUCTURED_REPLY_BYTES);
  const [flags, type] = [from.readUInt16BE(at + 4), from.readUInt16BE(at + 6)];
  return { kind: 'chunk', flags, type, cookie, length: from.readUInt32BE(at + 16) };
}

/** Payload of OFFSET_DATA: u64 offset, then `chunk.length - 8` bytes of data (at least one). */
export const NBD_OFFSET_DATA_BYTES = 8;

/** Payload of OFFSET_HOLE: u64 offset, u32 length. */
export const NBD_OFFSET_HOLE_BYTES = 12;

export interface NbdHole {
  offset: number;
  length: number;
}

export function encodeHole(hole: NbdHole, into = Buffer.allocUnsafe(NBD_OFFSET_HOLE_BYTES), at = 0): Buffer {
  writeU64(into, hole.offset, at);
  into.writeUInt32BE(hole.length, at + 8);
  return into;
}

export function decodeHole(payload: Buffer): NbdHole | Malformed {
  if (payload.length !== NBD_OFFSET_HOLE_BYTES) return wrongSize('hole chunk', payload.length, NBD_OFFSET_HOLE_BYTES);
  return { offset: readU64(payload, 0), length: payload.readUInt32BE(8) };
}

/** Payload of BLOCK_STATUS: u32 context id, then one or more of { u32 length (not zero), u32 flags }. */
export interface NbdBlockStatus {
  contextId: number;
  extents: NbdStatusExtent[];
}
export interface NbdStatusExtent {
  length: number;
  /** NBD_STATE bits for `base:allocation`. */
  flags: number;
}

export function encodeBlockStatus(status: NbdBlockStatus): Buffer {
  const payload = Buffer.allocUnsafe(4 + 8 * status.extents.length);
  payload.writeUInt32BE(status.contextId, 0);
  status.extents.forEach((extent, index) => {
    payload.writeUInt32BE(extent.length, 4 + 8 * index);
    payload.writeUInt32BE(extent.flags, 8 + 8 * index);
  });
  return payload;
}

export function decodeBlockStatus(payload: Buffer): NbdBlockStatus | Malformed {
  if (payload.length < 12 || payload.length % 8 !== 4) {
    return { malformed: `block status of ${payload.length} bytes, expected 4 + 8 × n with n at least 1` };
  }
  const extents: NbdStatusExtent[] = [];
  for (let at = 4; at < payload.length; at += 8) {
    const length = payload.readUInt32BE(at);
    if (length === 0) return { malformed: `block status extent ${extents.length} has length 0` };
    extents.push({ length, flags: payload.readUInt32BE(at + 4) });
  }
  return { contextId: payload.readUInt32BE(0), extents };
}

/** Payload of ERROR: u32 error, u16 message length, message. ERROR_OFFSET adds a u64 offset behind the message. */
export interface NbdErrorChunk {
  error: number;
  message: string;
  /** Where it failed; only in ERROR_OFFSET chunks. */
  offset: number | null;
}

export function encodeErrorChunk(chunk: NbdErrorChunk): Buffer {
  const message = Buffer.from(chunk.message, 'utf8').subarray(0, NBD_MAX_STRING);
  const payload = Buffer.alloc(6 + message.length + (chunk.offset === null ? 0 : 8));
  payload.writeUInt32BE(chunk.error, 0);
  payload.writeUInt16BE(message.length, 4);
  payload.set(message, 6);
  if (chunk.offset !== null) writeU64(payload, chunk.offset, 6 + message.length);
  return payload;
}

/** Error chunks of unknown types are read as ERROR, with what follows the message ignored. */
export function decodeErrorChunk(type: number, payload: Buffer): NbdErrorChunk | Malformed {
  if (payload.length < 6) return tooShort('error chunk', payload.length, 6);
  const end = 6 + payload.readUInt16BE(4);
  const hasOffset = type === NBD_CHUNK.ERROR_OFFSET;
  if (payload.length < end + (hasOffset ? 8 : 0)) return tooShort('error chunk', payload.length, end);
  const error = payload.readUInt32BE(0);
  if (error === 0) return { malformed: 'error chunk with error 0' };
  return { error, message: payload.toString('utf8', 6, end), offset: hasOffset ? readU64(payload, end) : null };
}
