/**
 * One side of a compare: its channel, one condition that its tasks wait on, and one way to fail. Whatever goes wrong
 * first, here or on the other side, ends every task, and that error is what is thrown.
 */
import { UnderstudyError, errnoOf, messageOf } from '../../model/errors.ts';
import { decodeRefusal, encodeRefusal, FRAME } from './frames.ts';
import { malformed } from './byte-cursor.ts';
import { type Frame, type FrameChannel, linkLost } from './frame-channel.ts';

export class Conversation {
  readonly channel: FrameChannel;
  #failure: Error | null = null;
  readonly #failed = new AbortController();
  #closed: Promise<void> = Promise.resolve();
  #waiters: (() => void)[] = [];

  constructor(channel: FrameChannel) {
    this.channel = channel;
  }

  /** Aborted by the first failure: for what waits outside of the conversation. */
  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  /** Wakes everything that waits in `until`, after any change of state. */
  notify(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Resolves once `ready()` holds; rejects when the conversation has failed. */
  async until(ready: () => boolean): Promise<void> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      if (ready()) return;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** The first failure counts: the other side is told why, the channel is closed, and everything that waits rejects. */
  fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#failed.abort(error);
    this.notify();
    const silent =
      error instanceof RemoteRefusal || (error instanceof UnderstudyError && error.code === 'COMPARE_LINK_LOST');
    const last = silent ? null : { type: FRAME.refused, parts: encodeRefusal(asExpected(error)) };
    this.#closed = this.channel.close(asExpected(error), last);
  }

  /**
   * For small messages whose number the protocol bounds: never waits, so that the receiving task cannot be blocked by
   * sending.
   */
  post(type: number, parts: readonly Uint8Array[]): void {
    this.channel.send(type, parts).catch((error: unknown) => this.fail(error as Error));
  }

  async send(type: number, parts: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    await this.channel.send(type, parts);
  }

  /** The next frame; the other side's refusal and its disappearance are errors. */
  async receive(): Promise<Frame> {
    const frame = await this.channel.receive();
    if (frame === null) throw linkLost('closed by the other side');
    if (frame.type === FRAME.refused) throw new RemoteRefusal(decodeRefusal(frame.body));
    return frame;
  }

  async expect(type: number): Promise<Frame> {
    const frame = await this.receive();
    if (frame.type !== type) throw malformed(`message ${frame.type}, expected ${type}`);
    return frame;
  }

  /** Runs the whole conversation; a failure of it is thrown when the other side has been told. */
  async run<T>(signal: AbortSignal | undefined, body: () => Promise<T>): Promise<T> {
    const onAbort = () => this.fail(abortReason(signal!));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      signal?.throwIfAborted();
      const result = await body();
      if (this.#failure !== null) throw this.#failure;
      return result;
    } catch (error) {
      this.fail(error as Error);
      await this.#closed;
      throw asExpected(this.#failure ?? (error as Error));
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Resolves when all tasks have ended; the failure of one ends them all. */
  async together(tasks: readonly Promise<void>[]): Promise<void> {
    for (const task of tasks) task.catch((error: unknown) => this.fail(error as Error));
    await Promise.allSettled(tasks);
    if (this.#failure !== null) throw this.#failure;
  }
}

/** For whoever cannot even begin: the other side hears why. Harmless on a channel whose conversation has failed already. */
export function refuse(channel: FrameChannel, error: Error): Promise<void> {
  return channel.close(error, { type: FRAME.refused, parts: encodeRefusal(asExpected(error)) });
}

/** Not told back to the side it came from. */
class RemoteRefusal extends Error {
  readonly reason: UnderstudyError;

  constructor(reason: UnderstudyError) {
    super(reason.message);
    this.reason = reason;
  }
}

function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason));
}

/** A system error of a disk becomes an expected failure; a bug stays what it is. */
function asExpected(error: Error): Error {
  if (error instanceof RemoteRefusal) return error.reason;
  if (error instanceof UnderstudyError || errnoOf(error) === undefined) return error;
  return new UnderstudyError(
    'io',
    'COMPARE_DISK_FAILED',
    `a disk failed during the compare: ${messageOf(error)}`,
    'Look at the disk and its volume, then start again: the compare continues from its last checkpoint.',
    { cause: error },
  );
}
