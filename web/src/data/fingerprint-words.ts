/**
 * A fingerprint as words that can be read aloud: proquints (Wilkerson 2009). Sixteen bits are five letters, consonants and vowels in
 * turn, so no list of words is needed, and every bit of the fingerprint is in them.
 */
const CONSONANTS = 'bdfghjklmnprstvz';
const VOWELS = 'aiou';

export function fingerprintWords(fingerprint: string): string {
  const digits = fingerprint.replaceAll(':', '');
  if (!/^([0-9a-f]{4})+$/i.test(digits)) return '';
  return digits
    .match(/.{4}/g)!
    .map((four) => word(Number.parseInt(four, 16)))
    .join(' ');
}

function word(bits: number): string {
  return (
    CONSONANTS[(bits >> 12) & 15]! +
    VOWELS[(bits >> 10) & 3]! +
    CONSONANTS[(bits >> 6) & 15]! +
    VOWELS[(bits >> 4) & 3]! +
    CONSONANTS[bits & 15]!
  );
}

/** 64 hexadecimal digits with or without colons, also inside of what the QR code says. */
export function fingerprintIn(text: string): string | null {
  const found = /(?:^|#)\s*((?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2})\s*$/.exec(text)?.[1];
  return found === undefined
    ? null
    : found
        .replaceAll(':', '')
        .toUpperCase()
        .replace(/..(?!$)/g, '$&:');
}
