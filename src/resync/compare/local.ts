/**
 * Both sides of a compare in one process: `disk compare` and `disk sync` of local disks, and the reference for tests.
 */
import { duplexPair } from 'node:stream';
import type { VirtualDisk } from '../../disk/virtual-disk.ts';
import { UnderstudyError } from '../../model/errors.ts';
import { StreamChannel } from './frame-channel.ts';
import type { CompareResult } from './frames.ts';
import type { SourceOptions } from './options.ts';
import { runSource } from './source.ts';
import { runTarget } from './target.ts';

export type LocalOptions = Omit<SourceOptions, 'disk' | 'mode' | 'session'>;

/** Locates every differing page; writes nothing. */
export function compareLocal(a: VirtualDisk, b: VirtualDisk, options: LocalOptions): Promise<CompareResult> {
  return runLocal(a, { base: b, target: b }, { ...options, mode: 'compare-only' });
}

/** Makes `target` equal to `source` and durable. */
export function syncLocal(source: VirtualDisk, target: VirtualDisk, options: LocalOptions): Promise<CompareResult> {
  return runLocal(source, { base: target, target }, { ...options, mode: 'mend' });
}

/** `base` and `target` as in `TargetOptions`. */
export async function runLocal(
  disk: VirtualDisk,
  { base, target }: { base: VirtualDisk; target: VirtualDisk },
  options: Omit<SourceOptions, 'disk'>,
): Promise<CompareResult> {
  const { compute, mode, pace } = options;
  const [near, far] = duplexPair();
  // As a socket does, and a pair does not: whoever waits until the other side has read everything must hear that it is gone.
  near.once('close', () => far.destroy());
  far.once('close', () => near.destroy());
  const [source, answer] = await Promise.allSettled([
    runSource(new StreamChannel(near, near, compute), { ...options, disk }),
    // Without the signal: the source tells it. If both said goodbye at once, each would wait for the other to read it.
    runTarget(new StreamChannel(far, far, compute), {
      base,
      target,
      allow: mode,
      compute,
      ...(pace && { pace }),
    }),
  ]);
  const failures = [source, answer].filter((side) => side.status === 'rejected').map((side) => side.reason as unknown);
  // One side's failure reaches the other as a refusal or a lost link: the one to show is the one with a cause.
  const secondHand = (error: unknown) => error instanceof UnderstudyError && error.cause === undefined;
  if (failures.length > 0) throw failures.find((error) => !secondHand(error)) ?? failures[0];
  return (source as PromiseFulfilledResult<CompareResult>).value;
}
