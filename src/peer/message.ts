import type { z } from 'zod';

/**
 * One kind of question a host may ask another. `params` and `result` are zod schemas of the JSON part; a `z.codec` may
 * stand where the value is no JSON (a bigint position). The payload is opaque bytes. Every message may be repeated by
 * its caller. Byte tables: docs/protocol/peer-transport.md.
 */
export interface PeerMessage<P, R> {
  /** Lower-case words joined by dashes or dots, at most 64 characters: `log-send`, `resync.compare`. */
  readonly name: string;
  readonly params: z.ZodType<P>;
  readonly result: z.ZodType<R>;
  /** Most payload bytes the question may carry; 0 when it carries none. */
  readonly payloadBytesMax: number;
  /** Most payload bytes the reply may carry; 0 when it carries none. */
  readonly replyBytesMax: number;
}

/** A request for raw bytes both ways after its parameters were accepted. */
export interface PeerStreamMessage<P> {
  readonly name: string;
  readonly params: z.ZodType<P>;
}

/** The host at the other end of a connection, as the TLS handshake proved it. */
export interface PeerCaller {
  /** SHA-256 of its certificate, `AB:CD:…` (fingerprint.ts). */
  readonly fingerprint: string;
  /** `address:port` of its end of the connection; for logs. */
  readonly address: string;
  /** The name its authorisation entry gives it. */
  readonly name?: string;
  /** True when its certificate was issued by the certificate authority of this host's configuration. */
  readonly verifiedByCa?: boolean;
}

export interface PeerReply<R> {
  readonly result: R;
  readonly payload?: Uint8Array;
}

/** A JSON part, either way. */
export const JSON_BYTES_MAX = 256 * 1024;
/** No message may declare more; both ends hold a whole payload in memory. */
export const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;
/** The parameters of a stream travel in one HTTP header. */
export const STREAM_PARAMS_BYTES_MAX = 4 * 1024;
/** The path names it: `/peer/v1/<message>`. */
export const PROTOCOL_VERSION = 1;

const NAME = /^[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*$/;

export function isMessageName(name: string): boolean {
  return name.length <= 64 && NAME.test(name);
}
