/**
 * The transmission phase of one connection: requests that have arrived are validated and started, all in one go; each
 * is answered when it ends, in whatever order that is.
 *
 * This is the hot path: headers are read and written in place, without the objects of the codecs in
 * disk/nbd/protocol.ts (whose tables hold for both), `Call` objects and their callbacks are reused, and an export that
 * is done at once costs no promise (bench/nbd-untracked.ts).
 */
import {
  NBD_CHUNK, NBD_CHUNK_FLAG, NBD_CMD, NBD_CMD_FLAG, NBD_ERRNO, NBD_OFFSET_DATA_BYTES, NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC, NBD_SIMPLE_REPLY_BYTES, NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC, encodeBlockStatus, encodeErrorChunk, nbdErrnoNumber, readU64, writeU64, wrongMagic,
} from '../disk/nbd/protocol.ts';
import { errnoOf, messageOf } from '../model/errors.ts';
import { statusExtents } from './block-status.ts';
import type { Done, NbdExport } from './export.ts';
import { BASE_ALLOCATION_ID } from './haggling.ts';
import { LARGE_PAYLOAD_BYTES, type Inbox } from './inbox.ts';
import type { NbdLimits } from './limits.ts';
import type { Outbox } from './outbox.ts';
import type { Slab, SlabPool } from './slab-pool.ts';
import { commandName, refusal, type Refusal, type Session } from './validate-request.ts';

/** Why `pump` stopped: for more bytes, until something ends or memory is free, or for good. */
export type Pause =
  | { kind: 'more' }
  | { kind: 'wait'; memoryBytes: number }
  | { kind: 'end'; reason: string; isFault: boolean };

const MORE: Pause = { kind: 'more' };
const WAIT_FOR_END: Pause = { kind: 'wait', memoryBytes: 0 };
const WAIT_FOR_SLAB: Pause = { kind: 'wait', memoryBytes: 1 };
const NOTHING = Buffer.alloc(0);
/** The end of the work will be told by a call. */
const CALLS_BACK = Symbol('calls back');

/** One request under way. */
class Call {
  command = 0;
  flags = 0;
  offset = 0;
  length = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** READ: where the data shall go. WRITE: the payload. */
  data: Buffer = NOTHING;
  /** What `data` lies in; this call is one of its users. */
  slab: Slab | null = null;
  /** Where the reply of a small read starts in the slab; -1 for a large read, whose slab holds the data only. */
  replyAt = -1;
  readonly succeed: () => void;
  readonly fail: (error: unknown) => void;
  /** Null: it succeeded. */
  readonly ended: (failure: unknown) => void;

  constructor(ended: (call: Call, failed: boolean, error: unknown) => void) {
    this.succeed = () => ended(this, false, null);
    this.fail = (error) => ended(this, true, error);
    this.ended = (failure) => ended(this, failure !== null, failure);
  }
}

export interface TransmissionPorts {
  target: NbdExport;
  session: Session;
  inbox: Inbox;
  outbox: Outbox;
  pool: SlabPool;
  limits: NbdLimits;
  /** Something ended outside of `pump`: flush soon, and pump if it had to wait. */
  ended: () => void;
  /** The export failed; the client has been told. */
  onFailure: (what: string, error: unknown) => void;
}

export class Transmission {
  readonly #ports: TransmissionPorts;
  readonly #idle: Call[] = [];
  readonly #readHeaderBytes: number;
  /** A large write whose payload is arriving. */
  #arriving: Call | null = null;
  /** A refused write whose payload is dropped first: clients do not expect an answer to what they are still sending. */
  #dropping: { call: Call; refusal: Refusal; left: number } | null = null;
  #unanswered = 0;
  #unansweredBytes = 0;
  #isOver = false;
  /** Operations of the export that have not ended. */
  executing = 0;
  requests = 0;
  refused = 0;

  constructor(ports: TransmissionPorts) {
    this.#ports = ports;
    this.#readHeaderBytes = ports.session.structuredReplies
      ? NBD_STRUCTURED_REPLY_BYTES + NBD_OFFSET_DATA_BYTES : NBD_SIMPLE_REPLY_BYTES;
  }

  /** Requests that were started and whose replies the kernel has not taken yet. */
  get unanswered(): number {
    return this.#unanswered;
  }

