/**
 * The checksum of MS-HRL (section 2.6): the complement of the sum of all bytes, modulo 2^32. It does not see order,
 * so it finds damage but never proves equality; the BLAKE3 digest of the whole file does (R12). Native crc32 is no
 * faster than the loop here (bench/open-log.ts); lanes of WebAssembly are, four times (byte-sum-simd.ts).
 */
import { sumInLanes } from './byte-sum-simd.ts';

/** Below this a plain loop is faster than making a view. */
const SHORT = 64;
/** From here the call into WebAssembly and the copy to its memory pay. */
const LONG = 512;
const LOW_BYTES = 0x00ff00ff;
/** Each of the two accumulators takes 128 words, each at most 2 × 255 per 16-bit lane: 65,280 fits. */
const WORDS_PER_FOLD = 256;

/** Adds the bytes to `sum`, so that data may come in pieces. Start with 0, end with `complement`. */
export function addBytes(sum: number, data: Uint8Array): number {
  if (data.length < SHORT) return addOneByOne(sum, data);
  if (data.length < LONG || sumInLanes === null) return addByWords(sum, data);
  const { sum: more, length } = sumInLanes(data);
  return addOneByOne((sum + more) % 2 ** 32, data.subarray(length));
}

/** The same without lanes: for short data, and for a processor that has none. */
export function addByWords(sum: number, data: Uint8Array): number {
  const head = (4 - (data.byteOffset & 3)) & 3;
  const words = new Uint32Array(data.buffer, data.byteOffset + head, (data.length - head) >>> 2);
  const total = addOneByOne(sum, data.subarray(0, head)) + sumWords(words);
  return addOneByOne(total, data.subarray(head + words.length * 4));
}

function addOneByOne(sum: number, data: Uint8Array): number {
  let total = sum;
  for (let at = 0; at < data.length; at++) total += data[at]!;
  return total % 2 ** 32;
}

/** Four bytes at a time in two 16-bit lanes each. Byte order does not matter to a sum. */
function sumWords(words: Uint32Array): number {
  const count = words.length;
  let total = 0;
  let at = 0;
  while (at + WORDS_PER_FOLD <= count) {
    let even = 0;
    let odd = 0;
    for (const end = at + WORDS_PER_FOLD; at < end; at += 4) {
      const a = words[at]!, b = words[at + 1]!, c = words[at + 2]!, d = words[at + 3]!;
      even = (even + (a & LOW_BYTES) + ((a >>> 8) & LOW_BYTES) + (c & LOW_BYTES) + ((c >>> 8) & LOW_BYTES)) | 0;
      odd = (odd + (b & LOW_BYTES) + ((b >>> 8) & LOW_BYTES) + (d & LOW_BYTES) + ((d >>> 8) & LOW_BYTES)) | 0;
    }
    total += (even & 0xffff) + (even >>> 16) + (odd & 0xffff) + (odd >>> 16);
  }
  for (; at < count; at++) {
    const word = words[at]!;
    const lanes = (word & LOW_BYTES) + ((word >>> 8) & LOW_BYTES);
    total += (lanes & 0xffff) + (lanes >>> 16);
  }
  return total;
}

export function complement(sum: number): number {
  return ~sum >>> 0;
}

export function byteSumChecksum(data: Uint8Array): number {
  return complement(addBytes(0, data));
}
