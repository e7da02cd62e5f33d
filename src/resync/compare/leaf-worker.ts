/**
 * The thread behind WorkerHasher: reads a raw file with plain blocking reads into one reused buffer and hashes it
 * there. A quarter megabyte at a time stays inside of the processor's cache between the read and the hash.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { blake3 } from '@napi-rs/blake-hash';

const PAGE_BYTES = 4096;
const DIGEST_BYTES = 32;

export interface LeafWorkerData {
  path: string;
  virtualSize: number;
  leafBytes: number;
}

/** `leaves` lists leaf numbers of the disk; the answer holds one digest, or one per page, for each in that order. */
export type LeafJob = { id: number; kind: 'leaves' | 'pages'; leaves: Uint32Array } | { kind: 'close' };
export type LeafAnswer = { id: number; digests: Uint8Array } | { id: number; failed: string; errno: string };

const { path, virtualSize, leafBytes } = workerData as LeafWorkerData;
const file = openSync(path, 'r');
const buffer = Buffer.allocUnsafeSlow(leafBytes);
const zeroes = Buffer.alloc(leafBytes);
const zeroDigest = blake3(zeroes);

function readLeaf(leaf: number): Buffer {
  const offset = leaf * leafBytes;
  const length = Math.min(leafBytes, virtualSize - offset);
  for (let done = 0; done < length;) {
    const count = readSync(file, buffer, done, length - done, offset + done);
    if (count === 0) {
      throw Object.assign(new Error(`${path} ends at byte ${offset + done}, it should have ${virtualSize}`), {
        code: 'EIO',
      });
    }
    done += count;
  }
  return buffer.subarray(0, length);
}

function digestLeaves(leaves: Uint32Array): Uint8Array {
  const digests = new Uint8Array(leaves.length * DIGEST_BYTES);
  for (let index = 0; index < leaves.length; index++) {
    const bytes = readLeaf(leaves[index]!);
    digests.set(bytes.length === leafBytes && bytes.equals(zeroes) ? zeroDigest : blake3(bytes), index * DIGEST_BYTES);
  }
  return digests;
}

function digestPages(leaves: Uint32Array): Uint8Array {
  const perLeaf = (leafBytes / PAGE_BYTES) * DIGEST_BYTES;
  const digests = new Uint8Array(leaves.length * perLeaf);
  for (let index = 0; index < leaves.length; index++) {
    const bytes = readLeaf(leaves[index]!);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
      digests.set(blake3(bytes.subarray(at, at + PAGE_BYTES)), index * perLeaf + (at / PAGE_BYTES) * DIGEST_BYTES);
    }
  }
  return digests;
}

function answer(job: Exclude<LeafJob, { kind: 'close' }>): LeafAnswer {
  try {
    return { id: job.id, digests: job.kind === 'leaves' ? digestLeaves(job.leaves) : digestPages(job.leaves) };
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return { id: job.id, failed: error instanceof Error ? error.message : String(error), errno };
  }
}

parentPort!.on('message', (job: LeafJob) => {
  if (job.kind === 'close') {
    closeSync(file);
    parentPort!.close();
    return;
  }
  const result = answer(job);
  parentPort!.postMessage(result, 'digests' in result ? [result.digests.buffer as ArrayBuffer] : []);
});
