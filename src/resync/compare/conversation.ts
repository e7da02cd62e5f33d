/**
 * One side of a compare: its channel, one condition that its tasks wait on, and one way to fail. Whatever goes wrong first, here
 * or on the other side, ends every task, and the error that is thrown is that one.
 */
import { UnderstudyError, errnoOf, messageOf } from '../../model/errors.ts';
import { decodeRefusal, encodeRefusal, FRAME } from './frames.ts';
import { malformed } from './byte-cursor.ts';
import { type Frame, type FrameChannel, linkLost } from './frame-channel.ts';

export class Conversation {
  readonly channel: FrameChannel;
  #failure: Error | null = null;
  #waiters: (() => void)[] = [];

  constructor(channel: FrameChannel) {
    this.channel = channel;
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

  fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.notify();
  }

  /** For small messages whose number the protocol bounds: never waits, so that the receiving task cannot be blocked by sending. */
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

  /**
   * Runs the tasks to their end. After a failure the other side is told why, the channel is closed, and all tasks are waited for
   * before the error is thrown.
   */
  async run<T>(signal: AbortSignal | undefined, tasks: () => readonly Promise<T>[]): Promise<void> {
    const onAbort = () => this.#end(abortReason(signal!));
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const running = this.#failure === null ? tasks() : [];
      for (const task of running) task.catch((error: unknown) => this.#end(error as Error));
      await Promise.allSettled(running);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    if (this.#failure === null) return;
    await this.#closed;
    throw asExpected(this.#failure);
  }

  #closed: Promise<void> = Promise.resolve();

  #end(error: Error): void {
    if (this.#failure === null) this.#failure = error;
    this.notify();
    // Once: the first failure of any task is the one that counts, also when `fail` has recorded it before.
    if (this.#ended) return;
    this.#ended = true;
    const first = this.#failure;
    const silent = first instanceof RemoteRefusal || (first instanceof UnderstudyError && first.code === 'COMPARE_LINK_LOST');
    this.#closed = this.channel.close(asExpected(first), silent ? null : { type: FRAME.refused, parts: encodeRefusal(asExpected(first)) });
  }

  #ended = false;
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
