/** The real Compute: zstd on libuv's threads, BLAKE3 in native code. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import type { Compute } from '../../model/ports.ts';

const compressAsync = promisify(zstdCompress);
const decompressAsync = promisify(zstdDecompress);

/** Shrinking by less than this costs the receiver more than it saves. */
const WORTHWHILE = 0.95;

/** `level` is zstd's; note that zstd reads levels below 1 as something else than "faster still". */
export function hostCompute({ level = 1 }: { level?: number } = {}): Compute {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    async compress(data) {
      const shrunk = await compressAsync(data, { params });
      return shrunk.length <= data.length * WORTHWHILE ? shrunk : null;
    },
    decompress: (data, maxBytes) => decompressAsync(data, { maxOutputLength: Math.max(1, maxBytes) }),
    digest: (data) => blake3(data),
    digester() {
      const hasher = new Blake3Hasher();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
    },
  };
}
