/**
 * Microsoft's GUIDs: the first three groups little-endian, the rest as written. Text is lower case with dashes, without
 * braces.
 */

export const GUID_ZERO = '00000000-0000-0000-0000-000000000000';

export function decodeGuid(from: Uint8Array, at: number): string {
  const bytes = Buffer.from(from.subarray(at, at + 16));
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  const text = bytes.toString('hex');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}

export function encodeGuid(guid: string, into: Uint8Array, at: number): void {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  into.set(bytes, at);
}

/** The GUID in `{…}`, in any case; null when the text is none. */
export function parseBracedGuid(text: string): string | null {
  const found = /^\{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}$/i.exec(text.trim());
  return found === null ? null : found[1]!.toLowerCase();
}
