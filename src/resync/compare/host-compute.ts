/** The real Compute: zstd off the main thread, of the system where it has one; BLAKE3 in native code. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { Blake3Hasher, blake3UrlSafeBase64 } from '@napi-rs/blake-hash';
import type { Compute } from '../../model/ports.ts';
import { libzstd } from './libzstd.ts';
import { ZSTD_SLOT_BYTES, ZstdThreads } from './zstd-threads.ts';

const compressAsync = promisify(zstdCompress);
const decompressAsync = promisify(zstdDecompress);

/** Shrinking by less than this costs the receiver more than it saves. */
const WORTHWHILE = 0.95;

/** `level` is zstd's; note that zstd reads levels below 1 as something else than "faster still". `native`: null for Node's own zstd. */
export function hostCompute({ level = 1, native = libzstd() }: { level?: number; native?: ReturnType<typeof libzstd> } = {}): Compute {
  const threads = new ZstdThreads(level);
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    async compress(data, into) {
      const most = Math.floor(data.length * WORTHWHILE);
      if (data.length <= ZSTD_SLOT_BYTES) return native === null ? threads.compress(data, most, into) : native.compress(data, most, level, into);
      const shrunk = await compressAsync(data, { params });
      return shrunk.length <= most ? shrunk : null;
    },
    async decompress(data, maxBytes, into) {
      if (Math.max(data.length, maxBytes) > ZSTD_SLOT_BYTES) return decompressAsync(data, { maxOutputLength: Math.max(1, maxBytes) });
      return native === null ? threads.decompress(data, maxBytes, into) : native.decompress(data, maxBytes, into);
    },
    // By way of text: a Buffer that native code owns costs more than both (see leaf-worker.ts).
    digest: (data) => Buffer.from(blake3UrlSafeBase64(data), 'base64url'),
    digester() {
      const hasher = new Blake3Hasher();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
    },
  };
}
