/** How failures of disks are said: errno errors for single operations, UnderstudyError for what a person asked for. */
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';

/** A failure of one operation, shaped like those of node:fs. */
export function ioError(code: string, message: string, cause?: unknown): NodeJS.ErrnoException {
  const error = new Error(`${code}: ${message}`, cause === undefined ? {} : { cause });
  return Object.assign(error, { code });
}

export function diskInUse(location: string, by: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('state', 'DISK_IN_USE', `${location} is in use: ${by}`,
    `Stop the program that uses it (fuser -v ${shellWord(location)} names it), then try again.`, { cause });
}

export function diskReadOnly(location: string, why: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('state', 'DISK_READ_ONLY', `${location} cannot be written: ${why}`,
    'Make it writable, or open it read-only.', { cause });
}

export function diskNotSupported(location: string, what: string, remedy: string): UnderstudyError {
  return new UnderstudyError('usage', 'DISK_NOT_SUPPORTED', `${location} ${what}`, remedy);
}

/** Virtual disks are made of whole 512-byte sectors. */
export function assertWholeSectors(location: string, size: number): void {
  if (size % 512 === 0 && Number.isSafeInteger(size)) return;
  const next = (Math.floor(size / 512) + 1) * 512;
  throw new UnderstudyError('usage', 'DISK_SIZE_NOT_SECTORS',
    `${location} has ${size} bytes, which is not a multiple of 512`,
    `Grow it to ${next} bytes: truncate --size=${next} ${shellWord(location)}`);
}

/**
 * What to tell when opening or creating failed with a system error. Anything that is not one is handed back as it is.
 */
export function openFailure(location: string, error: unknown): unknown {
  const cause = error;
  switch (errnoOf(error)) {
    case undefined:
      return error;
    case 'ENOENT':
    case 'ENOTDIR':
      return new UnderstudyError('usage', 'DISK_NOT_FOUND', `there is no disk at ${location}`,
        'Check the path; create a new image with: understudy disk create.', { cause });
    case 'EEXIST':
      return new UnderstudyError('usage', 'DISK_EXISTS', `${location} exists already`,
        'Choose another name, or remove the file first.', { cause });
    case 'EACCES':
    case 'EPERM':
      return new UnderstudyError('usage', 'DISK_NO_PERMISSION', `no permission to open ${location}`,
        'Give the user that runs Understudy access to it, or run it as a user who has.', { cause });
    case 'EROFS':
      return diskReadOnly(location, 'its file system is mounted read-only', cause);
    case 'EBUSY':
    case 'ETXTBSY':
      return diskInUse(location, 'it is mounted, or a program holds it exclusively', cause);
    case 'EISDIR':
      return diskNotSupported(location, 'is a folder', 'Name the image file in it.');
    case 'ENOSPC':
    case 'EDQUOT':
      return new UnderstudyError('io', 'DISK_NO_SPACE', `no space left for ${location}`,
        'Free space on its volume, then try again.', { cause });
    default:
      return new UnderstudyError('io', 'DISK_IO', `cannot open ${location}: ${messageOf(error)}`,
        'Look at the system log for errors of the device below it.', { cause });
  }
}

/** The word as a POSIX shell needs it, so that a remedy can be pasted. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
