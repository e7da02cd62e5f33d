/**
 * The thread behind ZstdThreads. Its own heap is small, so that what zstd allocates for each call costs it little to collect; in the
 * heap of the server the same was four fifths of the cost of a transfer.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

export interface ZstdThreadData {
  /** Two halves: what comes, what goes. */
  slots: SharedArrayBuffer[];
  level: number;
}

/** `most`: compressed, a longer result is not wanted; decompressed, a longer one is an error. */
export type ZstdJob = { slot: number; kind: 'compress' | 'decompress'; length: number; most: number };
/** `length`: null when the result is longer than was wanted. */
export type ZstdAnswer = { slot: number; length: number | null } | { slot: number; failed: string };

const { slots, level } = workerData as ZstdThreadData;
const halves = slots.map((shared) => {
  const half = shared.byteLength / 2;
  return { input: Buffer.from(shared, 0, half), output: Buffer.from(shared, half) };
});
const params = { [constants.ZSTD_c_compressionLevel]: level };

function answer({ slot, kind, length, most }: ZstdJob): ZstdAnswer {
  const { input, output } = halves[slot]!;
  const data = input.subarray(0, length);
  const chunkSize = Math.max(1024, Math.min(output.length, most + 1024));
  try {
    const result = kind === 'compress'
      ? zstdCompressSync(data, { params, chunkSize })
      : zstdDecompressSync(data, { maxOutputLength: Math.max(1, most), chunkSize });
    if (result.length > most) return { slot, length: null };
    output.set(result);
    return { slot, length: result.length };
  } catch (error) {
    return { slot, failed: error instanceof Error ? error.message : String(error) };
  }
}

parentPort!.on('message', (job: ZstdJob) => parentPort!.postMessage(answer(job)));
