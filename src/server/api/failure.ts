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
/** Where HTTP has a status of its own. */
const STATUS_OF_CODE: Record<string, number> = {
  UNKNOWN_OPERATION: 404,
  UNKNOWN_PATH: 404,
  SIGN_IN_REQUIRED: 401,
  TOKEN_INVALID: 401,
  FOREIGN_HOST: 403,
  FOREIGN_ORIGIN: 403,
  READ_ONLY: 403,
  LOCAL_ONLY: 403,
  RATE_LIMITED: 429,
};

export function httpStatusOf({ kind, code }: Pick<Failure, 'kind' | 'code'>): number {
  return STATUS_OF_CODE[code] ?? HTTP_STATUS[kind];
}

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
