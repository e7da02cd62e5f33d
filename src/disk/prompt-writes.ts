/**
 * Writes into the page cache on this thread. That saves two thread switches a write (1.3 instead of 0.8 times nbdkit at
 * 4 KiB on ext4, see bench/nbd-untracked.ts), but everything else in the process waits as long as the file system does.
 * So a slow write sends the ones after it to the thread pool, for ten times as long as it took: whatever the disk does,
 * slow writes hold up the process for at most a tenth of the time.
 */
import type { VirtualDisk } from './virtual-disk.ts';
import type { Clock } from '../model/ports.ts';

/** Larger ones gain from being copied on another core. */
const PROMPT_BYTES_MAX = 64 * 1024;
/** A partial page must be read from the disk before it can be written. */
const PAGE_BYTES = 4096;
/** Usual writes take 5 to 50 µs; on a busy host the scheduler may add a few milliseconds to any of them. */
const SLOW_MS = 5;
const REST_PER_SLOWNESS = 10;

/**
 * A function that writes on this thread and says true, or does nothing and says false: then use `write`. It throws what
 * `write` would reject with.
 */
export function promptWrites(
  disk: Pick<VirtualDisk, 'writeNow'>, clock: Pick<Clock, 'monotonic'>,
): (from: Uint8Array, offset: number) => boolean {
  if (disk.writeNow === undefined) return () => false;
  let restUntil = -Infinity;
  return (from, offset) => {
    const isAligned = offset % PAGE_BYTES === 0 && from.length % PAGE_BYTES === 0;
    if (from.length > PROMPT_BYTES_MAX || !isAligned) return false;
    const start = clock.monotonic();
    if (start < restUntil) return false;
    const done = disk.writeNow!(from, offset);
    const end = clock.monotonic();
    if (end - start > SLOW_MS) restUntil = end + REST_PER_SLOWNESS * (end - start);
    return done;
  };
}
