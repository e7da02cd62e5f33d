/**
 * Whether a request may come in at all, before anybody asks who sent it. Pure.
 *
 * A browser sends its cookies to us whatever page made it ask. So a request that changes something must come from our own page
 * (`Origin`), and the name it was sent to must be one of ours (`Host`): else another site could point its own name at this
 * address and read the answers (DNS rebinding).
 */
import type { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { UnderstudyError } from '../../model/errors.ts';

export function isLoopback(host: string): boolean {
  const name = bareHost(host);
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Of `HOST:PORT`, `[V6]:PORT` or `HOST`: the host, lower case, without brackets. */
export function bareHost(hostPort: string): string {
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(hostPort.trim());
  return (match?.[1] ?? match?.[2] ?? hostPort).toLowerCase().replace(/\.$/, '');
}

/** With a certificate, the names it is made out to; else loopback, at any port (it may be forwarded through ssh). */
export function isOwnName(host: string, certificate: X509Certificate | null): boolean {
  const name = bareHost(host);
  if (name === '') return false;
  if (isLoopback(name)) return true;
  if (certificate === null) return false;
  return (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined;
}

export interface RequestFacts {
  method: string;
  host: string | undefined;
  origin: string | undefined;
  /** `Sec-Fetch-Site`: browsers of today always send it. */
  fetchSite: string | undefined;
  secure: boolean;
}

/** Throws FOREIGN_HOST or FOREIGN_ORIGIN (state). */
export function checkRequest({ method, host, origin, fetchSite, secure }: RequestFacts, certificate: X509Certificate | null): void {
  if (host === undefined || !isOwnName(host, certificate)) {
    throw new UnderstudyError('state', 'FOREIGN_HOST', `this server is not called ${shown(host)}`,
      certificate === null ? 'Use 127.0.0.1 or localhost, or forward the port with ssh -L.' : 'Use a name that its certificate has.');
  }
  const own = `${secure ? 'https' : 'http'}://${host.toLowerCase()}`;
  const foreign = origin === undefined
    ? fetchSite !== undefined && fetchSite !== 'same-origin' && fetchSite !== 'none' && method !== 'GET'
    : origin.toLowerCase() !== own;
  if (!foreign) return;
  throw new UnderstudyError('state', 'FOREIGN_ORIGIN', `a page of ${shown(origin ?? fetchSite)} may not use this server, only its own page (${own})`,
    'Open the console itself: understudy console');
}

const shown = (text: string | undefined): string => (text === undefined ? 'nothing' : `'${text.slice(0, 100)}'`);
