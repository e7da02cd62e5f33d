/**
 * STARTTLS, forced: what comes between accepting a TCP client and its `Connection`.
 *
 * Invariants
 * - Before TLS a client can start TLS or leave, and learns nothing about exports (`Haggling` in mode `required`).
 * - No byte that came before the acknowledgement of STARTTLS counts after it; else somebody on the line could put options into the
 *   client's session.
 * - The certificate is looked at when the handshake is over. A client that is not let in is told why by every option, and
 *   nothing else.
 */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { TLSSocket, createSecureContext, type SecureContextOptions } from 'node:tls';
import {
  NBD_CLIENT_FLAGS_BYTES, NBD_HANDSHAKE_FLAG, NBD_OPTION_BYTES, decodeOptionHeader, encodeGreeting, isMalformed,
} from '../disk/nbd/protocol.ts';
import type { Haggling } from './haggling.ts';

export interface NbdTls {
  /** The server's certificate and key, and protocol settings. */
  options: SecureContextOptions;
  /** Null lets a client in, else a sentence why not. `certificate` is DER; null when the client showed none. */
  refusal: (certificate: Uint8Array | null) => string | null;
}

/** Resolves when the client speaks TLS; rejects with the reason to close its socket. `accepted` is paused. */
export async function startTls(accepted: Socket, tls: NbdTls, haggling: Haggling, optionBytes: number): Promise<TLSSocket> {
  accepted.write(encodeGreeting(NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE | NBD_HANDSHAKE_FLAG.NO_ZEROES));
  const arriving = new Arriving(accepted);
  const fault = haggling.clientFlags((await arriving.take(NBD_CLIENT_FLAGS_BYTES)).readUInt32BE(0));
  if (fault !== null) throw new Error(fault);
  for (let secure = false; !secure;) secure = await answerOption(arriving, haggling, optionBytes);
  if (arriving.waiting > 0) throw new Error('bytes came between STARTTLS and its answer');
  const secured = new TLSSocket(accepted, {
    isServer: true, secureContext: createSecureContext(tls.options), requestCert: true,
    // Decided by `refusal`; Node alone would only believe authorities.
    rejectUnauthorized: false,
  });
  // As for `accepted`: a late error is told by 'close'.
  secured.on('error', () => undefined);
  await handshake(secured);
  const certificate = secured.getPeerX509Certificate()?.raw ?? null;
  haggling.secured(secured.isSessionReused() ? 'a resumed TLS session proves nothing' : tls.refusal(certificate));
  return secured;
}

/** True when it was STARTTLS and has been acknowledged. */
async function answerOption(arriving: Arriving, haggling: Haggling, optionBytes: number): Promise<boolean> {
  const header = decodeOptionHeader(await arriving.take(NBD_OPTION_BYTES));
  if (isMalformed(header)) throw new Error(header.malformed);
  const { option, length } = header;
  if (length > optionBytes) throw new Error(`option ${option} with ${length} bytes of data, at most ${optionBytes}`);
  const step = haggling.option(option, length === 0 ? Buffer.alloc(0) : await arriving.take(length));
  if (step.kind === 'attach') throw new Error('an export was attached before TLS');
  for (const bytes of step.replies) arriving.socket.write(bytes);
  if (step.kind === 'close') throw new Error(step.reason);
  return step.kind === 'start-tls';
}

/** Bytes of a paused socket, so many at a time. */
class Arriving {
  readonly socket: Socket;
  #held = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /** Bytes that have come and were not taken. */
  get waiting(): number {
    return this.#held.length + this.socket.readableLength;
  }

  async take(count: number): Promise<Buffer> {
    while (this.#held.length < count) this.#held = Buffer.concat([this.#held, await this.#more()]);
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }

  /** All there is, never a part: with bytes left, 'readable' would come again and again, and nothing else would run. */
  async #more(): Promise<Buffer> {
    for (;;) {
      const bytes = this.socket.read() as Buffer | null;
      if (bytes !== null) return bytes;
      if (this.socket.readableEnded || this.socket.destroyed) throw new Error('the client hung up before TLS');
      await next(this.socket, ['readable', 'end', 'close']);
    }
  }
}

function handshake(socket: TLSSocket): Promise<void> {
  return next(socket, ['secure', 'end', 'close']).then(() => {
    if (socket.destroyed || socket.readableEnded) throw new Error('the client hung up during the TLS handshake');
  });
}

/** Resolves at the first of the events; rejects with the socket's error. */
async function next(socket: Socket, events: string[]): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  try {
    await Promise.race(events.map((event) => once(socket, event, { signal })));
  } finally {
    // The ones that lost end with it.
    over.abort();
  }
}