  /** Bytes of a request have arrived that is not complete. */
  get isMidRequest(): boolean {
    return this.#arriving !== null || this.#dropping !== null || this.#ports.inbox.available > 0;
  }

  /** Starts every request that has arrived. */
  pump(): Pause {
    for (;;) {
      const pause = this.#arriving !== null ? this.#arrive() : this.#dropping !== null ? this.#drop() : this.#next();
      if (pause !== null) return pause;
    }
  }

  /** The outbox has sent replies. */
  written(replies: number, payloadBytes: number): void {
    this.#unanswered -= replies;
    this.#unansweredBytes -= payloadBytes;
  }

  /** The socket is gone: operations under way end without being answered. */
  abandon(): void {
    this.#isOver = true;
  }

  /** Takes one request from the inbox. Null: it was started, go on. */
  #next(): Pause | null {
    const { inbox, limits } = this.#ports;
    if (inbox.available < NBD_REQUEST_BYTES) {
      return inbox.makeRoom(NBD_REQUEST_BYTES) ? MORE : WAIT_FOR_SLAB;
    }
    // Before all else, as refusals take memory too until the client takes them.
    if (this.#unanswered >= limits.requestsInFlight) return WAIT_FOR_END;
    const { bytes } = inbox.slab;
    const at = inbox.parsed;
    const magic = bytes.readUInt32BE(at);
    if (magic !== NBD_REQUEST_MAGIC) {
      return { kind: 'end', isFault: true, reason: wrongMagic('request', magic, NBD_REQUEST_MAGIC).malformed };
    }
    const call = this.#idle.pop() ?? new Call(this.#ended);
    call.flags = bytes.readUInt16BE(at + 4);
    call.command = bytes.readUInt16BE(at + 6);
    call.cookieHigh = bytes.readUInt32BE(at + 8);
    call.cookieLow = bytes.readUInt32BE(at + 12);
    call.offset = readU64(bytes, at + 16);
    call.length = bytes.readUInt32BE(at + 24);
    if (call.command === NBD_CMD.DISC) return { kind: 'end', isFault: false, reason: 'the client disconnected' };
    const why = refusal(call, this.#ports.target, this.#ports.session, limits.payloadBytes);
    if (why !== null) return this.#refuse(call, why);
    const carried = call.command === NBD_CMD.READ || call.command === NBD_CMD.WRITE ? call.length : 0;
    const isFull = this.#unansweredBytes + carried > limits.connectionBytes;
    const pause = isFull && this.#unanswered > 0 ? WAIT_FOR_END : this.#admit(call);
    if (pause !== null && call !== this.#arriving) this.#idle.push(call);
    return pause;
  }

  /**
   * Finds memory for a valid request and starts it. Null: it was started. Otherwise it is still in the inbox, or
   * arriving.
   */
  #admit(call: Call): Pause | null {
    const isLarge = call.length > LARGE_PAYLOAD_BYTES;
    switch (call.command) {
      case NBD_CMD.READ: return this.#admitRead(call, isLarge);
      case NBD_CMD.WRITE: return isLarge ? this.#admitLargeWrite(call) : this.#admitSmallWrite(call);
      default:
        this.#ports.inbox.consume(NBD_REQUEST_BYTES);
        this.#start(call);
        return null;
    }
  }

  #admitRead(call: Call, isLarge: boolean): Pause | null {
    const { inbox, outbox, pool } = this.#ports;
    const { length } = call;
    const slab = isLarge ? pool.take(length) : outbox.reserve(this.#readHeaderBytes + length);
    if (slab === null) return isLarge ? { kind: 'wait', memoryBytes: length } : WAIT_FOR_SLAB;
    const start = isLarge ? 0 : outbox.reservedAt + this.#readHeaderBytes;
    call.slab = slab;
    call.replyAt = isLarge ? -1 : outbox.reservedAt;
    call.data = slab.bytes.subarray(start, start + length);
    inbox.consume(NBD_REQUEST_BYTES);
    this.#start(call);
    return null;
  }

  #admitSmallWrite(call: Call): Pause | null {
    const { inbox } = this.#ports;
    const whole = NBD_REQUEST_BYTES + call.length;
    if (inbox.available < whole) return inbox.makeRoom(whole) ? MORE : WAIT_FOR_SLAB;
    const { slab, parsed } = inbox;
    slab.users += 1;
    call.slab = slab;
    call.data = slab.bytes.subarray(parsed + NBD_REQUEST_BYTES, parsed + whole);
    inbox.consume(whole);
    this.#start(call);
    return null;
  }

