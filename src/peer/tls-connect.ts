import { isIP } from 'node:net';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import type { Clock } from '../model/ports.ts';
import { fingerprintOf } from './fingerprint.ts';
import type { HostIdentity } from './identity.ts';
import { certificateUntrusted, fingerprintMismatch, linkError, tlsFailed, unreachable } from './link-errors.ts';
import { TCP_KEEP_ALIVE_MS, TLS_PARAMETERS } from './tls-parameters.ts';

export interface PinnedAddress {
  host: string;
  port: number;
  /** The server's, or `any`: then its certificate must be the authority's and name the host. */
  fingerprint: string;
}

/**
 * A TLS 1.3 connection whose other end proved to be the pinned host; nothing was written to it yet. Rejects with the
 * errors of link-errors.ts, or with the signal's reason.
 */
export function connectPinned(
  to: PinnedAddress, identity: HostIdentity, limits: { clock: Clock; connectMs: number; signal: AbortSignal },
): Promise<TLSSocket> {
  const where = `${to.host}:${to.port}`;
  return new Promise((resolve, reject) => {
    limits.signal.throwIfAborted();
    let stage: 'connect' | 'handshake' = 'connect';
    const over = new AbortController();
    const options: ConnectionOptions & { allowHalfOpen: boolean } = {
      ...TLS_PARAMETERS, ...identity.tlsOptions(), host: to.host, port: to.port,
      // Checked below, before anything is written. Node would only know authorities.
      rejectUnauthorized: false,
      // TLS forbids addresses as server names.
      ...(isIP(to.host) === 0 ? { servername: to.host } : {}),
      // One direction of a stream may end before the other.
      allowHalfOpen: true,
    };
    const socket = connect(options);
    const settle = (error: unknown) => {
      over.abort();
      limits.signal.removeEventListener('abort', abort);
      if (error === null) return;
      socket.destroy();
      reject(error as Error);
    };
    const abort = () => settle(limits.signal.reason);
    limits.signal.addEventListener('abort', abort, { once: true });
    limits.clock.sleep(limits.connectMs, over.signal).then(() => {
      const waited = `no answer within ${limits.connectMs / 1000} s`;
      settle(stage === 'connect' ? unreachable(where, waited) : tlsFailed(where, waited));
    }, () => {});
    socket.once('connect', () => { stage = 'handshake'; });
    // Stays for the life of the socket: later errors are told by reads and writes, never thrown at the process.
    socket.on('error', (error) => settle(linkError(error, where, stage)));
    socket.once('close', () => settle(linkError(new Error('closed by the other end'), where, stage)));
    socket.once('secureConnect', () => {
      const refusal = pinRefusal(socket, to.fingerprint, where);
      settle(refusal);
      if (refusal !== null) return;
      socket.setNoDelay(true);
      socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
      resolve(socket);
    });
  });
}

function pinRefusal(socket: TLSSocket, expected: string, where: string): Error | null {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined || socket.isSessionReused()) return tlsFailed(where, 'it shows no certificate');
  const found = fingerprintOf(certificate.raw);
  if (expected !== 'any') return found === expected ? null : fingerprintMismatch(where, expected, found);
  return socket.authorized ? null : certificateUntrusted(where, found, String(socket.authorizationError));
}
