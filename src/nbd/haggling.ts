/**
 * Option haggling of fixed newstyle NBD, server side. Pure: bytes of one option in, replies and what happens next out.
 * The bytes come from anybody: every malformed option is answered with an error, and what cannot be answered closes the
 * connection with a reason.
 */
import {
  NBD_BASE_ALLOCATION, NBD_CLIENT_FLAG, NBD_FLAG, NBD_INFO, NBD_OPT, NBD_REP, decodeInfoRequest, decodeMetaRequest,
  encodeExportNameReply, encodeInfo, encodeMetaContext, encodeOptionError, encodeOptionReply, encodeServerEntry, isMalformed,
} from '../disk/nbd/protocol.ts';
import type { NbdExport } from './export.ts';
import type { Session } from './validate-request.ts';

export interface ExportCatalogue {
  find(name: string): NbdExport | undefined;
  /** Names, in the order in which they are listed. */
  list(): string[];
}

/**
 * The client asks to start transmission. The export itself may still refuse: then `refused` is sent, or null means
 * close.
 */
export interface Attach {
  target: NbdExport;
  session: Session;
  accepted: Buffer;
  refused: ((message: string) => Buffer) | null;
}

export type HaggleStep =
  | { kind: 'reply'; replies: Buffer[] }
  | { kind: 'attach'; attach: Attach }
  /** The client may begin with the TLS handshake once the replies are sent. */
  | { kind: 'start-tls'; replies: Buffer[] }
  | { kind: 'close'; replies: Buffer[]; reason: string };

/** The only context there is; ids are the server's choice. */
export const BASE_ALLOCATION_ID = 1;

export class Haggling {
  readonly #catalogue: ExportCatalogue;
  readonly #limits: { options: number; payloadBytes: number };
  #fixedNewstyle = false;
  #noZeroes = false;
  #structuredReplies = false;
  /** The export for which `base:allocation` was selected last; a selection for another export replaces it. */
  #contextOf: string | null = null;
  #options = 0;
  #tls: 'none' | 'required' | 'on';
  /** Why the client gets nothing although it speaks TLS; null when it may. */
  #refusal: string | null = null;

  /** `tls: 'required'`: nothing is answered before STARTTLS; call `secured` after the handshake. */
  constructor(
    catalogue: ExportCatalogue, limits: { options: number; payloadBytes: number }, tls: 'none' | 'required' = 'none',
  ) {
    this.#catalogue = catalogue;
    this.#limits = limits;
    this.#tls = tls;
  }

  /** TLS is on. With a refusal every option but ABORT is answered with it. */
  secured(refusal: string | null): void {
    this.#tls = 'on';
    this.#refusal = refusal;
  }

  /** The four bytes after the greeting. Returns why the connection must be closed, or null. */
  clientFlags(flags: number): string | null {
    const unknown = flags & ~(NBD_CLIENT_FLAG.FIXED_NEWSTYLE | NBD_CLIENT_FLAG.NO_ZEROES);
    if (unknown !== 0) return `unknown client flags 0x${(unknown >>> 0).toString(16)}`;
    this.#fixedNewstyle = (flags & NBD_CLIENT_FLAG.FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & NBD_CLIENT_FLAG.NO_ZEROES) !== 0;
    return null;
  }