  #admitLargeWrite(call: Call): Pause | null {
    const { inbox, pool } = this.#ports;
    const slab = pool.take(call.length);
    if (slab === null) return { kind: 'wait', memoryBytes: call.length };
    call.slab = slab;
    call.data = slab.bytes.subarray(0, call.length);
    inbox.consume(NBD_REQUEST_BYTES);
    inbox.beginLarge(slab, call.length);
    this.#arriving = call;
    return this.#arrive();
  }

  /** Starts the large write when its payload is complete; null: it was started. */
  #arrive(): Pause | null {
    const { inbox } = this.#ports;
    const call = this.#arriving!;
    if (!inbox.endLarge()) return inbox.makeRoom(NBD_REQUEST_BYTES) ? MORE : WAIT_FOR_SLAB;
    this.#arriving = null;
    this.#start(call);
    return null;
  }

  #start(call: Call): void {
    this.requests += 1;
    this.#unanswered += 1;
    if (call.slab !== null) this.#unansweredBytes += call.length;
    let work: Done | typeof CALLS_BACK;
    try {
      work = this.#perform(call);
    } catch (error) {
      this.#answer(call, true, error);
      return;
    }
    if (work === undefined) {
      this.#answer(call, false, null);
    } else {
      this.executing += 1;
      if (work !== CALLS_BACK) work.then(call.succeed, call.fail);
    }
  }

  #perform(call: Call): Done | typeof CALLS_BACK {
    const { target } = this.#ports;
    const { command, offset, length } = call;
    const fua = (call.flags & NBD_CMD_FLAG.FUA) !== 0;
    switch (command) {
      case NBD_CMD.READ: return target.read(call.data, offset);
      case NBD_CMD.WRITE:
        if (!fua && target.writeThen !== undefined) {
          target.writeThen(call.data, offset, call.ended);
          return CALLS_BACK;
        }
        return target.write(call.data, offset, { fua });
      case NBD_CMD.FLUSH: return target.flush();
      case NBD_CMD.TRIM: return target.trim(offset, length, { fua });
      case NBD_CMD.WRITE_ZEROES:
        return target.zero(offset, length, { fua, mayDiscard: (call.flags & NBD_CMD_FLAG.NO_HOLE) === 0 });
      case NBD_CMD.BLOCK_STATUS: return this.#blockStatus(call);
      default: return undefined; // CACHE: a hint that needs no work.
    }
  }

  async #blockStatus(call: Call): Promise<void> {
    const one = (call.flags & NBD_CMD_FLAG.REQ_ONE) !== 0;
    const extents = await statusExtents(this.#ports.target, call.offset, call.length, one);
    call.data = encodeBlockStatus({ contextId: BASE_ALLOCATION_ID, extents });
  }

  /** An asynchronous operation has ended. */
  readonly #ended = (call: Call, failed: boolean, error: unknown): void => {
    this.executing -= 1;
    this.#answer(call, failed, error);
    this.#ports.ended();
  };

  #answer(call: Call, failed: boolean, error: unknown): void {
    const { outbox, pool } = this.#ports;
    const { command, slab } = call;
    let sent: Slab | null = null; // Released by the outbox; otherwise it is released here.
    if (!this.#isOver) {
      if (failed) this.#replyFailure(call, error);
      else if (command === NBD_CMD.READ) sent = this.#replyData(call);
      else if (command === NBD_CMD.BLOCK_STATUS) this.#replyChunk(call, NBD_CHUNK.BLOCK_STATUS, call.data);
      else this.#replySimple(call, 0);
      outbox.endReply(slab === null ? 0 : call.length);
    }
    if (slab !== null && sent === null) pool.release(slab);
    this.#recycle(call);
  }

  #recycle(call: Call): void {
    call.slab = null;
    call.data = NOTHING;
    this.#idle.push(call);
  }

  #replyData(call: Call): Slab {
    const { outbox, session } = this.#ports;
    const slab = call.slab!;
    const header = this.#readHeaderBytes;
    const isSmall = call.replyAt >= 0;
    const into = isSmall ? slab.bytes : outbox.addControl(header);
    const at = isSmall ? call.replyAt : outbox.controlAt;
    if (session.structuredReplies) {
      putChunkHeader(into, at, call, NBD_CHUNK.OFFSET_DATA, NBD_OFFSET_DATA_BYTES + call.length);
      writeU64(into, call.offset, at + NBD_STRUCTURED_REPLY_BYTES);
    } else {
      putSimpleReply(into, at, call, 0);
    }
    if (isSmall) outbox.add(into, at, at + header + call.length, slab);
    else outbox.add(slab.bytes, 0, call.length, slab);
    return slab;
  }

  #replySimple(call: Call, error: number): void {
    const into = this.#ports.outbox.addControl(NBD_SIMPLE_REPLY_BYTES);
    putSimpleReply(into, this.#ports.outbox.controlAt, call, error);
  }

  /** A whole reply of one chunk. */
  #replyChunk(call: Call, type: number, payload: Buffer): void {
    const into = this.#ports.outbox.addControl(NBD_STRUCTURED_REPLY_BYTES + payload.length);
    const at = this.#ports.outbox.controlAt;
    putChunkHeader(into, at, call, type, payload.length);
    payload.copy(into, at + NBD_STRUCTURED_REPLY_BYTES);
  }

  #replyError(call: Call, error: number, message: string): void {
    if (!this.#ports.session.structuredReplies) return this.#replySimple(call, error);
    return this.#replyChunk(call, NBD_CHUNK.ERROR, encodeErrorChunk({ error, message, offset: null }));
  }

  /** The client hears the errno only: messages of this host's files are for this host's log. */
  #replyFailure(call: Call, error: unknown): void {
    const errno = errnoOf(error);
    const what = `${commandName(call.command)} ${call.offset}+${call.length}`;
    this.#replyError(call, errnoForClient(errno), `${what} failed: ${errno ?? 'EIO'}`);
    this.#ports.onFailure(`${what}: ${messageOf(error)}`, error);
  }

  #refuse(call: Call, why: Refusal): Pause | null {
    const { inbox, limits } = this.#ports;
    inbox.consume(NBD_REQUEST_BYTES);
    this.#dropping = { call, refusal: why, left: call.command === NBD_CMD.WRITE ? call.length : 0 };
    if (this.#dropping.left <= 2 * limits.payloadBytes) return null;
    this.#answerRefusal();
    return { kind: 'end', isFault: true, reason: `write payload of ${call.length} bytes, at most ${limits.payloadBytes}` };
  }

  #drop(): Pause | null {
    const { inbox } = this.#ports;
    const dropping = this.#dropping!;
    const count = Math.min(dropping.left, inbox.available);
    inbox.consume(count);
    dropping.left -= count;
    if (dropping.left > 0) return inbox.makeRoom(1) ? MORE : WAIT_FOR_SLAB;
    this.#answerRefusal();
    return null;
  }

  #answerRefusal(): void {
    const { call, refusal: why } = this.#dropping!;
    this.#dropping = null;
    this.refused += 1;
    this.#unanswered += 1;
    this.#replyError(call, NBD_ERRNO[why.errno], `${commandName(call.command)}: ${why.reason}`);
    this.#ports.outbox.endReply(0);
    this.#recycle(call);
  }
}

