/** The NBD server: listeners, the connections they accept, and the bounds all of them share. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Clock, Logger } from '../model/ports.ts';
import { Connection } from './connection.ts';
import type { NbdExport } from './export.ts';
import { LARGE_PAYLOAD_BYTES } from './inbox.ts';
import { NBD_LIMITS, type NbdLimits } from './limits.ts';
import { SlabPool } from './slab-pool.ts';
import { listenError, listenUnix } from './unix-socket.ts';

export type NbdAddress = { kind: 'unix'; path: string } | { kind: 'tcp'; host: string; port: number };

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
  return `nbd://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}/${name}`;
}

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #limits: NbdLimits;
  readonly #pool: SlabPool;
  readonly #servers = new Map<Server, NbdAddress>();
  readonly #connections = new Set<Connection>();
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

  /** Port 0 takes a free one. NBD has no authentication here: listen on loopback or a private network only. */
  async listenTcp(host: string, port: number): Promise<void> {
    const server = this.#newServer();
    const listening = once(server, 'listening');
    server.listen(port, host);
    await listening.catch((error: unknown) => {
      throw listenError(`${host}:${port}`, error);
    });
    this.#listening(server, { kind: 'tcp', host, port: (server.address() as AddressInfo).port });
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

  #newServer(): Server {
    // Paused, because connections read into their own memory (read-into.ts); half-open, because replies follow the
    // client's last byte.
    const options = { pauseOnConnect: true, allowHalfOpen: true, noDelay: true, keepAlive: true };
    return createServer(options, (socket) => this.#accept(socket));
  }

  #listening(server: Server, address: NbdAddress): void {
    this.#servers.set(server, address);
    // Accept fails when the process runs out of files: clients in the queue are tried again with the next one.
    server.on('error', ({ message }) => {
      this.#options.log.error({ address, error: message }, 'the NBD server cannot accept a client');
    });
  }

  #accept(socket: Socket): void {
    const { log, clock, exports, list } = this.#options;
    if (this.#connections.size >= this.#limits.connections) {
      log.warn({ connections: this.#connections.size }, 'an NBD client was turned away: too many connections');
      socket.destroy();
      return;
    }
    const ports = { catalogue: { find: exports, list }, pool: this.#pool, limits: this.#limits, log };
    const connection = new Connection(socket, this.#nextClient, clock.monotonic(), ports);
    this.#nextClient += 1;
    this.#connections.add(connection);
    void connection.done.then(() => this.#connections.delete(connection));
    if (!this.#isWatching) void this.#watch();
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
