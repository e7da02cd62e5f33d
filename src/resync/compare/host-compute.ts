/** The real Compute: zstd on threads of its own, BLAKE3 in native code. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import type { Compute } from '../../model/ports.ts';
import { ZSTD_SLOT_BYTES, ZstdThreads } from './zstd-threads.ts';

const compressAsync = promisify(zstdCompress);
const decompressAsync = promisify(zstdDecompress);

/** Shrinking by less than this costs the receiver more than it saves. */
const WORTHWHILE = 0.95;

/** `level` is zstd's; note that zstd reads levels below 1 as something else than "faster still". */
export function hostCompute({ level = 1 }: { level?: number } = {}): Compute {
  const threads = new ZstdThreads(level);
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    async compress(data, into) {
      const most = Math.floor(data.length * WORTHWHILE);
      if (data.length <= ZSTD_SLOT_BYTES) return threads.compress(data, most, into);
      const shrunk = await compressAsync(data, { params });
      return shrunk.length <= most ? shrunk : null;
    },
    decompress: (data, maxBytes, into) => (Math.max(data.length, maxBytes) <= ZSTD_SLOT_BYTES
      ? threads.decompress(data, maxBytes, into)
      : decompressAsync(data, { maxOutputLength: Math.max(1, maxBytes) })),
    digest: (data) => blake3(data),
    digester() {
      const hasher = new Blake3Hasher();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
    },
  };
}