function putSimpleReply(into: Buffer, at: number, call: Call, error: number): void {
  into.writeUInt32BE(NBD_SIMPLE_REPLY_MAGIC, at);
  into.writeUInt32BE(error, at + 4);
  into.writeUInt32BE(call.cookieHigh, at + 8);
  into.writeUInt32BE(call.cookieLow, at + 12);
}

function putChunkHeader(into: Buffer, at: number, call: Call, type: number, length: number): void {
  into.writeUInt32BE(NBD_STRUCTURED_REPLY_MAGIC, at);
  into.writeUInt16BE(NBD_CHUNK_FLAG.DONE, at + 4);
  into.writeUInt16BE(type, at + 6);
  into.writeUInt32BE(call.cookieHigh, at + 8);
  into.writeUInt32BE(call.cookieLow, at + 12);
  into.writeUInt32BE(length, at + 16);
}

/** As the protocol wishes: quota and file size limits are lack of space, and permissions are EPERM. */
function errnoForClient(errno: string | undefined): number {
  if (errno === 'EDQUOT' || errno === 'EFBIG') return NBD_ERRNO.ENOSPC;
  if (errno === 'EROFS' || errno === 'EACCES') return NBD_ERRNO.EPERM;
  return nbdErrnoNumber(errno);
}
