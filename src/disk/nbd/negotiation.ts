/**
 * The option haggling of fixed newstyle NBD: everything before the first request. Constants and pure codecs for both
 * ends; the rules for decoders are those of protocol.ts, which re-exports this file.
 */
import { NBD_MAX_STRING, readU64, tooShort, writeU64, wrongMagic, wrongSize, type Malformed } from './wire.ts';

export const NBD_HANDSHAKE_FLAG = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;
/** The client's answer; the bits mean the same. */
export const NBD_CLIENT_FLAG = NBD_HANDSHAKE_FLAG;

/** Transmission flags of an export. */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0, READ_ONLY: 1 << 1, SEND_FLUSH: 1 << 2, SEND_FUA: 1 << 3, ROTATIONAL: 1 << 4, SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6, SEND_DF: 1 << 7, CAN_MULTI_CONN: 1 << 8, SEND_RESIZE: 1 << 9, SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11, BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;

export const NBD_OPT = {
  EXPORT_NAME: 1, ABORT: 2, LIST: 3, PEEK_EXPORT: 4, STARTTLS: 5, INFO: 6, GO: 7, STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9, SET_META_CONTEXT: 10, EXTENDED_HEADERS: 11,
} as const;

export const NBD_REP = {
  ACK: 1, SERVER: 2, INFO: 3, META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001, ERR_POLICY: 0x8000_0002, ERR_INVALID: 0x8000_0003, ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005, ERR_UNKNOWN: 0x8000_0006, ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008, ERR_TOO_BIG: 0x8000_0009, ERR_EXT_HEADER_REQD: 0x8000_000a,
} as const;
/** Reply types at or above this are errors, known or not; their data is a message for people. */
export const NBD_REP_IS_ERROR = 0x8000_0000;

export const NBD_INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const NBD_BASE_ALLOCATION = 'base:allocation';

/*
 *  offset  size  field    greeting, server to client
 *       0     8  magic    'NBDMAGIC'
 *       8     8  option   'IHAVEOPT' (newstyle)
 *      16     2  flags    NBD_HANDSHAKE_FLAG
 *  The client answers with u32 NBD_CLIENT_FLAG.
 */
export const NBD_MAGIC = 0x4e42_444d_4147_4943n;
export const NBD_OPTION_MAGIC = 0x4948_4156_454f_5054n;
export const NBD_GREETING_BYTES = 18;
export const NBD_CLIENT_FLAGS_BYTES = 4;

export function encodeGreeting(flags: number): Buffer {
  const into = Buffer.allocUnsafe(NBD_GREETING_BYTES);
  into.writeBigUInt64BE(NBD_MAGIC, 0);
  into.writeBigUInt64BE(NBD_OPTION_MAGIC, 8);
  into.writeUInt16BE(flags, 16);
  return into;
}

export function decodeGreeting(from: Buffer): { flags: number } | Malformed {
  if (from.length < NBD_GREETING_BYTES) return tooShort('greeting', from.length, NBD_GREETING_BYTES);
  const [magic, option] = [from.readBigUInt64BE(0), from.readBigUInt64BE(8)];
  if (magic !== NBD_MAGIC) return wrongMagic('greeting', magic, NBD_MAGIC);
  if (option !== NBD_OPTION_MAGIC) return wrongMagic('newstyle greeting', option, NBD_OPTION_MAGIC);
  return { flags: from.readUInt16BE(16) };
}

export function encodeClientFlags(flags: number): Buffer {
  const into = Buffer.allocUnsafe(NBD_CLIENT_FLAGS_BYTES);
  into.writeUInt32BE(flags, 0);
  return into;
}

export function decodeClientFlags(from: Buffer): { flags: number } | Malformed {
  if (from.length < NBD_CLIENT_FLAGS_BYTES) return tooShort('client flags', from.length, NBD_CLIENT_FLAGS_BYTES);
  return { flags: from.readUInt32BE(0) };
}

/*
 *  offset  size  field    option, client to server
 *       0     8  magic    'IHAVEOPT'
 *       8     4  option   NBD_OPT
 *      12     4  length   of the data that follows
 */
export const NBD_OPTION_BYTES = 16;

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const into = Buffer.allocUnsafe(NBD_OPTION_BYTES + data.length);
  into.writeBigUInt64BE(NBD_OPTION_MAGIC, 0);
  into.writeUInt32BE(option, 8);
  into.writeUInt32BE(data.length, 12);
  into.set(data, NBD_OPTION_BYTES);
  return into;
}

