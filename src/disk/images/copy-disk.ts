/** Copies the contents of a disk into a new one: holes stay holes, and what is stored but zero becomes one. */
import { isZero } from '../../model/zero-bytes.ts';
import type { VirtualDisk } from '../virtual-disk.ts';
import type { LongWork } from '../vhd/merge-runs.ts';

const CHUNK_BYTES = 1 << 20;
/** Stretches of zeroes shorter than this are written like data. */
const ZERO_BYTES_MIN = 64 << 10;

/** `target` is at least as large as `source`, and reads as zeroes. Durable when it resolves. */
export async function copyDisk(source: VirtualDisk, target: VirtualDisk, { progress, signal }: LongWork = {}): Promise<void> {
  const total = source.virtualSize;
  let reading = Promise.resolve();
  let writing = Promise.resolve();
  try {
    for await (const { offset, length, kind } of source.extents(0, total)) {
      for (let done = 0; kind === 'data' && done < length; done += CHUNK_BYTES) {
        signal?.throwIfAborted();
        const piece = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, length - done));
        reading = source.read(piece, offset + done);
        // The next piece is read while the last one is written.
        const [, write] = await Promise.allSettled([reading, writing]);
        await reading;
        if (write.status === 'rejected') throw write.reason;
        writing = writeStored(target, piece, offset + done);
        progress?.(offset + done + piece.length, total);
      }
      progress?.(offset + length, total);
    }
  } finally {
    await writing;
  }
  await target.flush();
}

/** Writes the parts that are not zero; the others are holes of the target already. */
async function writeStored(target: Pick<VirtualDisk, 'write'>, data: Uint8Array, offset: number): Promise<void> {
  for (const [from, to, zero] of stretches(data)) if (!zero) await target.write(data.subarray(from, to), offset + from);
}

/** Writes all of it, long stretches of zeroes as holes: what a primary stores but never wrote takes no space on a replica. */
export async function writeSparsely(target: Pick<VirtualDisk, 'write' | 'zero'>, data: Uint8Array, offset: number): Promise<void> {
  for (const [from, to, zero] of stretches(data)) {
    if (zero) await target.zero(offset + from, to - from);
    else await target.write(data.subarray(from, to), offset + from);
  }
}

function* stretches(data: Uint8Array): Iterable<[from: number, to: number, zero: boolean]> {
  const piece = (from: number) => data.subarray(from, from + ZERO_BYTES_MIN);
  for (let from = 0; from < data.length; ) {
    const zero = isZero(piece(from));
    let to = from + ZERO_BYTES_MIN;
    while (to < data.length && isZero(piece(to)) === zero) to += ZERO_BYTES_MIN;
    yield [from, Math.min(to, data.length), zero];
    from = to;
  }
}
