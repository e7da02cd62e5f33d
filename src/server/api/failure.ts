/** Every way an operation can fail, in the one shape that travels: `{error: {kind, code, message, remedy}}`. */

import { UnderstudyError, errnoOf, messageOf } from '../../model/errors.ts';
import type { ErrorKind } from '../../model/errors.ts';

export interface Failure {
  kind: ErrorKind;
  code: string;
  message: string;
  remedy: string;
}

export const HTTP_STATUS: Record<ErrorKind, number> = { usage: 400, state: 409, peer: 502, io: 500 };

/**
 * An UnderstudyError as it is; a system error by its errno; an abort as INTERRUPTED; anything else as INTERNAL, a
 * defect. Nothing but the message of an unknown error leaves the host: stack and cause belong in its log.
 */
export function failureOf(error: unknown): Failure {
  if (error instanceof UnderstudyError) return error.toJSON();
  const message = messageOf(error).split('\n', 1)[0]!;
  const errno = errnoOf(error);
  if (errno !== undefined)
    return { kind: 'io', code: errno, message, remedy: 'Mend what the system reports, then try again.' };
  if (error instanceof Error && error.name === 'AbortError') {
    return { kind: 'io', code: 'INTERRUPTED', message: 'the operation was interrupted', remedy: 'Start it again.' };
  }
  return {
    kind: 'io',
    code: 'INTERNAL',
    message,
    remedy: "This is a defect in Understudy: report it with the lines of the server's log.",
  };
}