export function decodeOptionHeader(from: Buffer, at = 0): { option: number; length: number } | Malformed {
  if (from.length - at < NBD_OPTION_BYTES) return tooShort('option header', from.length - at, NBD_OPTION_BYTES);
  const magic = from.readBigUInt64BE(at);
  if (magic !== NBD_OPTION_MAGIC) return wrongMagic('option', magic, NBD_OPTION_MAGIC);
  return { option: from.readUInt32BE(at + 8), length: from.readUInt32BE(at + 12) };
}

/*
 *  offset  size  field    option reply, server to client
 *       0     8  magic    0x3e889045565a9
 *       8     4  option   the option this answers
 *      12     4  type     NBD_REP
 *      16     4  length   of the data that follows
 */
export const NBD_OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
export const NBD_OPTION_REPLY_BYTES = 20;

export interface NbdOptionReplyHeader {
  option: number;
  type: number;
  length: number;
}

export function encodeOptionReply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const into = Buffer.allocUnsafe(NBD_OPTION_REPLY_BYTES + data.length);
  into.writeBigUInt64BE(NBD_OPTION_REPLY_MAGIC, 0);
  into.writeUInt32BE(option, 8);
  into.writeUInt32BE(type, 12);
  into.writeUInt32BE(data.length, 16);
  into.set(data, NBD_OPTION_REPLY_BYTES);
  return into;
}

/** An error reply with a message for people. */
export function encodeOptionError(option: number, type: number, message: string): Buffer {
  return encodeOptionReply(option, type, Buffer.from(message, 'utf8').subarray(0, NBD_MAX_STRING));
}

export function decodeOptionReplyHeader(from: Buffer, at = 0): NbdOptionReplyHeader | Malformed {
  const available = from.length - at;
  if (available < NBD_OPTION_REPLY_BYTES) return tooShort('option reply', available, NBD_OPTION_REPLY_BYTES);
  const magic = from.readBigUInt64BE(at);
  if (magic !== NBD_OPTION_REPLY_MAGIC) return wrongMagic('option reply', magic, NBD_OPTION_REPLY_MAGIC);
  return { option: from.readUInt32BE(at + 8), type: from.readUInt32BE(at + 12), length: from.readUInt32BE(at + 16) };
}

/** The answer to NBD_OPT_EXPORT_NAME, which has no option reply: u64 size, u16 flags, 124 zeroes unless NO_ZEROES. */
export function encodeExportNameReply(reply: { size: number; flags: number; zeroes: boolean }): Buffer {
  const into = Buffer.alloc(reply.zeroes ? 134 : 10);
  writeU64(into, reply.size, 0);
  into.writeUInt16BE(reply.flags, 8);
  return into;
}

