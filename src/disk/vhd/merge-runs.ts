import { UnderstudyError } from '../../model/errors.ts';
import { isZero } from '../../model/zero-bytes.ts';
import type { VirtualDisk } from '../virtual-disk.ts';
import type { SparseDisk } from './sparse-disk.ts';

const CHUNK_BYTES = 1 << 20;

/** Called now and then with how far a long operation has come, in bytes of the disk. */
export type Progress = (doneBytes: number, totalBytes: number) => void;

export interface LongWork {
  progress?: Progress;
  /** Ends the work early, with the reason; what was to be consistent is. */
  signal?: AbortSignal;
}

/**
 * Copies what the child itself stores (not what it takes from its parents) into `parent`. May be done again any number of
 * times.
 */
export async function copyOwnRuns(
  child: SparseDisk, parent: Pick<VirtualDisk, 'write' | 'zero'>, { progress, signal }: LongWork = {},
): Promise<void> {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  for await (const run of child.runs(0, child.virtualSize)) {
    signal?.throwIfAborted();
    if (run.from === 'zero') await parent.zero(run.offset, run.length);
    if (run.from === 'file') {
      for (let done = 0; done < run.length; done += CHUNK_BYTES) {
        signal?.throwIfAborted();
        const piece = buffer.subarray(0, Math.min(CHUNK_BYTES, run.length - done));
        await child.read(piece, run.offset + done);
        if (isZero(piece)) await parent.zero(run.offset + done, piece.length);
        else await parent.write(piece, run.offset + done);
        progress?.(run.offset + done + piece.length, child.virtualSize);
      }
    }
    progress?.(run.offset + run.length, child.virtualSize);
  }
}

/** @throws UnderstudyError DISK_HAS_CHILDREN */
export function assertNoOtherChildren(path: string, others: readonly string[]): void {
  if (others.length === 0) return;
  throw new UnderstudyError(
    'state',
    'DISK_HAS_CHILDREN',
    `${path} is the parent of ${others.join(', ')}, which the merge would break`,
    'Merge or delete those disks first.',
  );
}

/** @throws UnderstudyError DISK_SHRINK_REFUSED */
export function assertGrows(path: string, from: number, to: number): void {
  if (to >= from) return;
  throw new UnderstudyError(
    'usage',
    'DISK_SHRINK_REFUSED',
    `${path} has ${from} bytes and cannot be made smaller, to ${to}`,
    'Create a smaller disk and copy what is needed.',
  );
}

/** What is no good image is nobody's child; one that cannot be read now may be, so that failure stands. */
export function nullIfMalformed(error: unknown): null {
  if (error instanceof UnderstudyError && error.code === 'DISK_MALFORMED') return null;
  throw error;
}
