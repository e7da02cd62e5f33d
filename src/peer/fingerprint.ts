import { createHash } from 'node:crypto';
import { UnderstudyError } from '../model/errors.ts';

const HEX = /^(?:[0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31})$/i;

/**
 * SHA-256 of a DER certificate as 32 upper-case pairs joined by colons, as `openssl x509 -fingerprint -sha256` prints
 * it.
 */
export function fingerprintOf(der: Uint8Array): string {
  return grouped(createHash('sha256').update(der).digest('hex'));
}

/**
 * Accepts 64 hex digits, with or without colons, in either case. Throws FINGERPRINT_INVALID (usage) for anything else.
 */
export function parseFingerprint(text: string): string {
  const trimmed = text.trim();
  if (HEX.test(trimmed)) return grouped(trimmed.replaceAll(':', ''));
  throw new UnderstudyError('usage', 'FINGERPRINT_INVALID',
    `"${trimmed.slice(0, 100)}" is no fingerprint: 64 hex digits are needed, ${trimmed.length} characters came`,
    'Run understudy fingerprint on the other host and copy its whole line.');
}

function grouped(hex: string): string {
  return hex.toUpperCase().replace(/..(?!$)/g, '$&:');
}
