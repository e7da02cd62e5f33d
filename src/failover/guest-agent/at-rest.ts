/**
 * The guest's file systems at rest for one instant, so that what is on its disks then needs no repair.
 *
 * Invariants
 * - A guest is never left frozen: whatever happens after the freeze was asked for, thaw is asked for, and again until the agent has said
 *   that it is done, or there is no guest any more. That a freeze may be under way is on record before it is asked for, so that a server
 *   that is killed in between thaws when it is back. That the agent thaws by itself is not assumed.
 * - The guest waits for a bounded moment: for the freeze itself, and then for the instant; whichever is late, thaw goes out.
 * - An instant counts as at rest only when the agent has confirmed both ends of it: frozen before, and still frozen after.
 */
import { errnoOf, messageOf, UnderstudyError } from '../../model/errors.ts';
import type { Clock } from '../../model/ports.ts';
import type { AgentChannel } from './agent-channel.ts';

export const SYNC_MS = 3000;
export const FREEZE_MS = 5000;
export const THAW_MS = 2000;
/** How often thawing is tried while the one who wanted the instant waits; after that it goes on behind. */
const THAW_TRIES = 3;
const THAW_AGAIN_MS = 2000;

export interface AtRestParts {
  clock: Clock;
  /** A synchronised conversation. */
  open(timeoutMs: number): Promise<AgentChannel>;
  /** Durable when it returns. */
  frozenOnRecord(frozen: boolean): void;
  /** Thawing has failed for now, or has succeeded after that. */
  thawNews(news: { thawed: boolean; reason: string }): void;
  signal: AbortSignal;
}

export interface Cut<T> {
  result: T;
  /** Null: the instant was at rest. */
  failure: string | null;
}

/** `cut` calls its argument at the instant, or never. `windowMs`: what the frozen guest may wait for it. Rejects only as `cut` does. */
export async function cutAtRest<T>(parts: AtRestParts, windowMs: number, cut: (atInstant: () => void) => Promise<T>): Promise<Cut<T>> {
  const frozen = await freeze(parts);
  if (typeof frozen === 'string') return { result: await cut(() => undefined), failure: frozen };
  const { clock } = parts;
  const timer = new AbortController();
  let instant: 'not yet' | 'frozen' | 'late' = 'not yet';
  const reached = Promise.withResolvers<void>();
  const late = clock.sleep(windowMs, timer.signal).catch(() => undefined);
  const thawing = Promise.race([reached.promise, late]).then(() => {
    if (instant === 'not yet') instant = 'late';
    return thaw(parts, frozen.channel);
  });
  try {
    const result = await cut(() => {
      if (instant === 'not yet') instant = 'frozen';
      reached.resolve();
    });
    reached.resolve();
    const thawed = await thawing;
    return { result, failure: why(instant, thawed, windowMs) };
  } finally {
    reached.resolve();
    timer.abort();
    await thawing;
  }
}

function why(instant: 'not yet' | 'frozen' | 'late', thawed: number | null, windowMs: number): string | null {
  if (instant !== 'frozen') return `the log could not be ended within ${windowMs} ms, and the guest was not to wait longer`;
  if (thawed === null) return 'the guest agent did not confirm the thaw';
  return thawed > 0 ? null : 'the guest had gone on by itself before the log ended';
}

/** The conversation in which the guest is frozen; else the reason, and then the guest is thawed, or will be. */
async function freeze(parts: AtRestParts): Promise<{ channel: AgentChannel } | string> {
  let channel: AgentChannel;
  try {
    channel = await parts.open(SYNC_MS);
  } catch (error) {
    return messageOf(error);
  }
  parts.frozenOnRecord(true);
  try {
    const count = await channel.call('guest-fsfreeze-freeze', null, FREEZE_MS);
    if (typeof count === 'number' && count > 0) return { channel };
    await thaw(parts, channel);
    return count === 0 ? 'the guest agent has found no file system to freeze' : `the guest agent answers the freeze with ${JSON.stringify(count)?.slice(0, 60)}`;
  } catch (error) {
    // Refused, late, or broken off: part of it may be frozen, or may yet be.
    await thaw(parts, channel);
    return messageOf(error);
  }
}

/** File systems that were frozen until then; null when the agent has not said it yet: then it is asked on, behind. */
async function thaw(parts: AtRestParts, channel: AgentChannel | null): Promise<number | null> {
  let reason = '';
  for (let tries = 0; tries < THAW_TRIES; tries++) {
    const outcome = await thawOnce(parts, tries === 0 ? channel : null);
    if (typeof outcome !== 'string') return outcome.thawed;
    reason = outcome;
  }
  parts.thawNews({ thawed: false, reason });
  void thawBehind(parts);
  return null;
}

/** Asks until there is nothing left to thaw: also at the start of a server that finds a freeze on record. */
export async function thawBehind(parts: AtRestParts): Promise<void> {
  const { clock, signal } = parts;
  while (!signal.aborted) {
    const outcome = await thawOnce(parts, null);
    if (typeof outcome !== 'string') return parts.thawNews({ thawed: true, reason: outcome.why });
    await clock.sleep(THAW_AGAIN_MS, signal).catch(() => undefined);
  }
}

async function thawOnce(parts: AtRestParts, channel: AgentChannel | null): Promise<{ thawed: number | null; why: string } | string> {
  let talk = channel;
  try {
    talk ??= await parts.open(SYNC_MS);
    const count = await talk.call('guest-fsfreeze-thaw', null, THAW_MS);
    if (typeof count !== 'number') return `the guest agent answers the thaw with ${JSON.stringify(count)?.slice(0, 60)}`;
    parts.frozenOnRecord(false);
    return { thawed: count, why: 'the guest agent says so' };
  } catch (error) {
    if (!isGone(error)) return messageOf(error);
    parts.frozenOnRecord(false);
    return { thawed: null, why: 'there is no guest at that socket any more' };
  } finally {
    talk?.close();
  }
}

/** QEMU itself holds the socket: where nobody listens, no guest waits. */
function isGone(error: unknown): boolean {
  if (!(error instanceof UnderstudyError)) return false;
  const errno = errnoOf(error.cause);
  return errno === 'ENOENT' || errno === 'ECONNREFUSED';
}
