/** Whether bytes are all zero: then they need no room on a disk, in a log or on the line. */
const ZEROES = Buffer.alloc(256 << 10);

/** Of any length; stops at the first piece that has another byte. */
export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const end = Math.min(at + ZEROES.length, bytes.length);
    if (ZEROES.compare(bytes, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}
