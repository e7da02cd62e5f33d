/**
 * The client's side of the option haggling, without a socket: a generator that says what to send and how many bytes it
 * needs next, and returns what was agreed. Order: structured replies, `base:allocation`, GO; EXPORT_NAME for servers
 * without GO.
 */
import {
  decodeExportNameReply, decodeGreeting, decodeInfo, decodeMetaContext, decodeOptionReplyHeader, encodeClientFlags,
  encodeInfoRequest, encodeMetaRequest, encodeOption, isMalformed, NBD_BASE_ALLOCATION, NBD_CLIENT_FLAG,
  NBD_DEFAULT_MAX_PAYLOAD, NBD_GREETING_BYTES, NBD_HANDSHAKE_FLAG, NBD_INFO, NBD_OPT, NBD_OPTION_REPLY_BYTES, NBD_REP,
  NBD_REP_IS_ERROR, type Malformed, type NbdInfo,
} from './protocol.ts';

/** More than any honest server says in one option reply; it bounds what a hostile one makes us hold. */
const REPLY_BYTES_MAX = 64 * 1024;
/** One option is answered by a handful of replies. */
const REPLIES_MAX = 64;

export interface NegotiatedExport {
  size: number;
  /** NBD_FLAG bits. */
  flags: number;
  structuredReplies: boolean;
  /** The id of `base:allocation` in block status replies; null when the server does not offer it. */
  allocationContext: number | null;
  minimumBlockSize: number;
  preferredBlockSize: number;
  maximumBlockSize: number;
}

export interface HandshakeStep {
  send: Buffer;
  /** The next step is given exactly this many bytes. */
  need: number;
}

