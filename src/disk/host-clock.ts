/** The real clock and the real dice. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Clock, Random } from '../model/ports.ts';

/** What a timer takes at most (24.8 days); longer sleeps are several. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const hostClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),

  async sleep(ms, signal) {
    for (let left = ms; ; left -= TIMER_MS_MAX) {
      await sleepOnce(Math.min(Math.max(left, 0), TIMER_MS_MAX), signal);
      if (left <= TIMER_MS_MAX) return;
    }
  },
};

function sleepOnce(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

export const hostRandom: Random = {
  uuid: () => randomUUID(),
  bytes: (count) => randomBytes(count),
};
