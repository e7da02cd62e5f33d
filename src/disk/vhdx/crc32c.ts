/** CRC-32C (Castagnoli, reflected 0x82f63b78); node:zlib has the other polynomial only. Four tables: four bytes a step. */

const TABLES = makeTables();

/** The checksum of `bytes` with the four bytes at `zeroAt` taken as zero, as VHDX stores it inside of what it covers. */
export function crc32c(bytes: Uint8Array, zeroAt = -1): number {
  if (zeroAt < 0) return ~update(~0, bytes) >>> 0;
  let crc = update(~0, bytes.subarray(0, zeroAt));
  crc = update(crc, new Uint8Array(4));
  return ~update(crc, bytes.subarray(zeroAt + 4)) >>> 0;
}

function update(start: number, bytes: Uint8Array): number {
  const [t0, t1, t2, t3] = TABLES as [Int32Array, Int32Array, Int32Array, Int32Array];
  let crc = start;
  let at = 0;
  for (const end = bytes.length - 3; at < end; at += 4) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc = t3[crc & 255]! ^ t2[(crc >>> 8) & 255]! ^ t1[(crc >>> 16) & 255]! ^ t0[crc >>> 24]!;
  }
  for (; at < bytes.length; at++) crc = t0[(crc ^ bytes[at]!) & 255]! ^ (crc >>> 8);
  return crc;
}

function makeTables(): Int32Array[] {
  const first = new Int32Array(256);
  for (let value = 0; value < 256; value++) {
    let crc = value;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f63b78;
    first[value] = crc;
  }
  const tables = [first];
  for (let step = 1; step < 4; step++) {
    const before = tables[step - 1]!;
    tables.push(before.map((crc) => (crc >>> 8) ^ first[crc & 255]!));
  }
  return tables;
}
