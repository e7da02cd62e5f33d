/** One resynchronization of a running pair, from the command to the end of the merge, and what is on record of it. */
import { callHost } from '../src/cli/client.ts';
import type { Pair } from '../test/rig/pair.ts';

const signal = new AbortController().signal;

/** Over the server's own socket, so that no start of a command is in the time; seldom, since a status costs the server a millisecond. */
export async function untilReplicating(pair: { primary: Pick<Pair['primary'], 'data'>; vm: string }, lookMs = 25): Promise<void> {
  for (;;) {
    const status = (await callHost(pair.primary.data, 'status', { name: pair.vm }, { signal })) as { state: string };
    if (status.state === 'Replicating') return;
    await new Promise((resolve) => setTimeout(resolve, lookMs));
  }
}

/** Throws when it was not of this rung, or did not end well. `sent`: bytes of pages. `lookMs`: how exact `seconds` is. */
export async function repaired(pair: Pair, rung: string, resume: { resynchronize?: true } = {}, lookMs = 25): Promise<{ seconds: number; sent: number }> {
  const began = performance.now();
  await callHost(pair.primary.data, 'resume', { name: pair.vm, ...resume }, { signal });
  await untilReplicating(pair, lookMs);
  const seconds = (performance.now() - began) / 1000;
  const past = (await callHost(pair.primary.data, 'resync.history', { name: pair.vm }, { signal })) as { rung: string; sentBytes: number; result: string }[];
  const newest = past[0]!;
  if (newest.rung !== rung || newest.result !== 'finished') throw new Error(`the resync was ${JSON.stringify(newest)}`);
  return { seconds, sent: newest.sentBytes };
}
