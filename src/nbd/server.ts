/** The NBD server: listeners, the connections they accept, and the bounds all of them share. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { messageOf } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import { Connection } from './connection.ts';
import type { NbdExport } from './export.ts';
import { Haggling } from './haggling.ts';
import { LARGE_PAYLOAD_BYTES } from './inbox.ts';
import { NBD_LIMITS, type NbdLimits } from './limits.ts';
import { SlabPool } from './slab-pool.ts';
import { startTls, type NbdTls } from './tls-door.ts';
import { listenError, listenUnix } from './unix-socket.ts';

export type NbdAddress = { kind: 'unix'; path: string } | { kind: 'tcp'; host: string; port: number; tls?: boolean };

export interface NbdServerOptions {
  /** Looked up for each handshake, so exports may come and go. Undefined: there is no such export. */
  exports: (name: string) => NbdExport | undefined;
  list: () => string[];
  clock: Clock;
  log: Logger;
  limits?: Partial<NbdLimits>;
}

const WATCH_MS = 1000;
const DRAIN_MS_DEFAULT = 5000;

/** The URI a client opens; the name and the path are escaped. */
export function nbdUri(address: NbdAddress, exportName: string): string {
  const name = encodeURIComponent(exportName);
  if (address.kind === 'unix') return `nbd+unix:///${name}?socket=${encodeURIComponent(address.path).replaceAll('%2F', '/')}`;
  return `nbd${address.tls === true ? 's' : ''}://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}/${name}`;
}

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #limits: NbdLimits;
  readonly #pool: SlabPool;
  readonly #servers = new Map<Server, NbdAddress>();
  readonly #connections = new Set<Connection>();
  /** TCP clients that do not speak TLS yet. */
  readonly #atTheDoor = new Set<Socket>();
  readonly #stopped = new AbortController();
  #nextClient = 1;
  #isWatching = false;

  constructor(options: NbdServerOptions) {
    this.#options = options;
    const limits = { ...NBD_LIMITS, ...options.limits };
    assert(limits.optionBytes <= LARGE_PAYLOAD_BYTES, 'an option must fit into the receive buffer');
    assert(limits.memoryBytes >= 4 * limits.payloadBytes || limits.memoryBytes >= NBD_LIMITS.memoryBytes,
      'the memory must hold several of the largest requests');
    this.#limits = limits;
    this.#pool = new SlabPool(limits.memoryBytes);
  }

  /** Mode 0600; see unix-socket.ts for what is done with a file at the path. Throws UnderstudyErrors. */
  async listenUnix(path: string): Promise<void> {
    const server = this.#newServer();
    await listenUnix(server, path);
    this.#listening(server, { kind: 'unix', path });
  }

  /**
   * Port 0 takes a free one. Without `tls` there is neither secrecy nor authentication: for loopback only. With it nothing is
   * served before TLS, and to nobody whom it refuses.
   */
  async listenTcp(host: string, port: number, tls: NbdTls | null = null): Promise<void> {
    const server = this.#newServer(tls);
    const listening = once(server, 'listening');
    server.listen(port, host);
    await listening.catch((error: unknown) => {
      throw listenError(`${host}:${port}`, error);
    });
    this.#listening(server, { kind: 'tcp', host, port: (server.address() as AddressInfo).port, tls: tls !== null });
  }

  /** Where clients may connect, in the order of the calls to `listen…`. */
  address(): NbdAddress[] {
    return [...this.#servers.values()];
  }

  /** Bytes of payload and reply memory in use now. */
  get memoryBytes(): number {
    return this.#pool.usedBytes;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Ends the connections of one export, as `close` does for all. New clients of it are the business of `exports`. */
  async disconnect(exportName: string, options: { drainMs?: number } = {}): Promise<{ unfinished: number }> {
    const concerned = [...this.#connections].filter((connection) => connection.exportName === exportName);
    return this.#drain(concerned, 'the export is being closed', options.drainMs ?? DRAIN_MS_DEFAULT);
  }

  /**
   * Accepts no more, starts no more requests, answers those under way, then closes. After `drainMs` what is left is
   * cut; `unfinished` counts the operations of exports that have not even ended then. The exports' disks must not be
   * closed while there are any.
   */
  async close(options: { drainMs?: number } = {}): Promise<{ unfinished: number }> {
    const closed = [...this.#servers.keys()].map((server) => once(server.close(), 'close'));
    this.#servers.clear();
    for (const socket of this.#atTheDoor) socket.destroy();
    const result = await this.#drain([...this.#connections], 'the server is closing', options.drainMs ?? DRAIN_MS_DEFAULT);
    this.#stopped.abort(new Error('the NBD server is closed'));
    await Promise.all(closed);
    return result;
  }

  async #drain(connections: Connection[], reason: string, drainMs: number): Promise<{ unfinished: number }> {
    for (const connection of connections) connection.end(reason);
    const inTime = new AbortController();
    const drained = Promise.all(connections.map((connection) => connection.done));
    const late = this.#options.clock.sleep(drainMs, inTime.signal).catch(() => undefined);
    await Promise.race([drained, late]);
    inTime.abort();
    for (const connection of connections) connection.cut(`${reason}, and ${drainMs} ms were not enough`);
    return { unfinished: connections.reduce((sum, connection) => sum + connection.executing, 0) };
  }

  #newServer(tls: NbdTls | null = null): Server {
    // Paused, because connections read into their own memory (read-into.ts); half-open, because replies follow the
    // client's last byte.
    const options = { pauseOnConnect: true, allowHalfOpen: true, noDelay: true, keepAlive: true };
    return createServer(options, (socket) => this.#accept(socket, tls));
  }

  #listening(server: Server, address: NbdAddress): void {
    this.#servers.set(server, address);
    // Accept fails when the process runs out of files: clients in the queue are tried again with the next one.
    server.on('error', ({ message }) => {
      this.#options.log.error({ address, error: message }, 'the NBD server cannot accept a client');
    });
  }

  #accept(socket: Socket, tls: NbdTls | null): void {
    const { log, clock } = this.#options;
    const connections = this.#connections.size + this.#atTheDoor.size;
    if (connections >= this.#limits.connections) {
      log.warn({ connections }, 'an NBD client was turned away: too many connections');
      socket.destroy();
    } else if (tls === null) {
      this.#connect(socket, clock.monotonic(), null);
    } else {
      void this.#secure(socket, tls);
    }
  }

  #connect(socket: Socket, acceptedAt: number, secured: Haggling | null): void {
    const { log, clock, exports, list } = this.#options;
    const ports = { catalogue: { find: exports, list }, pool: this.#pool, limits: this.#limits, clock, log };
    const connection = new Connection(socket, this.#nextClient, acceptedAt, ports, secured);
    this.#nextClient += 1;
    this.#connections.add(connection);
    void connection.done.then(() => this.#connections.delete(connection));
    if (!this.#isWatching) void this.#watch();
  }

  /** Never rejects: what a client does wrong here is one line in the log. */
  async #secure(socket: Socket, tls: NbdTls): Promise<void> {
    const { log, clock, exports, list } = this.#options;
    const acceptedAt = clock.monotonic();
    const address = `${socket.remoteAddress}:${socket.remotePort}`;
    const { handshakeMs, optionBytes } = this.#limits;
    const over = new AbortController();
    this.#atTheDoor.add(socket);
    // Whatever breaks it is told by the reads; this keeps a late error from being thrown at the process.
    socket.on('error', () => undefined);
    clock.sleep(handshakeMs, over.signal).then(() => socket.destroy(new Error(`no TLS within ${handshakeMs} ms`)), () => undefined);
    try {
      const haggling = new Haggling({ find: exports, list }, this.#limits, 'required');
      const secured = await startTls(socket, tls, haggling, optionBytes);
      this.#connect(secured, acceptedAt, haggling);
    } catch (error) {
      log.warn({ client: { address }, reason: messageOf(error) }, 'an NBD client was not let in');
      socket.destroySoon();
    } finally {
      over.abort();
      this.#atTheDoor.delete(socket);
    }
  }

  /** Looks at the time limits while there are connections. */
  async #watch(): Promise<void> {
    const { clock } = this.#options;
    this.#isWatching = true;
    while (this.#connections.size > 0 && !this.#stopped.signal.aborted) {
      await clock.sleep(WATCH_MS, this.#stopped.signal).catch(() => undefined);
      const now = clock.monotonic();
      for (const connection of this.#connections) connection.watch(now);
    }
    this.#isWatching = false;
  }
}
