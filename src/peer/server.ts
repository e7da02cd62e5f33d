import { createServer } from 'node:https';
import type { Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import { Budget } from './budget.ts';
import type { PeerDispatcher } from './dispatcher.ts';
import { answer, openStream } from './exchange.ts';
import type { Connection, ExchangeParts } from './exchange.ts';
import { fingerprintOf } from './fingerprint.ts';
import type { HostIdentity } from './identity.ts';
import type { PeerCaller } from './message.ts';
import { notAuthorised, protocolViolated, serverBusy } from './peer-errors.ts';
import { refuse } from './refuse.ts';
import { RefusalLog } from './refusal-log.ts';
import { HEADER_BYTES_MAX, TCP_KEEP_ALIVE_MS, TLS_PARAMETERS } from './tls-parameters.ts';

export interface PeerServerLimits {
  connections: number;
  connectionsPerPeer: number;
  /** Of one address, not yet proven to be a peer. */
  strangersPerAddress: number;
  handshakeMs: number;
  /** For the head of a request. */
  headersMs: number;
  /** For a whole request: 16 MiB at 1 Mbit/s take 134 s. */
  requestMs: number;
  /** A body or reply of which no byte moves for so long is cut. */
  idleMs: number;
  /** Longer than any client keeps an idle connection, so that the client is the one who closes. */
  keepAliveMs: number;
  streamIdleMs: number;
  /** How long a refused connection is drained, so that the refusal is read and not lost in a reset. */
  lingerMs: number;
  /** Memory for bodies and declared replies of one peer, and of all. */
  bytesPerPeer: number;
  bytes: number;
}

const MIB = 1024 * 1024;
export const PEER_SERVER_LIMITS: PeerServerLimits = {
  connections: 512, connectionsPerPeer: 32, strangersPerAddress: 16,
  handshakeMs: 10_000, headersMs: 10_000, requestMs: 600_000, idleMs: 30_000, keepAliveMs: 65_000,
  streamIdleMs: 300_000, lingerMs: 2_000,
  bytesPerPeer: 64 * MIB, bytes: 128 * MIB,
};

export interface Refusal {
  /** Null when the other end showed no certificate or was no TLS client. */
  fingerprint: string | null;
  address: string;
  reason: string;
  /** How often this address was refused by now. */
  count: number;
}

export interface PeerServerParts {
  identity: HostIdentity;
  dispatcher: PeerDispatcher;
  log: Logger;
  clock: Clock;
  limits?: Partial<PeerServerLimits>;
  /** Told for the 1st, 2nd, 4th, 8th … refusal of an address. */
  onRefused?: (refusal: Refusal) => void;
}

type Peer = { connections: Set<TLSSocket>; memory: Budget };

/** The one port other hosts talk to. Who is not authorised is refused before a byte of HTTP is parsed. */
export class PeerServer {
  readonly #parts: PeerServerParts;
  readonly #limits: PeerServerLimits;
  readonly #server: Server;
  readonly #exchange: ExchangeParts;
  readonly #open = new Set<Socket>();
  /** Ports of connections that are not proven yet, by address. */
  readonly #strangers = new Map<string, Set<number>>();
  readonly #peers = new Map<string, Peer>();
  readonly #connections = new WeakMap<object, Connection>();
  readonly #refusals = new RefusalLog();

  constructor(parts: PeerServerParts) {
    this.#parts = parts;
    this.#limits = { ...PEER_SERVER_LIMITS, ...parts.limits };
    const { limits, clock } = { limits: this.#limits, clock: parts.clock };
    this.#exchange = { dispatcher: parts.dispatcher, log: parts.log, clock, limits, memory: new Budget(limits.bytes) };
    this.#server = createServer({
      ...TLS_PARAMETERS, ...parts.identity.tlsOptions(),
      honorCipherOrder: true, handshakeTimeout: limits.handshakeMs, allowHalfOpen: true,
      requestCert: true,
      // Decided by fingerprint in #admit; Node alone would only believe authorities.
      rejectUnauthorized: false,
      keepAlive: true, keepAliveInitialDelay: TCP_KEEP_ALIVE_MS, noDelay: true,
      maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: limits.headersMs, requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.keepAliveMs, connectionsCheckingInterval: Math.min(5_000, limits.headersMs),
    });
    this.#server.maxConnections = limits.connections;
    this.#server.maxHeadersCount = 32;
    this.#listenToSockets();
  }

  /** Resolves when it listens. Port 0 takes any free one; see `address`. */
  async listen(host: string, port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    }).catch((error: unknown) => {
      throw peerPortUnusable({ host, port }, error);
    });
    this.#server.on('error', (error) => this.#parts.log.error({ error }, 'the peer port failed'));
  }

  get address(): AddressInfo {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the peer server does not listen');
    return address;
  }

  /** Cuts all connections and streams of a peer: for when its entry was removed. */
  disconnect(fingerprint: string): void {
    for (const socket of this.#peers.get(fingerprint)?.connections ?? []) socket.destroy();
  }

  /** Cuts every connection; handlers in flight see their signal abort. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => { this.#server.close(() => resolve()); });
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  #listenToSockets(): void {
    const server = this.#server;
    server.on('connection', (socket: Socket) => this.#meet(socket));
    server.on('tlsClientError', (error, socket) => {
      this.#tellRefusal(null, addressOf(socket), `no TLS 1.3 handshake: ${error.message}`);
      socket.destroy();
    });
    // Node's own listener starts to parse HTTP. It must not run before the caller is known, so it is taken off and
    // called by hand.
    const [parseHttp] = server.listeners('secureConnection') as ((socket: TLSSocket) => void)[];
    server.removeAllListeners('secureConnection');
    server.on('secureConnection', (socket) => {
      socket.on('error', ignoreLaterErrors);
      if (this.#admit(socket)) parseHttp!.call(server, socket);
    });
    server.on('request', (request, response) => {
      answer(this.#exchange, this.#connections.get(request.socket), request, response)
        .catch((error: unknown) => this.#broken(request.socket, error));
    });
    server.on('upgrade', (request, socket, head) => {
      openStream(this.#exchange, this.#connections.get(socket), request, socket as TLSSocket, head)
        .catch((error: unknown) => this.#broken(socket as Socket, error));
    });
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
      const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
      refuse(socket, status, protocolViolated(`this is not HTTP/1.1 as agreed (${error.code ?? error.message})`), this.#exchange);
    });
  }

  /** Before TLS: bounds what strangers can hold. */
  #meet(socket: Socket): void {
    const [address, port] = [socket.remoteAddress ?? '', socket.remotePort ?? 0];
    const strangers = this.#strangers.get(address) ?? new Set();
    socket.on('error', ignoreLaterErrors);
    if (strangers.size >= this.#limits.strangersPerAddress) {
      this.#tellRefusal(null, addressOf(socket), `${strangers.size} connections without a known certificate are open`);
      socket.destroy();
      return;
    }
    this.#strangers.set(address, strangers.add(port));
    this.#open.add(socket);
    socket.once('close', () => {
      this.#open.delete(socket);
      this.#forgetStranger(address, port);
    });
  }

  #forgetStranger(address: string, port: number): void {
    const strangers = this.#strangers.get(address);
    strangers?.delete(port);
    if (strangers?.size === 0) this.#strangers.delete(address);
  }

  /** After TLS, before HTTP: is this a paired host, and within its share of connections? */
  #admit(socket: TLSSocket): boolean {
    const certificate = socket.isSessionReused() ? undefined : socket.getPeerX509Certificate();
    if (certificate === undefined) {
      this.#turnAway(socket, null, 'it shows no certificate');
      return false;
    }
    const stranger: PeerCaller = {
      fingerprint: fingerprintOf(certificate.raw), address: addressOf(socket),
      ...(this.#parts.identity.usesAuthority ? { verifiedByCa: socket.authorized } : {}),
    };
    const caller = this.#parts.dispatcher.authorise(stranger);
    if (caller === null) {
      this.#turnAway(socket, stranger.fingerprint, 'its fingerprint is not authorised');
      return false;
    }
    const peer = this.#peers.get(caller.fingerprint) ?? { connections: new Set(), memory: new Budget(this.#limits.bytesPerPeer) };
    if (peer.connections.size >= this.#limits.connectionsPerPeer) {
      refuse(socket, 503, serverBusy(peer.connections.size), this.#exchange);
      return false;
    }
    this.#peers.set(caller.fingerprint, peer);
    this.#forgetStranger(socket.remoteAddress ?? '', socket.remotePort ?? 0);
    peer.connections.add(socket);
    this.#connections.set(socket, { caller: stranger, memory: peer.memory, busy: false });
    socket.once('close', () => {
      peer.connections.delete(socket);
      if (peer.connections.size === 0) this.#peers.delete(caller.fingerprint);
    });
    return true;
  }

  #turnAway(socket: TLSSocket, fingerprint: string | null, reason: string): void {
    this.#tellRefusal(fingerprint, addressOf(socket), reason);
    refuse(socket, 403, notAuthorised(fingerprint), this.#exchange);
  }

  #tellRefusal(fingerprint: string | null, address: string, reason: string): void {
    const count = this.#refusals.count(address.replace(/:\d+$/, ''));
    if (count === null) return;
    this.#parts.log.warn({ fingerprint, address, reason, count }, 'peer connection refused');
    this.#parts.onRefused?.({ fingerprint, address, reason, count });
  }

  #broken(socket: Socket, error: unknown): void {
    if (!socket.destroyed) this.#parts.log.error({ error, address: addressOf(socket) }, 'peer connection failed');
    socket.destroy();
  }
}

function addressOf(socket: Socket): string {
  return `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`;
}

export const peerPortUnusable = ({ host, port }: { host: string; port: number }, cause: unknown): UnderstudyError =>
  new UnderstudyError('io', 'PEER_PORT_UNUSABLE', `cannot listen on ${host}:${port} (${messageOf(cause)})`,
    'Choose another --peer HOST:PORT, or stop the program that holds the port.', { cause });

/**
 * Whoever uses the socket learns of an error from its reads and writes; without a listener Node would end the process.
 */
function ignoreLaterErrors(): void {}
