/**
 * Peer messages that were tampered with: bodies, heads, names. fast-check draws them, so that a seed reproduces a
 * failure.
 */
import fc from 'fast-check';
import { z } from 'zod';
import type { PeerMessage } from '../../src/peer/message.ts';

export interface LogParams { vm: string; epoch: number; digest: string; disks: { id: string; bytes: number }[] }

export const PAYLOAD_MAX = 64;

/** A message like those that ship logs. */
export const logSend: PeerMessage<LogParams, { received: number }> = {
  name: 'log-send',
  params: z.object({
    vm: z.uuid(), epoch: z.int().min(0), digest: z.string().regex(/^[0-9a-f]{64}$/),
    disks: z.array(z.object({ id: z.string().min(1).max(64), bytes: z.int().min(0).max(2 ** 46) })).max(64),
  }),
  result: z.object({ received: z.int() }),
  payloadBytesMax: PAYLOAD_MAX,
  replyBytesMax: PAYLOAD_MAX,
};

export const VALID: LogParams = {
  vm: '7d444840-9dc0-41d1-b245-5ffdce74fad2', epoch: 7, digest: 'ab'.repeat(32), disks: [{ id: 'root', bytes: 4096 }],
};

/** Says what the handler relies on, without the schema under test. */
export function isSafe(params: LogParams, payload: Uint8Array): boolean {
  return Object.keys(params).sort().join() === 'digest,disks,epoch,vm'
    && /^[0-9a-f-]{36}$/i.test(params.vm) && Number.isSafeInteger(params.epoch) && params.epoch >= 0
    && /^[0-9a-f]{64}$/.test(params.digest) && Array.isArray(params.disks) && params.disks.length <= 64
    && params.disks.every(({ id, bytes }) => typeof id === 'string' && id.length <= 64 && Number.isSafeInteger(bytes))
    && Buffer.isBuffer(payload) && payload.length <= PAYLOAD_MAX;
}

export function body(json: string | Buffer, payload: Uint8Array, lengths: { json?: number; payload?: number } = {}): Buffer {
  const text = Buffer.from(json as string);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(lengths.json ?? text.length, 0);
  header.writeUInt32BE(lengths.payload ?? payload.length, 4);
  return Buffer.concat([header, text, payload]);
}

const PAYLOAD = Buffer.from('a tracking log');
export const WHOLE = body(JSON.stringify(VALID), PAYLOAD);

const strangeLength = fc.oneof(
  fc.nat({ max: 2 * WHOLE.length }), fc.constantFrom(0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 256 * 1024, 256 * 1024 + 1));
const strangeValue = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(-1, 0.5, 1e308, 2 ** 53, '', '\0', '../../etc/passwd', 'a'.repeat(10_000), [], {}, null, true,
    { __proto__: null, constructor: 1 }, Array(65).fill({ id: 'x', bytes: 0 })));

function flipped(bytes: Buffer, flips: [number, number][]): Buffer {
  const copy = Buffer.from(bytes);
  for (const [at, mask] of flips) copy[at % copy.length]! ^= mask;
  return copy;
}

function spliced(bytes: Buffer, at: number, remove: number, insert: Uint8Array): Buffer {
  const from = at % (bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, from), insert, bytes.subarray(from + remove)]);
}

const flips = fc.array(fc.tuple(fc.nat({ max: 0xffff }), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 4 });
const splice = fc.tuple(fc.nat({ max: 0xffff }), fc.nat({ max: 16 }), fc.uint8Array({ maxLength: 16 }));

