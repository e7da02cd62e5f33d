/** What Node says of a failed connection, in the words of docs/protocol/peer-transport.md. */
import { UnderstudyError, messageOf } from '../model/errors.ts';

type Stage = 'connect' | 'handshake' | 'open';

const REPEAT = 'Check the network between the hosts; what was interrupted is repeated.';

/** `where` is `host:port`; `stage` is how far the connection got. An UnderstudyError passes unchanged. */
export function linkError(error: unknown, where: string, stage: Stage): UnderstudyError {
  if (error instanceof UnderstudyError) return error;
  const code = codeOf(error);
  const reason = code === '' ? messageOf(error) : code;
  const options = { cause: error };
  if (/^(ERR_SSL|ERR_TLS|EPROTO)/.test(code) || stage === 'handshake') return tlsFailed(where, messageOf(error), error);
  if (/^HPE_|^ERR_HTTP/.test(code)) {
    return new UnderstudyError('peer', 'PEER_REPLY_INVALID', `${where} answers in something else than HTTP (${reason})`,
      'Check that the port is the peer port of understudy on the other host.', options);
  }
  if (stage === 'open') {
    return new UnderstudyError('peer', 'PEER_LINK_LOST', `the connection to ${where} broke (${reason})`, REPEAT, options);
  }
  if (code === 'ECONNREFUSED') {
    return new UnderstudyError('peer', 'PEER_REFUSED', `${where} refuses connections (${reason})`,
      'Check that understudy serve runs on the other host and listens on this port.', options);
  }
  return unreachable(where, reason, error);
}

export function unreachable(where: string, reason: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_UNREACHABLE', `${where} cannot be reached (${reason})`,
    'Check the host name, that the other host is up, and the firewalls between.', { cause });
}

export function tlsFailed(where: string, reason: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_TLS_FAILED', `no TLS 1.3 connection to ${where}: ${reason}`,
    'Check that the port is the peer port of understudy on the other host.', { cause });
}

export function fingerprintMismatch(where: string, expected: string, found: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_FINGERPRINT_MISMATCH',
    `${where} shows fingerprint ${found}, this host expects ${expected}`,
    'Run understudy fingerprint on the other host. If it differs from what is expected, find out why before you pair again.');
}

export function certificateUntrusted(where: string, found: string, reason: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_CERTIFICATE_UNTRUSTED',
    `${where} shows fingerprint ${found}, which the configured authority does not vouch for: ${reason}`,
    'Give the other host a certificate of the authority, or pin its fingerprint.');
}

export function timedOut(where: string, what: string, afterMs: number): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_TIMEOUT', `${where} did not answer ${what} within ${afterMs / 1000} s`, REPEAT);
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}
