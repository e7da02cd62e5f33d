/** Decides whether a request may reach the disk, before anything is done. Pure. */
import { NBD_CMD, NBD_CMD_FLAG, type NbdErrno } from '../disk/nbd/protocol.ts';
import type { NbdExport } from './export.ts';

export interface Request {
  command: number;
  flags: number;
  offset: number;
  length: number;
}

/** What the handshake agreed upon. */
export interface Session {
  structuredReplies: boolean;
  /** `base:allocation` was selected for this export. */
  blockStatus: boolean;
}

export type Target = Pick<NbdExport, 'size' | 'readOnly' | 'minimumBlockSize' | 'canTrim'>;

export interface Refusal {
  errno: NbdErrno;
  reason: string;
}

const COMMAND_NAMES = new Map<number, string>(Object.entries(NBD_CMD).map(([name, number]) => [number, name]));

export function commandName(command: number): string {
  return COMMAND_NAMES.get(command) ?? `command ${command}`;
}

/**
 * Flags a command may carry. FUA is allowed everywhere: clients set it on all requests, and it only matters for writes.
 */
function flagsAllowed(command: number, session: Session): number {
  switch (command) {
    case NBD_CMD.READ: return NBD_CMD_FLAG.FUA | (session.structuredReplies ? NBD_CMD_FLAG.DF : 0);
    case NBD_CMD.WRITE_ZEROES: return NBD_CMD_FLAG.FUA | NBD_CMD_FLAG.NO_HOLE;
    case NBD_CMD.BLOCK_STATUS: return NBD_CMD_FLAG.FUA | NBD_CMD_FLAG.REQ_ONE;
    default: return NBD_CMD_FLAG.FUA;
  }
}

/** Why this request may not reach the disk, with the errno the client will see; null when it may. Not for DISC. */
export function refusal(request: Request, target: Target, session: Session, payloadBytesMax: number): Refusal | null {
  const { command, flags, offset, length } = request;
  const unknown = flags & ~flagsAllowed(command, session);
  if (unknown !== 0) return invalid(`flags 0x${unknown.toString(16)} are not allowed here`);
  let writes = false;
  switch (command) {
    case NBD_CMD.FLUSH:
      return offset === 0 && length === 0 ? null : invalid(`a flush has no range, got ${offset}+${length}`);
    case NBD_CMD.READ:
      if (length > payloadBytesMax) return tooLong(length, payloadBytesMax);
      break;
    case NBD_CMD.WRITE:
      writes = true;
      if (length > payloadBytesMax) return tooLong(length, payloadBytesMax);
      break;
    case NBD_CMD.WRITE_ZEROES:
      writes = true;
      break;
    case NBD_CMD.TRIM:
      writes = true;
      if (!target.canTrim && !target.readOnly) return invalid('this export cannot trim');
      break;
    case NBD_CMD.CACHE:
      break;
    case NBD_CMD.BLOCK_STATUS:
      if (!session.blockStatus) return invalid('no metadata context was negotiated');
      break;
    default:
      return invalid('the command is unknown');
  }
  if (writes && target.readOnly) return { errno: 'EPERM', reason: 'the export is read-only' };
  return rangeRefusal(offset, length, writes, target);
}

function rangeRefusal(offset: number, length: number, writes: boolean, target: Target): Refusal | null {
  if (offset + length > target.size) {
    return { errno: writes ? 'ENOSPC' : 'EINVAL', reason: `${offset}+${length} is past the end, ${target.size}` };
  }
  if (length === 0) return invalid('the length is 0');
  const block = target.minimumBlockSize;
  if (block > 1 && (offset % block !== 0 || length % block !== 0)) {
    return invalid(`${offset}+${length} is not a multiple of the block size, ${block}`);
  }
  return null;
}

function invalid(reason: string): Refusal {
  return { errno: 'EINVAL', reason };
}

function tooLong(length: number, max: number): Refusal {
  return { errno: 'EINVAL', reason: `length ${length} is over the limit, ${max}` };
}
