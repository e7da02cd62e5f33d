/** System errors of a replica host, in words that its primary can act on: causes do not travel between hosts. */
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';

const FULL: readonly string[] = ['ENOSPC', 'EDQUOT'];

/**
 * What the primary is told of `error`. Anything that is neither a system error nor expected is handed back: it is a bug of
 * ours.
 */
export function toldToPrimary(error: unknown, hostName: string): unknown {
  if (error instanceof UnderstudyError) return error;
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  if (FULL.includes(errno)) return storageFull(`the replica host ${hostName} has no space left: ${messageOf(error)}`, error);
  return new UnderstudyError('io', 'REPLICA_IO_FAILED', `the replica host ${hostName} could not write: ${messageOf(error)}`,
    'Check the disk and the volume that the message names, then resume replication.', { cause: error });
}

/** Heals by itself once there is space: see backoff.ts. */
export function storageFull(message: string, cause: unknown): UnderstudyError {
  return new UnderstudyError('io', 'REPLICA_STORAGE_FULL', message, 'Free space on the replica; sending is tried again by itself.', { cause });
}

/** What a failover or a test serves rests on the replica disks and the inbox as they are. */
export function servedMeanwhile(vmName: string, what: string, isTest: boolean): UnderstudyError {
  return new UnderstudyError('io', 'REPLICA_BUSY',
    `the replica of VM '${vmName}' is served by a ${isTest ? 'test failover' : 'failover'}: ${what} has to wait`,
    `End it on the replica (understudy failover cancel '${vmName}'); then this is tried again by itself.`);
}
