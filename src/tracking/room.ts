/** When the volume of a disk is full: whether the tracking logs are what fills it. */
import type { Clock } from '../model/ports.ts';
import type { TrackingPorts } from './tracking-ports.ts';

/** False also where one of the two is no file of this host, or cannot be asked. */
export async function onOneVolume({ files }: Pick<TrackingPorts, 'files'>, path: string, other: string): Promise<boolean> {
  const [one, two] = await Promise.all([path, other].map((each) => files.stat(each).catch(() => null)));
  return one?.device !== undefined && two?.kind === 'file' && one.device === two.device;
}

/** Resolves when the work has ended or the time is over, whatever comes first. */
export async function withinWait(clock: Clock, waitMs: number, work: Promise<unknown>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([work.catch(() => undefined), clock.sleep(waitMs, timer.signal).catch(() => undefined)]);
  timer.abort();
}
