/**
 * Turns the bytes a server sends in the transmission phase into finished requests. Data goes straight into the buffer
 * of the read it belongs to. Nothing the server says is believed: offsets, lengths and kinds are held against the
 * request, and the first thing that does not fit ends the connection, because from there on nobody knows where the next
 * reply begins.
 */
import { ioError } from '../disk-errors.ts';
import {
  decodeBlockStatus, decodeErrorChunk, decodeHole, decodeReplyHeader, isMalformed, NBD_CHUNK, NBD_CHUNK_FLAG,
  NBD_CHUNK_IS_ERROR, NBD_CMD, NBD_OFFSET_DATA_BYTES, NBD_SIMPLE_REPLY_BYTES, NBD_STRUCTURED_REPLY_BYTES, nbdErrnoName, readU64,
  replyHeaderBytes, type Malformed, type NbdChunkHeader, type NbdSimpleReply, type NbdStatusExtent,
} from './protocol.ts';

/** 128 Ki extents, the most that QEMU sends, and far more than any error message. */
const PAYLOAD_BYTES_MAX = 4 + 8 * 128 * 1024;

export interface PendingRequest {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** Where the data of a READ goes; its length is `length`. */
  readonly into: Uint8Array | null;
  readonly startedAt: number;
  /** Ranges of `into`, relative to `offset`, that have been filled. */
  readonly filled: { start: number; end: number }[];
  extents: NbdStatusExtent[];
  error: Error | null;
  readonly done: (error: Error | null) => void;
}

export class ReplyReader {
  readonly #requests: Map<bigint, PendingRequest>;
  readonly #allocationContext: number | null;
  readonly #header = Buffer.alloc(NBD_STRUCTURED_REPLY_BYTES);
  readonly #dataOffset = Buffer.alloc(NBD_OFFSET_DATA_BYTES);
  /** What is being filled now, how far, and what to do when it is full. */
  #target: Uint8Array = this.#header.subarray(0, NBD_SIMPLE_REPLY_BYTES);
  #have = 0;
  #whenFull: () => Malformed | null = this.#gotHeader;
  #chunk: NbdChunkHeader = { flags: 0, type: 0, cookie: 0n, length: 0 };

  /** Finished requests are taken out of `requests` before their `done` is called. */
  constructor(requests: Map<bigint, PendingRequest>, allocationContext: number | null) {
    this.#requests = requests;
    this.#allocationContext = allocationContext;
  }

  /** Hand over all bytes in order. After `{ malformed }` the connection is of no use any more. */
  feed(bytes: Buffer): Malformed | null {
    let at = 0;
    while (at < bytes.length) {
      const count = bytes.copy(this.#target, this.#have, at, at + this.#target.length - this.#have);
      this.#have += count;
      at += count;
      if (this.#have < this.#target.length) return null;
      const malformed = this.#whenFull();
      if (malformed !== null) return malformed;
    }
    return null;
  }

  #expect(target: Uint8Array, whenFull: () => Malformed | null): null {
    this.#target = target;
    this.#have = 0;
    this.#whenFull = whenFull;
    return null;
  }

  #expectHeader(): null {
    return this.#expect(this.#header.subarray(0, NBD_SIMPLE_REPLY_BYTES), this.#gotHeader);
  }

