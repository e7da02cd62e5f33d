import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fingerprintOf, parseFingerprint } from './fingerprint.ts';

// SHA-256 of "abc", FIPS 180-2 appendix B.1.
const ABC = 'BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD';

test('a fingerprint is the SHA-256 of the certificate in pairs', () => {
  assert.equal(fingerprintOf(Buffer.from('abc')), ABC);
});

test('a fingerprint is read with or without colons, in either case, with blanks around', () => {
  for (const text of [ABC, ABC.toLowerCase(), ABC.replaceAll(':', ''), ` ${ABC.replaceAll(':', '').toLowerCase()}\n`]) {
    assert.equal(parseFingerprint(text), ABC);
  }
});

test('what is no fingerprint is refused with what is wanted', () => {
  const wrong = [
    '', 'any', ABC.slice(0, -1), `${ABC}:00`, ABC.replace('BA', 'GA'), ABC.replace(':', ''), ABC.replaceAll(':', '-'),
    `sha256 Fingerprint=${ABC}`,
  ];
  for (const text of wrong) {
    assert.throws(() => parseFingerprint(text), { code: 'FINGERPRINT_INVALID', kind: 'usage', message: /64 hex digits/ }, text);
  }
});

test('every text that is taken is one of 32 bytes', () => {
  fc.assert(fc.property(fc.string({ maxLength: 100 }), (text) => {
    try {
      return Buffer.from(parseFingerprint(text).replaceAll(':', ''), 'hex').length === 32;
    } catch (error) {
      return (error as { code?: string }).code === 'FINGERPRINT_INVALID';
    }
  }));
});