/** Bodies of `log-send`, few of them still whole. */
export const mutatedBody: fc.Arbitrary<Buffer> = fc.oneof(
  flips.map((where) => flipped(WHOLE, where)),
  splice.map(([at, remove, insert]) => spliced(WHOLE, at, remove, insert)),
  fc.nat({ max: WHOLE.length - 1 }).map((length) => WHOLE.subarray(0, length)),
  fc.tuple(strangeLength, strangeLength).map(([json, payload]) => body(JSON.stringify(VALID), PAYLOAD, { json, payload })),
  fc.tuple(fc.constantFrom<keyof LogParams>('vm', 'epoch', 'digest', 'disks'), strangeValue)
    .map(([field, value]) => body(JSON.stringify({ ...VALID, [field]: value }), PAYLOAD)),
  fc.constantFrom<keyof LogParams>('vm', 'epoch', 'digest', 'disks')
    .map((field) => body(JSON.stringify({ ...VALID, [field]: undefined }), PAYLOAD)),
  strangeValue.map((value) => body(JSON.stringify(value) ?? '', PAYLOAD)),
  fc.constantFrom('{"__proto__":{"vm":1},', '{"constructor":{"prototype":{}},', '{"vm":"x",')
    .map((start) => body(start + JSON.stringify(VALID).slice(1), PAYLOAD)),
  fc.integer({ min: 1, max: 120_000 }).map((depth) => body('['.repeat(depth) + ']'.repeat(depth), PAYLOAD)),
  fc.integer({ min: PAYLOAD_MAX + 1, max: 300_000 }).map((size) => body(JSON.stringify(VALID), Buffer.alloc(size))),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => body(Buffer.from(bytes), PAYLOAD)),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
);

export const mutatedName: fc.Arbitrary<string> = fc.oneof(
  fc.constant(logSend.name),
  fc.constantFrom('', '.', '..', 'log-send/', 'LOG-SEND', '__proto__', 'constructor', 'toString', 'hello'),
  fc.string({ maxLength: 80 }));

export function headFor(bytes: Buffer): Buffer {
  return Buffer.from(`POST /peer/v1/log-send HTTP/1.1\r\nHost: replica\r\nContent-Length: ${bytes.length}\r\n\r\n`);
}

const WHOLE_HEAD = headFor(WHOLE);
const HEAD = WHOLE_HEAD.toString();
const withLine = (line: string) => HEAD.replace('Host: replica', `Host: replica\r\n${line}`);

/** Heads of an HTTP request for `log-send`, to be followed by a body. */
export const mutatedHead: fc.Arbitrary<Buffer> = fc.oneof(
  flips.map((where) => flipped(WHOLE_HEAD, where)),
  splice.map(([at, remove, insert]) => spliced(WHOLE_HEAD, at, remove, insert)),
  fc.nat({ max: WHOLE_HEAD.length - 1 }).map((length) => WHOLE_HEAD.subarray(0, length)),
  fc.tuple(
    fc.constantFrom('GET', 'PUT', 'CONNECT', 'OPTIONS', 'TRACE', 'post', 'PRI', ''),
    fc.constantFrom('/peer/v1/log-send', '/peer/v2/log-send', '/peer/v1/../v1/log-send', '/', '*', 'https://x/peer/v1/log-send',
      '/peer/v1/log-send?x=1', '/peer/v1/log%2dsend', `/peer/v1/${'a'.repeat(7000)}`),
    fc.constantFrom('HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'FTP/1.1', ''),
  ).map((line) => Buffer.from(HEAD.replace(/^[^\r]*/, line.join(' ')))),
  fc.constantFrom(
    `Content-Length: ${WHOLE.length}`, 'Content-Length: 1', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked, identity',
    'Connection: Upgrade\r\nUpgrade: understudy-stream/1', 'Connection: Upgrade\r\nUpgrade: h2c',
    'Expect: 100-continue', 'Expect: miracles',
    'Host: other', ': no name', 'No-Colon', 'Folded: a\r\n b', 'Bare: a\nb', 'Nul: a\0b', `Long: ${'x'.repeat(9000)}`,
    Array.from({ length: 100 }, (_, n) => `X-${n}: y`).join('\r\n'),
    'Connection: Upgrade\r\nUpgrade: understudy-stream/1\r\nunderstudy-params: !!!',
  ).map((line) => Buffer.from(withLine(line))),
  fc.constantFrom('-1', '1e3', '0x10', '9'.repeat(30), '', ' ', '16 16', '16,16')
    .map((length) => Buffer.from(HEAD.replace(/Content-Length: \d+/, `Content-Length: ${length}`))),
  fc.nat({ max: 2000 }).map((length) => Buffer.from(HEAD.replace(/Content-Length: \d+/, `Content-Length: ${length}`))),
  fc.constant(Buffer.from(HEAD.replaceAll('\r\n', '\n'))),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
);