  #gotHeader(): Malformed | null {
    const size = replyHeaderBytes(this.#header.readUInt32BE(0));
    if (size !== null && this.#have < size) {
      // A chunk header is four bytes longer: go on filling behind what is there.
      this.#target = this.#header;
      return null;
    }
    const reply = decodeReplyHeader(this.#header);
    if (isMalformed(reply)) return reply;
    const request = this.#requests.get(reply.cookie);
    if (request === undefined) return { malformed: `a reply to request ${reply.cookie}, which is not waiting for one` };
    if (reply.kind === 'simple') return this.#gotSimpleReply(reply, request);
    this.#chunk = reply;
    return this.#gotChunkHeader(reply, request);
  }

  #gotSimpleReply(reply: NbdSimpleReply, request: PendingRequest): Malformed | null {
    if (reply.error !== 0) request.error = serverError(request, reply.error, '');
    else if (request.command === NBD_CMD.BLOCK_STATUS) return { malformed: 'block status answered without extents' };
    else if (request.into !== null && request.length > 0) {
      return this.#expect(request.into, () => {
        request.filled.push({ start: 0, end: request.length });
        return this.#finish(reply.cookie, request);
      });
    }
    return this.#finish(reply.cookie, request);
  }

  #gotChunkHeader(chunk: NbdChunkHeader, request: PendingRequest): Malformed | null {
    const isRead = request.command === NBD_CMD.READ;
    if (chunk.type === NBD_CHUNK.NONE) {
      return chunk.length === 0 ? this.#chunkDone(request) : { malformed: `an empty chunk of ${chunk.length} bytes` };
    }
    if (chunk.type === NBD_CHUNK.OFFSET_DATA) {
      if (!isRead || chunk.length <= NBD_OFFSET_DATA_BYTES) return unfit(chunk, request);
      return this.#expect(this.#dataOffset, () => this.#gotDataOffset(request));
    }
    const fits = chunk.type >= NBD_CHUNK_IS_ERROR
      || (chunk.type === NBD_CHUNK.OFFSET_HOLE && isRead)
      || (chunk.type === NBD_CHUNK.BLOCK_STATUS && request.command === NBD_CMD.BLOCK_STATUS);
    if (!fits || chunk.length === 0 || chunk.length > PAYLOAD_BYTES_MAX) return unfit(chunk, request);
    const payload = Buffer.allocUnsafe(chunk.length);
    return this.#expect(payload, () => this.#gotPayload(payload, request));
  }

  #gotDataOffset(request: PendingRequest): Malformed | null {
    const start = readU64(this.#dataOffset, 0) - request.offset;
    const end = start + this.#chunk.length - NBD_OFFSET_DATA_BYTES;
    if (start < 0 || end > request.length) return outside(start, end, request);
    return this.#expect(request.into!.subarray(start, end), () => {
      request.filled.push({ start, end });
      return this.#chunkDone(request);
    });
  }

  #gotPayload(payload: Buffer, request: PendingRequest): Malformed | null {
    if (this.#chunk.type === NBD_CHUNK.OFFSET_HOLE) {
      const hole = decodeHole(payload);
      if (isMalformed(hole)) return hole;
      const start = hole.offset - request.offset;
      const end = start + hole.length;
      if (start < 0 || end > request.length) return outside(start, end, request);
      request.into!.fill(0, start, end);
      request.filled.push({ start, end });
    } else if (this.#chunk.type === NBD_CHUNK.BLOCK_STATUS) {
      const status = decodeBlockStatus(payload);
      if (isMalformed(status)) return status;
      if (status.contextId === this.#allocationContext) request.extents = status.extents;
    } else {
      const said = decodeErrorChunk(this.#chunk.type, payload);
      if (isMalformed(said)) return said;
      request.error ??= serverError(request, said.error, said.message);
    }
    return this.#chunkDone(request);
  }

  #chunkDone(request: PendingRequest): Malformed | null {
    if ((this.#chunk.flags & NBD_CHUNK_FLAG.DONE) === 0) return this.#expectHeader();
    return this.#finish(this.#chunk.cookie, request);
  }

  #finish(cookie: bigint, request: PendingRequest): Malformed | null {
    if (request.error === null && request.into !== null && !covers(request.filled, request.length)) {
      return { malformed: `a read of ${request.length} bytes at ${request.offset} was answered in part` };
    }
    if (request.error === null && request.command === NBD_CMD.BLOCK_STATUS && request.extents.length === 0) {
      return { malformed: 'block status answered without extents' };
    }
    this.#requests.delete(cookie);
    request.done(request.error);
    return this.#expectHeader();
  }
}

/**
 * Chunks of a read may come in any order, but must cover all of it: else old bytes of the buffer would pass as the
 * disk's.
 */
function covers(filled: { start: number; end: number }[], length: number): boolean {
  let end = 0;
  for (const range of filled.toSorted((a, b) => a.start - b.start)) {
    if (range.start !== end) return false;
    end = range.end;
  }
  return end === length;
}

function serverError(request: PendingRequest, error: number, message: string): Error {
  const said = message === '' ? '' : `: ${message.slice(0, 500)}`;
  return ioError(nbdErrnoName(error), `NBD command ${request.command} of ${request.length} bytes at ${request.offset}${said}`);
}

function unfit(chunk: NbdChunkHeader, request: PendingRequest): Malformed {
  return { malformed: `a chunk of type ${chunk.type} with ${chunk.length} bytes in reply to command ${request.command}` };
}

function outside(start: number, end: number, request: PendingRequest): Malformed {
  return { malformed: `bytes ${start} to ${end} of a read of ${request.length} bytes` };
}
