/** Bodies of requests and replies: whole in memory at both ends, in slices on the way. */
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { BufferPool } from '../model/buffer-pool.ts';

/**
 * Small enough that a slow connection visibly moves: a time-out for idleness sees a write only when it is complete; and that a guest's
 * request, which comes in between, does not wait long. And large enough that slicing costs nothing that can be measured.
 */
const SLICE_BYTES = 128 * 1024;

export function lengthOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.byteLength, 0);
}

/** Writes and ends. Resolves when all was handed to the system; rejects when the connection breaks first. */
export async function writeBody(to: Writable, parts: readonly Uint8Array[]): Promise<void> {
  if (lengthOf(parts) <= SLICE_BYTES) {
    to.end(Buffer.concat(parts));
    await finished(to);
    return;
  }
  await pipeline(Readable.from(slices(parts), { objectMode: false }), to);
}

/** Each in a turn of its own: where the system takes all at once, one after another would be encrypted before anybody else is heard. */
async function* slices(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    for (let at = 0; at < part.byteLength; at += SLICE_BYTES) {
      yield part.subarray(at, at + SLICE_BYTES);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Bodies of the messages that carry data: a piece of 1 MiB and its JSON. */
const pieces = new BufferPool((1 << 20) + (16 << 10), 16);

/** For a body of `readBody` that nobody knows any more. */
export function bodyDone(body: Buffer): void {
  pieces.give(body);
}

/** The body of exactly `declared` bytes, in one buffer. Rejects when the connection breaks before its end. */
export function readBody(from: IncomingMessage, declared: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const body = pieces.take(declared);
    let filled = 0;
    from.on('data', (part: Buffer) => { filled += part.copy(body, filled); });
    from.on('end', () => resolve(body.subarray(0, filled)));
    from.on('error', reject);
    from.on('close', () => reject(new Error('the connection closed within the body')));
  });
}
