/** Two hosts on loopback with real TLS, for the tests of this folder. */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import type { Clock, Logger, Random } from '../../src/model/ports.ts';
import type { PeerEntry } from '../../src/peer/authorisation.ts';
import { entryFor } from '../../src/peer/authorisation.ts';
import { PeerDispatcher } from '../../src/peer/dispatcher.ts';
import { openIdentity } from '../../src/peer/identity.ts';
import type { HostIdentity } from '../../src/peer/identity.ts';
import { PeerServer } from '../../src/peer/server.ts';
import type { PeerServerLimits, Refusal } from '../../src/peer/server.ts';
import { TlsPeerLink } from '../../src/peer/tls-link.ts';

export const realRandom: Random = { uuid: randomUUID, bytes: (count) => randomBytes(count) };

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) => sleep(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }),
};

/** Real time, but a sleep of `ms` ends exactly when the test says so. */
export function clockWithSleep(ms: number): Clock & { end(): void } {
  const ended = Promise.withResolvers<void>();
  return {
    ...realClock,
    sleep: (asked, signal) => (asked === ms ? ended.promise : realClock.sleep(asked, signal)),
    end: () => ended.resolve(),
  };
}

export class LogCapture implements Logger {
  readonly lines: { level: string; fields: object; message: string }[] = [];
  debug(fields: object, message: string): void { this.lines.push({ level: 'debug', fields, message }); }
  info(fields: object, message: string): void { this.lines.push({ level: 'info', fields, message }); }
  warn(fields: object, message: string): void { this.lines.push({ level: 'warn', fields, message }); }
  error(fields: object, message: string): void { this.lines.push({ level: 'error', fields, message }); }
  at(level: string): { fields: object; message: string }[] {
    return this.lines.filter((line) => line.level === level);
  }
}

const folder = mkdtempSync(join(tmpdir(), 'understudy-peer-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Made once per process and name. */
export async function identityOf(name: string): Promise<HostIdentity> {
  return openIdentity(join(folder, name), name, realRandom);
}

export interface Rig extends AsyncDisposable {
  server: PeerServer;
  dispatcher: PeerDispatcher;
  log: LogCapture;
  refusals: Refusal[];
  entries: PeerEntry[];
  primary: HostIdentity;
  replica: HostIdentity;
  port: number;
  /** The primary's link, or one that differs in what is named. */
  link(parts?: Partial<ConstructorParameters<typeof TlsPeerLink>[0]>): TlsPeerLink;
  /** A TLS connection without the product's client. */
  raw(options?: ConnectionOptions): Promise<TLSSocket>;
}

/** The replica serves; the primary is authorised. */
export async function startRig(limits: Partial<PeerServerLimits> = {}, identities?: { replica: HostIdentity }): Promise<Rig> {
  const primary = await identityOf('primary');
  const replica = identities?.replica ?? await identityOf('replica');
  const log = new LogCapture();
  const refusals: Refusal[] = [];
  const entries: PeerEntry[] = [
    { fingerprint: primary.fingerprint, name: 'primary', storageLocation: '/replicas', trustGroup: 'DEFAULT' },
  ];
  const dispatcher = new PeerDispatcher({ log, authenticate: (caller) => entryFor(entries, caller) });
  const server = new PeerServer({
    identity: replica, dispatcher, log, clock: realClock, limits, onRefused: (refusal) => refusals.push(refusal),
  });
  await server.listen('127.0.0.1', 0);
  const links: TlsPeerLink[] = [];
  const { port } = server.address;
  return {
    server, dispatcher, log, refusals, entries, primary, replica, port,
    link(parts = {}) {
      const link = new TlsPeerLink({
        host: '127.0.0.1', port, fingerprint: replica.fingerprint, identity: primary, clock: realClock, ...parts,
      });
      links.push(link);
      return link;
    },
    async raw(options = {}) {
      const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...primary.tlsOptions(), ...options });
      socket.on('error', () => {});
      await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
      return socket;
    },
    async [Symbol.asyncDispose]() {
      for (const link of links) await link.close();
      await server.close();
    },
  };
}

/** Everything the other end sends until it closes or resets. */
export async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  try {
    for await (const part of stream) parts.push(part);
  } catch {
    // A reset ends what can be read as well.
  }
  return Buffer.concat(parts);
}
