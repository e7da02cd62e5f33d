/**
 * The header of a qcow2 image, as far as it says what the image is and which other files it needs. Pure.
 *
 *  offset  size  field (big-endian; QEMU's docs/interop/qcow2.txt)
 *       0     4  magic `QFI\xfb`
 *       4     4  version, 2 or 3
 *       8     8  offset of the backing file's name, 0 without one
 *      16     4  length of that name, at most 1023
 *      24     8  virtual size in bytes
 *      72     8  incompatible features (version 3): bit 2 = the data is in another file
 *     100     4  length of this header (version 3; 72 in version 2); behind it extensions, each
 *                u32 type, u32 length, data padded to 8 bytes; type 0 ends them, 0xe2792aca is the backing file's format
 */

export interface Qcow2Facts {
  virtualSize: number;
  hasBackingFile: boolean;
  /** As the image names it; null without one. */
  backingFile: string | null;
  /** Null when the image does not say: then QEMU would guess it from what a guest has written. */
  backingFormat: string | null;
  externalData: boolean;
}

const BACKING_FORMAT = 0xe2792aca;
const EXTERNAL_DATA = 1n << 2n;

/** `head`: the first bytes of the file; a cluster (64 KiB) holds header, extensions and the name. */
export function decodeQcow2Header(head: Buffer): Qcow2Facts | { malformed: string } {
  if (head.length < 72) return { malformed: `a qcow2 header of ${head.length} bytes, expected at least 72` };
  const version = head.readUInt32BE(4);
  if (version < 2 || version > 3) return { malformed: `qcow2 version ${version}, expected 2 or 3` };
  if (version === 3 && head.length < 104) return { malformed: `a qcow2 header of ${head.length} bytes, expected at least 104` };
  const facts: Qcow2Facts = {
    virtualSize: Number(head.readBigUInt64BE(24)), hasBackingFile: head.readBigUInt64BE(8) !== 0n, backingFile: null,
    backingFormat: null, externalData: version === 3 && (head.readBigUInt64BE(72) & EXTERNAL_DATA) !== 0n,
  };
  if (!facts.hasBackingFile) return facts;
  const [at, length] = [Number(head.readBigUInt64BE(8)), head.readUInt32BE(16)];
  if (length === 0 || length > 1023 || at + length > head.length) return { malformed: `the backing file's name lies at ${at}+${length}` };
  facts.backingFile = head.toString('utf8', at, at + length);
  facts.backingFormat = backingFormatIn(head, version === 3 ? head.readUInt32BE(100) : 72, at);
  return facts;
}

function backingFormatIn(head: Buffer, from: number, end: number): string | null {
  for (let at = from; at + 8 <= end; ) {
    const [type, length] = [head.readUInt32BE(at), head.readUInt32BE(at + 4)];
    if (type === 0 || at + 8 + length > end) return null;
    if (type === BACKING_FORMAT) return head.toString('latin1', at + 8, at + 8 + length);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return null;
}
