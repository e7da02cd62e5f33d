import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { usedBytes } from '../../test/rig/used-bytes.ts';
import { MemoryDisk } from '../disk/memory-disk.ts';
import {
  NBD_CHUNK, NBD_CMD, NBD_CMD_FLAG, NBD_GREETING_BYTES, NBD_OPT, NBD_OPTION_REPLY_BYTES, decodeReplyHeader, encodeClientFlags,
  encodeInfoRequest, encodeMetaRequest, encodeOption, encodeRequest, isMalformed, replyHeaderBytes,
} from '../disk/nbd/protocol.ts';
import { diskExport, type NbdExport } from './export.ts';
import { referenceSession, type SessionOutcome } from './reference-session.suite.ts';
import { rig, type Rig } from './scripted-client.suite.ts';

const NAME = 'disk';
const DISK_BYTES = 256 * 1024;
const SEED = Number(process.env['SEED'] ?? 20260);
const SESSIONS = 1000;

/** mulberry32 */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Good sessions, each with something of everything. */
function goodSessions(): Buffer[] {
  const go = encodeOption(NBD_OPT.GO, encodeInfoRequest({ name: NAME, infos: [0, 1, 2, 3] }));
  const modern = [
    encodeClientFlags(3), encodeOption(NBD_OPT.STRUCTURED_REPLY), encodeOption(NBD_OPT.LIST),
    encodeOption(NBD_OPT.LIST_META_CONTEXT, encodeMetaRequest({ name: NAME, queries: [] })),
    encodeOption(NBD_OPT.SET_META_CONTEXT,
      encodeMetaRequest({ name: NAME, queries: ['qemu:dirty-bitmap:b', 'base:allocation'] })),
    encodeOption(NBD_OPT.INFO, encodeInfoRequest({ name: NAME, infos: [] })), go,
  ];
  const old = [encodeClientFlags(0), encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from(NAME))];
  const plain = [encodeClientFlags(3), encodeOption(NBD_OPT.STARTTLS), go];
  const aborted = [encodeClientFlags(1), encodeOption(NBD_OPT.LIST), encodeOption(NBD_OPT.ABORT)];
  const whole = [modern, old, plain].map((handshake) => Buffer.concat([...handshake, goodRequests(handshake === modern)]));
  return [...whole, Buffer.concat(aborted)];
}

function goodRequests(structured: boolean): Buffer {
  let cookie = 0x0123_4567_89ab_cd00n;
  const request = (command: number, offset: number, length: number, flags = 0, payload = Buffer.alloc(0)) =>
    Buffer.concat([encodeRequest({ command, flags, cookie: (cookie += 1n), offset, length }), payload]);
  const parts = [
    request(NBD_CMD.WRITE, 4096, 600, 0, Buffer.alloc(600, 'w')), request(NBD_CMD.READ, 4000, 1000),
    request(NBD_CMD.WRITE, 100_000, 66_000, NBD_CMD_FLAG.FUA, Buffer.alloc(66_000, 'L')), request(NBD_CMD.READ, 90_000, 70_000),
    request(NBD_CMD.WRITE_ZEROES, 110_000, 5000), request(NBD_CMD.WRITE_ZEROES, 130_000, 5000, NBD_CMD_FLAG.NO_HOLE),
    request(NBD_CMD.TRIM, 4200, 100), request(NBD_CMD.FLUSH, 0, 0), request(NBD_CMD.CACHE, 0, 4096),
    request(NBD_CMD.WRITE, 0, 1, 0, Buffer.from('1')),
  ];
  if (structured) parts.push(request(NBD_CMD.BLOCK_STATUS, 0, DISK_BYTES), request(NBD_CMD.READ, 0, 512, NBD_CMD_FLAG.DF));
  return Buffer.concat([...parts, request(NBD_CMD.DISC, 0, 0)]);
}

/** Positions where bytes mean something, rather than the middle of a payload. */
function headersOf(good: Buffer): number[] {
  return [...good.keys()].filter((at) => good[at] !== good[at - 1] && good[at] !== 0x77 && good[at] !== 0x4c);
}

/** Half of the mutations hit a header. */
function mutate(good: Buffer, headers: number[], roll: (below: number) => number): Buffer {
  let bytes = Buffer.from(good);
  const splice = (at: number, dropped: number, added: Buffer) => {
    bytes = Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + dropped)]);
  };
  for (let left = 1 + roll(3); left > 0 && bytes.length > 0; left -= 1) {
    const at = Math.min(roll(2) === 0 ? headers[roll(headers.length)]! : roll(bytes.length), bytes.length - 1);
    switch (roll(7)) {
      case 0: bytes[at]! ^= 1 << roll(8); break;
      case 1: bytes[at] = roll(256); break;
      case 2: bytes = bytes.subarray(0, at); break;
      case 3: splice(at, 1 + roll(40), Buffer.alloc(0)); break;
      case 4: splice(at, 0, Buffer.from(Array.from({ length: 1 + roll(8) }, () => roll(256)))); break;
      case 5: splice(at, 0, bytes.subarray(at, at + 28)); break;
      default: bytes.fill(roll(2) === 0 ? 0xff : 0, at, Math.min(at + [1, 2, 4, 8][roll(4)]!, bytes.length)); break;
    }
  }
  return bytes;
}

