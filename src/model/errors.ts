/**
 * Expected failures. Each carries what a person needs: a stable code, what happened with the values of both sides, and what to
 * do about it. Programmer errors are assertions and are never wrapped in this class.
 */

/** Decides the exit code of the command line and the status of the HTTP API (see docs/operating/errors.md). */
export type ErrorKind =
  | 'usage' // wrong option, bad input, unknown VM, disk or point      → exit 2, HTTP 400
  | 'state' // right name, but wrong state or wrong side                → exit 3, HTTP 409
  | 'peer' //  the other host is not reachable or not authorised        → exit 4, HTTP 502
  | 'io'; //   a disk, a log, the catalog or the network failed         → exit 5, HTTP 500

export const EXIT_CODE: Record<ErrorKind, number> = { usage: 2, state: 3, peer: 4, io: 5 };
export const EXIT_DIFFERENT = 1;
export const EXIT_INTERRUPTED = 130;

export class UnderstudyError extends Error {
  override readonly name = 'UnderstudyError';
  readonly kind: ErrorKind;
  /** SCREAMING_SNAKE_CASE, documented in docs/operating/errors.md; scripts match on this, never on the message. */
  readonly code: string;
  /** One imperative sentence; shown after an arrow under the message. */
  readonly remedy: string;

  constructor(kind: ErrorKind, code: string, message: string, remedy: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.kind = kind;
    this.code = code;
    this.remedy = remedy;
  }

  toJSON(): { kind: ErrorKind; code: string; message: string; remedy: string } {
    return { kind: this.kind, code: this.code, message: this.message, remedy: this.remedy };
  }
}

/** What was asked for, or is under way, ends with the server. */
export const serverStops = (): UnderstudyError => new UnderstudyError('io', 'INTERRUPTED', 'the server stops', 'Start it again.');

/** The errno name (`ENOSPC`, `EIO`, …) of a system error, or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined;
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