/** The server said no, or said nonsense. `code` decides how the failure is told to a person. */
export class HandshakeError extends Error {
  readonly code: 'malformed' | 'unknown-export' | 'tls-required' | 'refused' | 'too-old';
  constructor(code: HandshakeError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

type Steps<T> = Generator<HandshakeStep, T, Buffer>;
const NOTHING = Buffer.alloc(0);

/** Throws HandshakeError. Whatever was returned, the next byte from the server belongs to a reply. */
export function* clientHandshake(exportName: string): Steps<NegotiatedExport> {
  const { flags } = understood(decodeGreeting(yield { send: NOTHING, need: NBD_GREETING_BYTES }));
  if ((flags & NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE) === 0) {
    throw new HandshakeError('too-old', 'the server does not speak the fixed newstyle protocol');
  }
  const noZeroes = (flags & NBD_HANDSHAKE_FLAG.NO_ZEROES) !== 0;
  const clientFlags = NBD_CLIENT_FLAG.FIXED_NEWSTYLE | (noZeroes ? NBD_CLIENT_FLAG.NO_ZEROES : 0);

  const structured = yield* ask(NBD_OPT.STRUCTURED_REPLY, NOTHING, encodeClientFlags(clientFlags));
  const structuredReplies = structured.error === null;
  const allocationContext = structuredReplies ? yield* askAllocationContext(exportName) : null;
  const agreed = { structuredReplies, allocationContext };

  const go = yield* ask(NBD_OPT.GO, encodeInfoRequest({ name: exportName, infos: [NBD_INFO.BLOCK_SIZE] }));
  if (go.error === null) return checked({ ...agreed, ...fromInfos(go.replies) });
  if (go.error.type !== NBD_REP.ERR_UNSUP) throw refusal(exportName, go.error);

  const need = noZeroes ? 10 : 134;
  const reply = understood(decodeExportNameReply(
    yield { send: encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from(exportName, 'utf8')), need }));
  return checked({ ...agreed, ...reply, ...DEFAULT_BLOCK_SIZES });
}

/** What may be assumed of a server that states no block sizes. */
const DEFAULT_BLOCK_SIZES = { minimumBlockSize: 1, preferredBlockSize: 4096, maximumBlockSize: NBD_DEFAULT_MAX_PAYLOAD };

function* askAllocationContext(exportName: string): Steps<number | null> {
  const answer = yield* ask(NBD_OPT.SET_META_CONTEXT, encodeMetaRequest({ name: exportName, queries: [NBD_BASE_ALLOCATION] }));
  for (const reply of answer.replies) {
    if (reply.type !== NBD_REP.META_CONTEXT) continue;
    const context = understood(decodeMetaContext(reply.data));
    if (context.name === NBD_BASE_ALLOCATION) return context.id;
  }
  return null;
}

interface OptionReply {
  type: number;
  data: Buffer;
}

/** Sends one option and collects its replies up to ACK (`error` null) or an error. */
function* ask(
  option: number, data: Buffer, before: Buffer = NOTHING,
): Steps<{ error: OptionReply | null; replies: OptionReply[] }> {
  const replies: OptionReply[] = [];
  let send = Buffer.concat([before, encodeOption(option, data)]);
  while (replies.length < REPLIES_MAX) {
    const header = understood(decodeOptionReplyHeader(yield { send, need: NBD_OPTION_REPLY_BYTES }));
    send = NOTHING;
    if (header.option !== option) throw malformed(`a reply to option ${header.option}, which was not asked (${option} was)`);
    if (header.length > REPLY_BYTES_MAX) throw malformed(`an option reply of ${header.length} bytes`);
    const reply = { type: header.type, data: header.length === 0 ? NOTHING : yield { send, need: header.length } };
    if (reply.type === NBD_REP.ACK) return { error: null, replies };
    if (reply.type >= NBD_REP_IS_ERROR) return { error: reply, replies };
    replies.push(reply);
  }
  throw malformed(`more than ${REPLIES_MAX} replies to option ${option}`);
}

function fromInfos(replies: OptionReply[]): Omit<NegotiatedExport, 'structuredReplies' | 'allocationContext'> {
  const infos = replies.filter((reply) => reply.type === NBD_REP.INFO).map((reply) => understood(decodeInfo(reply.data)));
  const found = infos.find((info): info is Extract<NbdInfo, { info: 'export' }> => info.info === 'export');
  if (found === undefined) throw malformed('no size in the answer to GO');
  const block = infos.find((info): info is Extract<NbdInfo, { info: 'block-size' }> => info.info === 'block-size');
  const sizes = block === undefined ? DEFAULT_BLOCK_SIZES
    : { minimumBlockSize: block.minimum, preferredBlockSize: block.preferred, maximumBlockSize: block.maximum };
  return { size: found.size, flags: found.flags, ...sizes };
}

/** Block sizes are used in divisions and bounds later: hold the server to what the protocol says of them. */
function checked(found: NegotiatedExport): NegotiatedExport {
  const { size, minimumBlockSize: minimum, maximumBlockSize: maximum } = found;
  if (!Number.isSafeInteger(size)) throw malformed(`an export of ${size} bytes`);
  const isPowerOfTwo = minimum > 0 && (minimum & (minimum - 1)) === 0;
  if (!isPowerOfTwo || minimum > 65_536) throw malformed(`a minimum block size of ${minimum}`);
  if (maximum < minimum) throw malformed(`a maximum block size of ${maximum} with a minimum of ${minimum}`);
  if (size % minimum !== 0) throw malformed(`${size} bytes in blocks of at least ${minimum}`);
  const bounded = Math.min(maximum, NBD_DEFAULT_MAX_PAYLOAD);
  return { ...found, maximumBlockSize: bounded - (bounded % minimum) };
}

function refusal(exportName: string, error: OptionReply): HandshakeError {
  const said = error.data.length === 0 ? '' : `: ${error.data.toString('utf8').slice(0, 500)}`;
  switch (error.type) {
    case NBD_REP.ERR_UNKNOWN:
      return new HandshakeError('unknown-export', `the server has no export named "${exportName}"${said}`);
    case NBD_REP.ERR_TLS_REQD:
      return new HandshakeError('tls-required', `the server wants TLS${said}`);
    default:
      return new HandshakeError('refused', `the server refuses the export "${exportName}" (0x${error.type.toString(16)})${said}`);
  }
}

function understood<T extends object>(decoded: T | Malformed): T {
  if (isMalformed(decoded)) throw malformed(decoded.malformed);
  return decoded;
}

function malformed(what: string): HandshakeError {
  return new HandshakeError('malformed', `the server does not speak NBD correctly: ${what}`);
}
