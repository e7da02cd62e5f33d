import { settleAll } from '../../model/settle-all.ts';

/** Disk operations in flight at once: enough to hide a system call's round trip, far from filling libuv's threads. */
const WIDTH = 8;

/** Visits all items, at most `WIDTH` at a time, starting in order. Waits for those under way before it rejects. */
export async function inParallel<T>(items: readonly T[], visit: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await visit(items[next++]!);
  };
  await settleAll(Array.from({ length: Math.min(WIDTH, items.length) }, lane));
}
