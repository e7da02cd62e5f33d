/**
 * Writes into the page cache on this thread. That saves two thread switches a write (1.3 instead of 0.8 times nbdkit at
 * 4 KiB on ext4, see bench/nbd-untracked.ts), but everything else in the process waits as long as the file system does.
 * So the first slow write sends the ones after it to the thread pool, for a time that doubles with each slow one: a
 * throttled disk costs the process one bounded stall now and then.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { Clock } from '../model/ports.ts';
import type { Done } from './export.ts';

/** A disk that can write on this thread (raw files). */
export type PromptDisk = Pick<VirtualDisk, 'write'> & { writeNow(from: Uint8Array, offset: number): void };

/** Larger ones gain from being copied on another core. */
const PROMPT_BYTES_MAX = 64 * 1024;
/** A partial page must be read from the disk before it can be written. */
const PAGE_BYTES = 4096;
const SLOW_MS = 2;
const REST_MS_MIN = 1000;
const REST_MS_MAX = 60_000;
/** So many quick writes in a row end a bad spell. */
const QUICK_WRITES = 10_000;

export function promptWrites(
  disk: PromptDisk, clock: Pick<Clock, 'monotonic'>,
): (from: Uint8Array, offset: number) => Done {
  let restMs = REST_MS_MIN;
  let restUntil = -Infinity;
  let quick = 0;
  return (from, offset) => {
    const isAligned = offset % PAGE_BYTES === 0 && from.length % PAGE_BYTES === 0;
    if (from.length > PROMPT_BYTES_MAX || !isAligned) return disk.write(from, offset);
    const start = clock.monotonic();
    if (start < restUntil) return disk.write(from, offset);
    disk.writeNow(from, offset);
    const end = clock.monotonic();
    quick += 1;
    if (end - start > SLOW_MS) {
      restUntil = end + restMs;
      restMs = Math.min(2 * restMs, REST_MS_MAX);
      quick = 0;
    } else if (quick === QUICK_WRITES) {
      restMs = REST_MS_MIN;
    }
    return undefined;
  };
}