export function decodeExportNameReply(from: Buffer): { size: number; flags: number } | Malformed {
  if (from.length < 10) return tooShort('export name reply', from.length, 10);
  return { size: readU64(from, 0), flags: from.readUInt16BE(8) };
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO: u32 name length, name, u16 count, count × u16 NBD_INFO. */
export interface NbdInfoRequest {
  name: string;
  infos: number[];
}

export function encodeInfoRequest(request: NbdInfoRequest): Buffer {
  const infos = Buffer.allocUnsafe(2 + 2 * request.infos.length);
  infos.writeUInt16BE(request.infos.length, 0);
  request.infos.forEach((info, index) => infos.writeUInt16BE(info, 2 + 2 * index));
  return Buffer.concat([prefixed(request.name), infos]);
}

export function decodeInfoRequest(data: Buffer): NbdInfoRequest | Malformed {
  const name = readPrefixed(data, 0, 'export name');
  if ('malformed' in name) return name;
  if (data.length < name.end + 2) return tooShort('info request', data.length, name.end + 2);
  const count = data.readUInt16BE(name.end);
  const expected = name.end + 2 + 2 * count;
  if (data.length !== expected) return wrongSize('info request', data.length, expected);
  return { name: name.text, infos: Array.from({ length: count }, (_, i) => data.readUInt16BE(name.end + 2 + 2 * i)) };
}

/** Data of NBD_REP_INFO: u16 type, then what the type says. Types a client does not know are ignored. */
export type NbdInfo =
  | { info: 'export'; size: number; flags: number }
  | { info: 'name'; text: string }
  | { info: 'description'; text: string }
  | { info: 'block-size'; minimum: number; preferred: number; maximum: number }
  | { info: 'unknown'; type: number };

export function encodeInfo(info: Exclude<NbdInfo, { info: 'unknown' }>): Buffer {
  switch (info.info) {
    case 'export': {
      const into = Buffer.allocUnsafe(12);
      into.writeUInt16BE(NBD_INFO.EXPORT, 0);
      writeU64(into, info.size, 2);
      into.writeUInt16BE(info.flags, 10);
      return into;
    }
    case 'block-size': {
      const into = Buffer.allocUnsafe(14);
      into.writeUInt16BE(NBD_INFO.BLOCK_SIZE, 0);
      into.writeUInt32BE(info.minimum, 2);
      into.writeUInt32BE(info.preferred, 6);
      into.writeUInt32BE(info.maximum, 10);
      return into;
    }
    case 'name':
    case 'description': {
      const type = info.info === 'name' ? NBD_INFO.NAME : NBD_INFO.DESCRIPTION;
      return Buffer.concat([Buffer.of(0, type), Buffer.from(info.text, 'utf8').subarray(0, NBD_MAX_STRING)]);
    }
  }
}

export function decodeInfo(data: Buffer): NbdInfo | Malformed {
  if (data.length < 2) return tooShort('info reply', data.length, 2);
  const type = data.readUInt16BE(0);
  switch (type) {
    case NBD_INFO.EXPORT:
      if (data.length !== 12) return wrongSize('export info', data.length, 12);
      return { info: 'export', size: readU64(data, 2), flags: data.readUInt16BE(10) };
    case NBD_INFO.BLOCK_SIZE: {
      if (data.length !== 14) return wrongSize('block size info', data.length, 14);
      const [minimum, preferred, maximum] = [data.readUInt32BE(2), data.readUInt32BE(6), data.readUInt32BE(10)];
      return { info: 'block-size', minimum, preferred, maximum };
    }
    case NBD_INFO.NAME:
      return { info: 'name', text: data.toString('utf8', 2) };
    case NBD_INFO.DESCRIPTION:
      return { info: 'description', text: data.toString('utf8', 2) };
    default:
      return { info: 'unknown', type };
  }
}

/** Data of NBD_REP_SERVER, one per export in a list: u32 name length, name, then the description. */
export interface NbdServerEntry {
  name: string;
  description: string;
}

export function encodeServerEntry(entry: NbdServerEntry): Buffer {
  return Buffer.concat([prefixed(entry.name), Buffer.from(entry.description, 'utf8').subarray(0, NBD_MAX_STRING)]);
}

export function decodeServerEntry(data: Buffer): NbdServerEntry | Malformed {
  const name = readPrefixed(data, 0, 'export name');
  if ('malformed' in name) return name;
  return { name: name.text, description: data.toString('utf8', name.end) };
}

/**
 * Data of NBD_OPT_LIST_META_CONTEXT and SET_META_CONTEXT: u32 name length, name, u32 count, count × (u32 length,
 * query).
 */
export interface NbdMetaRequest {
  name: string;
  queries: string[];
}

export function encodeMetaRequest(request: NbdMetaRequest): Buffer {
  const count = Buffer.allocUnsafe(4);
  count.writeUInt32BE(request.queries.length, 0);
  return Buffer.concat([prefixed(request.name), count, ...request.queries.map(prefixed)]);
}

export function decodeMetaRequest(data: Buffer): NbdMetaRequest | Malformed {
  const name = readPrefixed(data, 0, 'export name');
  if ('malformed' in name) return name;
  if (data.length < name.end + 4) return tooShort('meta context request', data.length, name.end + 4);
  const count = data.readUInt32BE(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  // Each query needs its four bytes of length, so a lying count runs out of data before it costs anything.
  while (queries.length < count) {
    const query = readPrefixed(data, at, 'meta context query');
    if ('malformed' in query) return query;
    queries.push(query.text);
    at = query.end;
  }
  return at === data.length ? { name: name.text, queries } : wrongSize('meta context request', data.length, at);
}

/** Data of NBD_REP_META_CONTEXT: u32 id (0 in answers to LIST), then the name. */
export interface NbdMetaContext {
  id: number;
  name: string;
}

export function encodeMetaContext(context: NbdMetaContext): Buffer {
  const id = Buffer.allocUnsafe(4);
  id.writeUInt32BE(context.id, 0);
  return Buffer.concat([id, Buffer.from(context.name, 'utf8').subarray(0, NBD_MAX_STRING)]);
}

export function decodeMetaContext(data: Buffer): NbdMetaContext | Malformed {
  if (data.length < 4) return tooShort('meta context', data.length, 4);
  return { id: data.readUInt32BE(0), name: data.toString('utf8', 4) };
}

function prefixed(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(bytes.length, 0);
  return Buffer.concat([length, bytes]);
}

function readPrefixed(data: Buffer, at: number, what: string): { text: string; end: number } | Malformed {
  if (data.length < at + 4) return tooShort(what, data.length - at, 4);
  const length = data.readUInt32BE(at);
  if (length > NBD_MAX_STRING) return { malformed: `${what} of ${length} bytes, at most ${NBD_MAX_STRING} are allowed` };
  const end = at + 4 + length;
  return data.length < end ? tooShort(what, data.length - at, 4 + length) : { text: data.toString('utf8', at + 4, end), end };
}
