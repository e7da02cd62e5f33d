/**
 * Where guests of other machines find the disks: plain NBD on loopback, else TLS to clients whose certificates are named.
 * A peer's authorisation (for replication) opens nothing here, nor the other way round.
 */
import { isIP } from 'node:net';
import { UnderstudyError } from '../model/errors.ts';
import type { NbdTls } from '../nbd/tls-door.ts';
import { fingerprintOf, parseFingerprint } from '../peer/fingerprint.ts';
import type { HostIdentity } from '../peer/identity.ts';
import { TLS_PARAMETERS } from '../peer/tls-parameters.ts';

export interface NbdOverTcp {
  host: string;
  port: number;
  /** SHA-256 fingerprints of the certificates of clients; with none it is plain NBD, which loopback alone may have. */
  clients: string[];
}

/** Throws NBD_NEEDS_TLS (usage), FINGERPRINT_INVALID. */
export function checkNbdOverTcp({ host, port, clients }: NbdOverTcp): void {
  for (const client of clients) parseFingerprint(client);
  if (clients.length > 0 || isLoopback(host)) return;
  throw new UnderstudyError('usage', 'NBD_NEEDS_TLS',
    `NBD at ${host}:${port} would give every disk to everybody who can reach this host: other addresses than loopback need TLS`,
    'Name the certificates that may connect with --nbd-client FINGERPRINT, or listen on 127.0.0.1.');
}

/** Null for plain NBD. */
export function nbdTls({ clients }: NbdOverTcp, identity: HostIdentity): NbdTls | null {
  if (clients.length === 0) return null;
  const known = new Set(clients.map(parseFingerprint));
  const { ALPNProtocols: _, ...parameters } = TLS_PARAMETERS;
  return {
    options: { ...parameters, ...identity.tlsOptions() },
    refusal: (certificate) => {
      if (certificate === null) return 'this server serves clients with a certificate only, and none was shown';
      const found = fingerprintOf(certificate);
      return known.has(found) ? null : `the client certificate with fingerprint ${found} is not named by --nbd-client of this server`;
    },
  };
}

export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}

/** What clients are told to connect to: an address that means every address is no place to connect to. */
export const reachableAs = (host: string, hostName: string): string => (host === '0.0.0.0' || host === '::' ? hostName : host);
