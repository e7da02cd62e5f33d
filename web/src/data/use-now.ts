/** The server's time, anew every few seconds: one timer for all that show an age. */
import { useSyncExternalStore } from 'react';
import { serverNow } from './live.ts';

const STEP_MS = 2000;
let now = 0;
let timer: ReturnType<typeof setInterval> | null = null;
const listeners = new Set<() => void>();

export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now || (now = serverNow()));
}

/** What is made of the time, drawn again only when that changes: hundreds of rows share the timer. */
export function useNowValue<Value extends string | number | null>(derive: (now: number) => Value): Value {
  return useSyncExternalStore(subscribe, () => derive(now || (now = serverNow())));
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = serverNow();
    for (const each of listeners) each();
  }, STEP_MS);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0 || timer === null) return;
    clearInterval(timer);
    timer = null;
  };
}