/** Sends all, hangs up, and returns what came until the server closed. */
async function converse(path: string, sent: Buffer): Promise<Buffer> {
  const socket = connect({ path, allowHalfOpen: true });
  const received: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  socket.on('error', () => undefined);
  socket.on('end', () => socket.end());
  const closed = once(socket, 'close');
  await once(socket, 'connect');
  socket.write(sent);
  socket.end();
  await closed;
  return Buffer.concat(received);
}

/** Checks that exactly the expected replies came. */
function checkReplies(received: Buffer, expected: SessionOutcome): void {
  let at = NBD_GREETING_BYTES;
  while (received.length - at >= NBD_OPTION_REPLY_BYTES && received.readBigUInt64BE(at) === 0x3e889045565a9n) {
    at += NBD_OPTION_REPLY_BYTES + received.readUInt32BE(at + 16);
  }
  at += expected.attached ?? 0;
  const open = [...expected.answers];
  while (at < received.length) {
    const size = replyHeaderBytes(received.readUInt32BE(at));
    assert.ok(size !== null, `no reply at ${at} of ${received.length}`);
    const header = decodeReplyHeader(received, at);
    assert.ok(!isMalformed(header));
    const isError = header.kind === 'simple' ? header.error !== 0 : header.type === NBD_CHUNK.ERROR;
    const index = open.findIndex((answer) => answer.cookie === header.cookie && answer.isError === isError);
    assert.ok(index >= 0, `an answer nobody waits for: ${JSON.stringify({ ...header, cookie: String(header.cookie) })}`);
    const [answer] = open.splice(index, 1);
    at += size + (header.kind === 'chunk' ? header.length : answer!.bytes);
  }
  assert.deepEqual(open, [], 'requests without an answer');
}

/** Reused, as fresh memory for each session would be most of the work of this test. */
const [seen, model] = [Buffer.alloc(DISK_BYTES), Buffer.alloc(DISK_BYTES)];

/** One session on a new disk of zeroes. */
async function session(nbd: Rig, current: { disk: MemoryDisk }, sent: Buffer): Promise<SessionOutcome> {
  current.disk = new MemoryDisk(DISK_BYTES);
  nbd.lines.length = 0;
  const expected = referenceSession(sent, NAME, model.fill(0));
  const received = await converse(nbd.path, sent);
  while (nbd.server.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));
  checkReplies(received, expected);
  await current.disk.read(seen, 0);
  assert.ok(seen.equals(expected.disk), 'the disk holds what the session wrote and nothing else');
  const endings = nbd.lines.filter((line) => /^an NBD connection/.test(line.message));
  assert.equal(endings.length, 1);
  assert.notEqual(endings[0]!.fields['reason'], '');
  assert.equal(endings[0]!.level, expected.isClean ? 'info' : 'warn', String(endings[0]!.fields['reason']));
  return expected;
}

test(`${SESSIONS} mutated sessions are served or refused as the protocol says, and leave nothing (SEED=${SEED})`, async () => {
  const current = { disk: new MemoryDisk(DISK_BYTES) };
  const target = (): NbdExport => diskExport(NAME, current.disk);
  const exportOf = (name: string) => (name === NAME ? target() : undefined);
  await using nbd = await rig([{ ...target(), name: 'placeholder' }], { exportOf });
  const good = goodSessions();
  for (const bytes of good) assert.ok((await session(nbd, current, bytes)).isClean);

  const headers = good.map(headersOf);
  const roll = dice(SEED);
  const endings = { clean: 0, fault: 0, refusals: 0, unattached: 0 };
  let settled = 0;
  for (let i = 0; i < SESSIONS; i += 1) {
    const which = i % 8 === 7 ? 3 : i % 3;
    const sent = mutate(good[which]!, headers[which]!, roll);
    const outcome = await session(nbd, current, sent).catch((error: unknown) => {
      throw new Error(`session ${i} of SEED=${SEED}`, { cause: error });
    });
    endings[outcome.isClean ? 'clean' : 'fault'] += 1;
    endings.refusals += outcome.answers.filter((answer) => answer.isError).length;
    endings.unattached += outcome.attached === null ? 1 : 0;
    if (i === SESSIONS / 4) settled = await usedBytes();
  }
  const rarest = Math.min(...Object.values(endings));
  assert.ok(rarest > SESSIONS / 20, `the mutations reach every kind of ending: ${JSON.stringify(endings)}`);
  assert.equal(nbd.server.memoryBytes, 0);
  const growth = (await usedBytes()) - settled;
  assert.ok(growth < 2 * 2 ** 20, `${growth} bytes more are in use than after a quarter of the sessions`);
  for (const bytes of good) assert.ok((await session(nbd, current, bytes)).isClean, 'good clients are served as before');
});
