/** GUIDs as Windows lays them out: the first three groups little-endian, the rest in printed order. */

export const ZERO_GUID = '00000000-0000-0000-0000-000000000000';

const PRINTED = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Byte n of the printed form is byte LAYOUT[n] of the stored form. */
const LAYOUT = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/** `text` is lower case with dashes; anything else is the caller's bug. */
export function writeGuid(into: Buffer, at: number, text: string): void {
  if (!PRINTED.test(text)) throw new TypeError(`not a GUID: ${text}`);
  const printed = Buffer.from(text.replaceAll('-', ''), 'hex');
  for (let n = 0; n < 16; n++) into[at + LAYOUT[n]!] = printed[n]!;
}

export function readGuid(from: Buffer, at: number): string {
  const hex = Buffer.from(LAYOUT.map((n) => from[at + n]!)).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
