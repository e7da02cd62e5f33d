/** What both phases of the NBD codecs share. */

export interface Malformed {
  malformed: string;
}

export function isMalformed(value: object): value is Malformed {
  return 'malformed' in value;
}

/** Upper bound of names, descriptions and context names, in UTF-8 bytes. */
export const NBD_MAX_STRING = 4096;

/** An unsigned 64-bit integer as a number: exact up to 2^53, rounded above. */
export function readU64(from: Buffer, at: number): number {
  return from.readUInt32BE(at) * 0x1_0000_0000 + from.readUInt32BE(at + 4);
}

export function writeU64(into: Buffer, value: number, at: number): void {
  into.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at);
  into.writeUInt32BE(value % 0x1_0000_0000, at + 4);
}

export function tooShort(what: string, length: number, expected: number): Malformed {
  return { malformed: `${what} of ${length} bytes, expected at least ${expected}` };
}

export function wrongSize(what: string, length: number, expected: number): Malformed {
  return { malformed: `${what} of ${length} bytes, expected ${expected}` };
}

export function wrongMagic(what: string, magic: number | bigint, expected: number | bigint): Malformed {
  return { malformed: `${what} magic 0x${magic.toString(16)}, expected 0x${expected.toString(16)}` };
}
