import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import { encodeFrame } from './framing.ts';
import { toWire } from './peer-errors.ts';

/**
 * Answers and hangs up. What the other end is still sending is thrown away for a while: closing at once would reset the
 * connection, and the reset would overtake the answer.
 */
export function refuse(
  socket: Duplex, status: number, error: UnderstudyError, parts: { clock: Clock; limits: { lingerMs: number } },
): void {
  const [body] = encodeFrame(toWire(error), new Uint8Array(0));
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/octet-stream\r\n` +
    `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  socket.end(Buffer.concat([Buffer.from(head, 'latin1'), body]));
  socket.resume();
  const gone = new AbortController();
  socket.once('close', () => gone.abort());
  parts.clock.sleep(parts.limits.lingerMs, gone.signal).then(() => socket.destroy(), () => {});
}
