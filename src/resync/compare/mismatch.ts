/** Reasons not to begin: what the two disks or sessions are, side by side. Pure. */
import { UnderstudyError } from '../../model/errors.ts';
import type { CompareSession } from './options.ts';

export interface DiskSizes {
  virtualSize: number;
  logicalSectorSize: number;
}

/** Null when the two disks can be compared. */
export function sizeMismatch(
  source: DiskSizes & { sameSectorSize: boolean },
  target: DiskSizes,
): UnderstudyError | null {
  if (source.virtualSize !== target.virtualSize) {
    return new UnderstudyError(
      'usage',
      'DISK_SIZE_MISMATCH',
      `the source has ${source.virtualSize} bytes, the target has ${target.virtualSize} bytes`,
      'Nothing was read or written. Make both disks the same size first: nothing is ever resized by itself.',
    );
  }
  if (source.sameSectorSize && source.logicalSectorSize !== target.logicalSectorSize) {
    return new UnderstudyError(
      'usage',
      'DISK_SECTOR_MISMATCH',
      `the source has sectors of ${source.logicalSectorSize} bytes, the target of ${target.logicalSectorSize} bytes`,
      'Nothing was read or written. Recreate the target with the same logical sector size.',
    );
  }
  return null;
}

/** Null when the session is the expected one (rule R18). */
export function sessionMismatch(expected: CompareSession | undefined, got: CompareSession): UnderstudyError | null {
  const { token, phase } = expected ?? { token: '', phase: '' };
  if (got.token === token && got.phase === phase) return null;
  const name = (session: CompareSession) => `session ${session.token || '(none)'}, phase ${session.phase || '(none)'}`;
  return new UnderstudyError(
    'state',
    'RESYNC_FENCED',
    `a compare of ${name(got)} arrived in ${name({ token, phase })}`,
    'Nothing was changed. Wait for the current session to end, or start the resynchronization again.',
  );
}
