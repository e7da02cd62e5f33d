/**
 * One timer for all VMs of a host that are to be looked at once a second: five hundred timers of their own, with what it takes to wait for
 * each and to be woken, cost more than all else that quiet VMs do.
 */
import type { Clock } from '../model/ports.ts';

const SECOND_MS = 1000;
const NOBODY_LOOKS = new Error('nobody looks any more');

interface Watch {
  looks: Set<() => void>;
  stop: AbortController;
}

const watches = new WeakMap<object, Watch>();

/** Calls `look` once a second until the returned function is called. `ports`: the host's; `look` does not throw. */
export function everySecond(ports: { clock: Clock }, look: () => void): () => void {
  let watch = watches.get(ports);
  if (watch === undefined) {
    watch = { looks: new Set(), stop: new AbortController() };
    watches.set(ports, watch);
    void run(ports.clock, watch);
  }
  const { looks, stop } = watch;
  // A function of its own for each, so that whoever looks twice also stops twice.
  const own = () => look();
  looks.add(own);
  return () => {
    if (!looks.delete(own) || looks.size > 0) return;
    watches.delete(ports);
    stop.abort(NOBODY_LOOKS);
  };
}

async function run(clock: Clock, { looks, stop }: Watch): Promise<void> {
  try {
    while (!stop.signal.aborted) {
      await clock.sleep(SECOND_MS, stop.signal);
      for (const look of looks) look();
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  }
}