  /** `data` is complete and within the bound of `NbdLimits.optionBytes`. */
  option(option: number, data: Buffer): HaggleStep {
    this.#options += 1;
    if (this.#options > this.#limits.options) return close(`more than ${this.#limits.options} options`);
    const guarded = this.#guarded(option, data);
    if (guarded !== null) return guarded;
    if (option === NBD_OPT.EXPORT_NAME) return this.#exportName(data);
    if (!this.#fixedNewstyle) return close(`option ${option} without fixed newstyle`);
    switch (option) {
      case NBD_OPT.ABORT:
        return { kind: 'close', replies: [encodeOptionReply(option, NBD_REP.ACK)], reason: 'the client aborted the handshake' };
      case NBD_OPT.LIST:
        return data.length > 0 ? invalid(option, `${data.length} bytes of data, expected none`) : this.#list();
      case NBD_OPT.INFO:
      case NBD_OPT.GO:
        return this.#info(option, data);
      case NBD_OPT.STRUCTURED_REPLY:
        if (data.length > 0) return invalid(option, `${data.length} bytes of data, expected none`);
        this.#structuredReplies = true;
        return reply(encodeOptionReply(option, NBD_REP.ACK));
      case NBD_OPT.LIST_META_CONTEXT:
      case NBD_OPT.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return reply(encodeOptionError(option, NBD_REP.ERR_UNSUP, `option ${option} is not supported`));
    }
  }

  /** The answer that TLS demands, or null where it demands none. */
  #guarded(option: number, data: Buffer): HaggleStep | null {
    if (option === NBD_OPT.ABORT || (this.#tls === 'required' && !this.#fixedNewstyle)) return null;
    const reason = this.#tls === 'required' ? 'this server speaks TLS only: begin with STARTTLS' : this.#refusal;
    if (option === NBD_OPT.STARTTLS && this.#tls !== 'none') {
      if (this.#tls === 'on') return invalid(option, 'TLS is on already');
      if (data.length > 0) return invalid(option, `${data.length} bytes of data, expected none`);
      return { kind: 'start-tls', replies: [encodeOptionReply(option, NBD_REP.ACK)] };
    }
    if (reason === null) return null;
    // It has no error reply.
    if (option === NBD_OPT.EXPORT_NAME) return close(reason);
    return reply(encodeOptionError(option, this.#tls === 'required' ? NBD_REP.ERR_TLS_REQD : NBD_REP.ERR_POLICY, reason));
  }

  #list(): HaggleStep {
    const replies: Buffer[] = [];
    for (const name of this.#catalogue.list()) {
      const description = this.#catalogue.find(name)?.description ?? '';
      replies.push(encodeOptionReply(NBD_OPT.LIST, NBD_REP.SERVER, encodeServerEntry({ name, description })));
    }
    return { kind: 'reply', replies: [...replies, encodeOptionReply(NBD_OPT.LIST, NBD_REP.ACK)] };
  }

  /** The old way in: it has no error reply, so all that can be done for an unknown name is to close. */
  #exportName(data: Buffer): HaggleStep {
    const name = data.toString('utf8');
    const target = this.#catalogue.find(name);
    if (target === undefined) return close(`no export is named ${quoted(name)}`);
    const session = this.#sessionFor(name);
    const flags = transmissionFlags(target, session);
    const accepted = encodeExportNameReply({ size: target.size, flags, zeroes: !this.#noZeroes });
    return { kind: 'attach', attach: { target, session, accepted, refused: null } };
  }

  #info(option: number, data: Buffer): HaggleStep {
    const request = decodeInfoRequest(data);
    if (isMalformed(request)) return invalid(option, request.malformed);
    const target = this.#catalogue.find(request.name);
    if (target === undefined) return unknownExport(option, request.name);
    const session = this.#sessionFor(request.name);
    const info = (body: Parameters<typeof encodeInfo>[0]) => encodeOptionReply(option, NBD_REP.INFO, encodeInfo(body));
    const replies = [info({ info: 'export', size: target.size, flags: transmissionFlags(target, session) })];
    if (request.infos.includes(NBD_INFO.NAME)) replies.push(info({ info: 'name', text: target.name }));
    if (request.infos.includes(NBD_INFO.DESCRIPTION)) replies.push(info({ info: 'description', text: target.description }));
    const [minimum, preferred] = [target.minimumBlockSize, target.preferredBlockSize];
    replies.push(info({ info: 'block-size', minimum, preferred, maximum: this.#limits.payloadBytes }));
    replies.push(encodeOptionReply(option, NBD_REP.ACK));
    if (option === NBD_OPT.INFO) return { kind: 'reply', replies };
    const refused = (message: string) => encodeOptionError(option, NBD_REP.ERR_POLICY, message);
    return { kind: 'attach', attach: { target, session, accepted: Buffer.concat(replies), refused } };
  }

  #metaContext(option: number, data: Buffer): HaggleStep {
    if (!this.#structuredReplies) return invalid(option, 'structured replies must be negotiated first');
    const request = decodeMetaRequest(data);
    if (isMalformed(request)) return invalid(option, request.malformed);
    const isSet = option === NBD_OPT.SET_META_CONTEXT;
    if (isSet) this.#contextOf = null; // Even a failed selection ends the one before it.
    if (this.#catalogue.find(request.name) === undefined) return unknownExport(option, request.name);
    const wanted = isSet
      ? request.queries.includes(NBD_BASE_ALLOCATION)
      : request.queries.length === 0 || request.queries.some((query) => query === NBD_BASE_ALLOCATION || query === 'base:');
    if (isSet && wanted) this.#contextOf = request.name;
    const context = encodeMetaContext({ id: isSet ? BASE_ALLOCATION_ID : 0, name: NBD_BASE_ALLOCATION });
    const replies = wanted ? [encodeOptionReply(option, NBD_REP.META_CONTEXT, context)] : [];
    return { kind: 'reply', replies: [...replies, encodeOptionReply(option, NBD_REP.ACK)] };
  }

  #sessionFor(name: string): Session {
    return { structuredReplies: this.#structuredReplies, blockStatus: this.#contextOf === name };
  }
}

function transmissionFlags(target: NbdExport, session: Session): number {
  let flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA;
  if (target.readOnly) flags |= NBD_FLAG.READ_ONLY;
  else flags |= NBD_FLAG.SEND_WRITE_ZEROES | (target.canTrim ? NBD_FLAG.SEND_TRIM : 0);
  if (session.structuredReplies) flags |= NBD_FLAG.SEND_DF;
  if (target.multiConnection) flags |= NBD_FLAG.CAN_MULTI_CONN;
  return flags;
}

function reply(bytes: Buffer): HaggleStep {
  return { kind: 'reply', replies: [bytes] };
}

function invalid(option: number, message: string): HaggleStep {
  return reply(encodeOptionError(option, NBD_REP.ERR_INVALID, message));
}

function unknownExport(option: number, name: string): HaggleStep {
  return reply(encodeOptionError(option, NBD_REP.ERR_UNKNOWN, `no export is named ${quoted(name)}`));
}

function close(reason: string): HaggleStep {
  return { kind: 'close', replies: [], reason };
}

function quoted(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}
