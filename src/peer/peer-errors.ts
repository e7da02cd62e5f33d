/** The words of every refusal between two hosts, and how a refusal travels. */
import { z } from 'zod';
import { UnderstudyError } from '../model/errors.ts';

const SAME_VERSION = 'Bring both hosts to the same version of understudy.';
const TEXT_MAX = 2000;

/** What a refusal looks like on the wire. */
const wireErrorSchema = z.object({
  error: z.object({
    kind: z.enum(['usage', 'state', 'peer', 'io']),
    code: z.string().regex(/^[A-Z][A-Z0-9_]{0,63}$/),
    message: z.string().max(TEXT_MAX),
    remedy: z.string().max(TEXT_MAX),
  }),
});

export function toWire(error: UnderstudyError): { error: object } {
  const { kind, code, message, remedy } = error.toJSON();
  return { error: { kind, code, message: message.slice(0, TEXT_MAX), remedy: remedy.slice(0, TEXT_MAX) } };
}

/** Null when the JSON is no refusal. Control characters are dropped: the text ends on a terminal. */
export function fromWire(json: unknown): UnderstudyError | null {
  const parsed = wireErrorSchema.safeParse(json);
  if (!parsed.success) return null;
  const { kind, code, message, remedy } = parsed.data.error;
  return new UnderstudyError(kind, code, printable(message), printable(remedy));
}

function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ');
}

/** Tells the caller nothing but what it already knows: its own fingerprint. */
export function notAuthorised(fingerprint: string | null): UnderstudyError {
  const [message, remedy] = fingerprint === null
    ? ['no certificate was shown, so this host is not authorised', 'Connect with the certificate of a paired host.']
    : [`this host, with fingerprint ${fingerprint}, is not authorised on the other host`,
      `Run understudy authorize ${fingerprint} on the other host.`];
  return new UnderstudyError('peer', 'PEER_NOT_AUTHORISED', message, remedy);
}

export function messageUnknown(name: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_MESSAGE_UNKNOWN', `the other host does not know the message ${name}`, SAME_VERSION);
}

export function messageInvalid(name: string, reason: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_MESSAGE_INVALID', `message ${name} was refused: ${reason}`, SAME_VERSION);
}

export function replyInvalid(name: string, reason: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_REPLY_INVALID', `the reply to ${name} cannot be used: ${reason}`, SAME_VERSION);
}

/** The handler failed in a way nobody expected; the cause stays in this host's log. */
export function internalFailure(name: string): UnderstudyError {
  return new UnderstudyError('io', 'PEER_INTERNAL', `the other host failed while it answered ${name}`,
    'Read the log of the other host, then repeat.');
}

export function linkClosed(): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_LINK_CLOSED', 'the link to the other host was closed here',
    'Open a new link and repeat.');
}

export function protocolViolated(reason: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_PROTOCOL', `the other host refused the request: ${reason}`, SAME_VERSION);
}

export function serverBusy(connections: number): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_BUSY', `the other host already serves ${connections} connections of this host`,
    'Let some of what runs between the hosts end, then repeat.');
}
