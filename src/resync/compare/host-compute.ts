/** The real Compute: zstd on libuv's threads, BLAKE3 in native code. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import type { Compute } from '../../model/ports.ts';

const compressAsync = promisify(zstdCompress);
const decompressAsync = promisify(zstdDecompress);

/** Chunks of the output: the default of 16 KiB makes a turn of the loop for each. The longest has room for a piece of 1 MiB that grew. */
const CHUNK_BYTES = { min: 1024, max: (1 << 20) + (64 << 10) };

/** Shrinking by less than this costs the receiver more than it saves. */
const WORTHWHILE = 0.95;

/** `level` is zstd's; note that zstd reads levels below 1 as something else than "faster still". */
export function hostCompute({ level = 1 }: { level?: number } = {}): Compute {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    async compress(data) {
      const shrunk = await compressAsync(data, { params, chunkSize: chunkSize(data.length) });
      return shrunk.length <= data.length * WORTHWHILE ? shrunk : null;
    },
    decompress: (data, maxBytes) =>
      decompressAsync(data, { maxOutputLength: Math.max(1, maxBytes), chunkSize: chunkSize(Math.min(maxBytes, 8 * data.length)) }),
    digest: (data) => blake3(data),
    digester() {
      const hasher = new Blake3Hasher();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
    },
  };
}

const chunkSize = (expected: number): number => Math.min(CHUNK_BYTES.max, Math.max(CHUNK_BYTES.min, expected + (expected >> 7) + 1024));
