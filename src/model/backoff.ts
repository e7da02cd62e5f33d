/**
 * What follows a failed cycle: a retry after a growing delay when the cause may pass by itself (network, low disk, low
 * memory), or none, when a person must act (Hyper-V's replication engine: 1, 2, 4, 8, 10, then every 30 minutes).
 */

import { errnoOf, UnderstudyError } from './errors.ts';
import { RETRY_DELAYS_MS } from './limits.ts';

/**
 * Milliseconds before attempt `failures + 1`, where `failures` counts failures in a row, from 1. The first retry comes
 * after one cycle when that is shorter than a minute: with a frequency of 30 s, waiting a whole minute for a dropped
 * connection would itself miss a cycle. Later ones keep the schedule: a cause that outlives a retry is rarely gone 30
 * s later.
 */
export function retryDelayMs(failures: number, frequencySec: number): number {
  const last = RETRY_DELAYS_MS.length - 1;
  const delay = RETRY_DELAYS_MS[Math.min(Math.max(failures, 1) - 1, last)] ?? 0;
  return failures <= 1 ? Math.min(delay, frequencySec * 1000) : delay;
}

/** Codes whose kind says the wrong thing about them. True: heals by itself. */
const BY_CODE: Readonly<Record<string, boolean>> = {
  PEER_NOT_AUTHORISED: false,
  PEER_FINGERPRINT_MISMATCH: false,
  PEER_VERSION_UNSUPPORTED: false,
  /** Time services mend it. */
  CLOCK_SKEW: true,
  TRY_AGAIN: true,
  REPLICA_BUSY: true,
  /** Its cause stays on the replica host. */
  REPLICA_STORAGE_FULL: true,
  /** The replica was restarted between offer and commit; the next attempt offers anew. */
  LOG_NOT_OFFERED: true,
  /** The next attempt sends it again, whole. */
  LOG_DIGEST_MISMATCH: true,
};

/** System errors that pass: space, memory, handles, time. EIO, EROFS and their like need a person. */
const PASSING_ERRNO: ReadonlySet<string> = new Set([
  'ENOSPC',
  'EDQUOT',
  'ENOMEM',
  'EMFILE',
  'ENFILE',
  'EAGAIN',
  'EBUSY',
  'EINTR',
  'ETIMEDOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'ENETRESET',
  'ENOTFOUND',
  'EADDRNOTAVAIL',
]);

/**
 * May the cause pass by itself? Decided by code, then by the errno of the cause, then by kind: an unreachable peer may
 * come back; a wrong state, a VM that is not found and a broken disk will not. Programmer errors (anything else)
 * never.
 */
export function isRecoverable(error: unknown): boolean {
  if (!(error instanceof UnderstudyError)) return PASSING_ERRNO.has(errnoOf(error) ?? '');
  const known = BY_CODE[error.code];
  if (known !== undefined) return known;
  const errno = errnoIn(error.cause);
  if (errno !== undefined) return PASSING_ERRNO.has(errno);
  return error.kind === 'peer';
}

/** The first errno along the chain of causes. */
function errnoIn(cause: unknown): string | undefined {
  for (let error = cause; error instanceof Error; error = error.cause) {
    const errno = errnoOf(error);
    if (errno !== undefined) return errno;
  }
  return undefined;
}
