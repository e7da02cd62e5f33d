/**
 * The body of every request and reply:
 *
 * | offset | bytes | what                              |
 * |--------|-------|-----------------------------------|
 * | 0      | 4     | length of the JSON, big-endian    |
 * | 4      | 4     | length of the payload, big-endian |
 * | 8      | …     | JSON, UTF-8                       |
 * | …      | …     | payload                           |
 *
 * Nothing may follow. Both lengths are there so that a body cut short is never taken for a whole one.
 */
import { JSON_BYTES_MAX } from './message.ts';

export const FRAME_HEADER_BYTES = 8;

export type Frame = { json: unknown; payload: Buffer };
export type Malformed = { malformed: string };

/** The bytes of a frame as buffers to be written one after another; the payload is not copied. */
export function encodeFrame(json: unknown, payload: Uint8Array): [Buffer, Uint8Array] {
  const text = JSON.stringify(json);
  const jsonBytes = Buffer.byteLength(text);
  const head = Buffer.allocUnsafe(FRAME_HEADER_BYTES + jsonBytes);
  head.writeUInt32BE(jsonBytes, 0);
  head.writeUInt32BE(payload.byteLength, 4);
  head.write(text, FRAME_HEADER_BYTES);
  return [head, payload];
}

/**
 * Decodes a whole body; never throws. The payload shares memory with `bytes`. `payloadMax` is what the message
 * declares.
 */
export function decodeFrame(bytes: Uint8Array, payloadMax: number): Frame | Malformed {
  const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (body.length < FRAME_HEADER_BYTES) {
    return { malformed: `${body.length} bytes are fewer than the ${FRAME_HEADER_BYTES} of a header` };
  }
  const jsonBytes = body.readUInt32BE(0);
  const payloadBytes = body.readUInt32BE(4);
  if (jsonBytes > JSON_BYTES_MAX) return { malformed: `JSON of ${jsonBytes} bytes, at most ${JSON_BYTES_MAX} are allowed` };
  if (payloadBytes > payloadMax) return { malformed: `payload of ${payloadBytes} bytes, at most ${payloadMax} are allowed` };
  const declared = FRAME_HEADER_BYTES + jsonBytes + payloadBytes;
  if (declared !== body.length) return { malformed: `the header declares ${declared} bytes, ${body.length} came` };
  const payloadAt = FRAME_HEADER_BYTES + jsonBytes;
  const json = parseJson(body.subarray(FRAME_HEADER_BYTES, payloadAt));
  if (json === undefined) return { malformed: `its ${jsonBytes} bytes of JSON cannot be parsed` };
  return { json, payload: body.subarray(payloadAt) };
}

/** Undefined when the bytes are not JSON in valid UTF-8; `undefined` itself is no JSON value. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
