import { decodeGuid, encodeGuid, parseBracedGuid } from './guid.ts';
import type { Malformed } from './header.ts';

/*
 *  offset  size  field         parent locator ([MS-VHDX] 2.6.2.6), a metadata item, little-endian
 *       0    16  locator type  B04AEFB7-D19E-4A81-B789-25B8E9445913
 *      16     2  reserved
 *      18     2  count
 *      20  12×n  entries       key offset u32, value offset u32 (from the item's start), key length u16, value length u16
 *                strings       UTF-16LE without NUL
 */
export const LOCATOR_TYPE_VHDX = 'b04aefb7-d19e-4a81-b789-25b8e9445913';
const PAIRS_MAX = 64;

export interface ParentLocator {
  /** The data write GUID of the parent when the child was made, or when the last merge into it began. */
  linkage: string;
  /** Only while a merge into the parent is under way: the GUID that the parent is about to get. */
  linkage2: string | null;
  relative: string | null;
  volume: string | null;
  absolute: string | null;
}

export function decodeParentLocator(from: Uint8Array): ParentLocator | Malformed {
  const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
  if (bytes.length < 20) return { malformed: `parent locator of ${bytes.length} bytes` };
  const type = decodeGuid(bytes, 0);
  if (type !== LOCATOR_TYPE_VHDX) return { malformed: `parent locator of unknown type ${type}` };
  const count = bytes.readUInt16LE(18);
  if (count > PAIRS_MAX || 20 + count * 12 > bytes.length)
    return { malformed: `parent locator with ${count} pairs in ${bytes.length} bytes` };
  const pairs = new Map<string, string>();
  for (let index = 0; index < count; index++) {
    const at = 20 + index * 12;
    const [keyAt, valueAt] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    const [keyLength, valueLength] = [bytes.readUInt16LE(at + 8), bytes.readUInt16LE(at + 10)];
    if (keyAt + keyLength > bytes.length || valueAt + valueLength > bytes.length) {
      return { malformed: `parent locator pair ${index} goes past the end of its ${bytes.length} bytes` };
    }
    const key = bytes.toString('utf16le', keyAt, keyAt + (keyLength & ~1));
    if (pairs.has(key)) return { malformed: `parent locator key ${JSON.stringify(key)} twice` };
    pairs.set(key, bytes.toString('utf16le', valueAt, valueAt + (valueLength & ~1)));
  }
  const linkage = parseBracedGuid(pairs.get('parent_linkage') ?? '');
  if (linkage === null)
    return { malformed: `parent_linkage ${JSON.stringify(pairs.get('parent_linkage') ?? null)} is no GUID` };
  return {
    linkage,
    linkage2: parseBracedGuid(pairs.get('parent_linkage2') ?? ''),
    relative: pairs.get('relative_path') ?? null,
    volume: pairs.get('volume_path') ?? null,
    absolute: pairs.get('absolute_win32_path') ?? null,
  };
}

export function encodeParentLocator(locator: ParentLocator): Buffer {
  const pairs: [string, string][] = [['parent_linkage', `{${locator.linkage}}`]];
  if (locator.linkage2 !== null) pairs.push(['parent_linkage2', `{${locator.linkage2}}`]);
  if (locator.relative !== null) pairs.push(['relative_path', locator.relative]);
  if (locator.volume !== null) pairs.push(['volume_path', locator.volume]);
  if (locator.absolute !== null) pairs.push(['absolute_win32_path', locator.absolute]);
  const head = Buffer.alloc(20 + pairs.length * 12);
  encodeGuid(LOCATOR_TYPE_VHDX, head, 0);
  head.writeUInt16LE(pairs.length, 18);
  const strings: Buffer[] = [];
  let at = head.length;
  pairs.forEach((pair, index) => {
    const texts = pair.map((text) => Buffer.from(text, 'utf16le'));
    texts.forEach((text, side) => {
      head.writeUInt32LE(at, 20 + index * 12 + side * 4);
      head.writeUInt16LE(text.length, 20 + index * 12 + 8 + side * 2);
      at += text.length;
      strings.push(text);
    });
  });
  return Buffer.concat([head, ...strings]);
}
