import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk } from '../disk/memory-disk.ts';
import {
  NBD_CHUNK, NBD_CMD, NBD_CMD_FLAG, NBD_ERRNO, decodeBlockStatus, decodeErrorChunk, decodeReplyHeader, encodeRequest,
  isMalformed, replyHeaderBytes,
} from '../disk/nbd/protocol.ts';
import { diskExport, type Done, type NbdExport } from './export.ts';
import { Inbox, SPILL } from './inbox.ts';
import { NBD_LIMITS, type NbdLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import { SlabPool } from './slab-pool.ts';
import { Transmission, type Pause } from './transmission.ts';

const KIB = 1024;
const DISK_BYTES = 1024 * KIB;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A transmission without a socket: bytes go in by pieces, replies come out when `drain` is called. */
class Bench {
  readonly pool: SlabPool;
  readonly inbox: Inbox;
  readonly outbox: Outbox;
  readonly transmission: Transmission;
  readonly failures: string[] = [];
  out = Buffer.alloc(0);
  writes = 0;
  pause: Pause = { kind: 'more' };
  #written: (() => void)[] = [];

  constructor(target: NbdExport, options: { limits?: Partial<NbdLimits>; structured?: boolean } = {}) {
    const limits = { ...NBD_LIMITS, ...options.limits };
    const structured = options.structured ?? true;
    this.pool = new SlabPool(limits.memoryBytes);
    this.inbox = new Inbox(this.pool);
    const socket = {
      write: (bytes: Uint8Array, written?: () => void) => {
        this.out = Buffer.concat([this.out, bytes]);
        this.writes += 1;
        if (written !== undefined) this.#written.push(written);
        return true;
      },
      cork: () => undefined,
      uncork: () => undefined,
    };
    this.outbox = new Outbox(socket, this.pool, (replies, bytes) => this.transmission.written(replies, bytes));
    this.transmission = new Transmission({
      target, inbox: this.inbox, outbox: this.outbox, pool: this.pool, limits,
      session: { structuredReplies: structured, blockStatus: structured },
      ended: () => undefined, onFailure: (what) => this.failures.push(what),
    });
  }

  get isOver(): boolean {
    return this.pause.kind === 'end';
  }

  /**
   * Feeds the bytes in pieces of these sizes, again and again, as a connection would: paused, it reads at most one
   * SPILL ahead.
   */
  async feed(bytes: Buffer, pieces: readonly number[]): Promise<void> {
    for (let at = 0, i = 0; at < bytes.length && !this.isOver; i += 1) {
      const target = this.pause.kind === 'wait' ? SPILL : this.inbox.target();
      await this.#settle(() => this.pause.kind === 'wait');
      if (this.isOver) return;
      const count = Math.min(bytes.length - at, pieces[i % pieces.length]!, target.length);
      bytes.copy(target, 0, at, at + count);
      at += count;
      this.inbox.accept(count, target);
      this.#pump();
    }
    await this.drain();
  }

  /** Ends everything that is under way. */
  async drain(): Promise<void> {
    const { transmission } = this;
    await this.#settle(() => transmission.executing > 0 || transmission.unanswered > 0 || this.pause.kind === 'wait');
  }

  async #settle(isBusy: () => boolean): Promise<void> {
    for (let turns = 0; isBusy(); turns += 1) {
      assert.ok(turns < 10_000, 'it hangs');
      this.outbox.flush();
      for (const written of this.#written.splice(0)) written();
      if (this.pause.kind === 'wait') this.#pump();
      await turn();
    }
  }

  #pump(): void {
    this.pause = this.transmission.pump();
    this.outbox.flush();
  }

  replies(lengthOf: (cookie: bigint) => number = () => 0): Map<bigint, { type: number; error: number; payload: Buffer }> {
    const found = new Map<bigint, { type: number; error: number; payload: Buffer }>();
    for (let at = 0; at < this.out.length;) {
      const size = replyHeaderBytes(this.out.readUInt32BE(at));
      assert.ok(size !== null, `no reply at ${at}`);
      const header = decodeReplyHeader(this.out, at);
      assert.ok(!isMalformed(header));
      at += size;
      const isSimple = header.kind === 'simple';
      const length = !isSimple ? header.length : header.error === 0 ? lengthOf(header.cookie) : 0;
      assert.ok(!found.has(header.cookie), 'one reply for each request');
      const [type, error] = isSimple ? [NBD_CHUNK.NONE, header.error] : [header.type, 0];
      found.set(header.cookie, { type, error, payload: this.out.subarray(at, at + length) });
      at += length;
    }
    return found;
  }
}

/** Ends each operation in a later turn, in an order that the numbers say: 0 at once. */
function lazy(inside: NbdExport, delays: readonly number[]): NbdExport {
  let next = 0;
  const late = async (work: () => Done): Promise<void> => {
    for (let left = delays[next++ % delays.length]!; left > 0; left -= 1) await turn();
    await work();
  };
  return {
    ...inside,
    read: (into, offset) => late(() => inside.read(into, offset)),
    write: (from, offset, flags) => late(() => inside.write(from, offset, flags)),
  };
}

/** `bad` reaches past the end of the disk. */
type Step = { write: boolean; page: number; length: number; bad: boolean };
const step: fc.Arbitrary<Step> = fc.record({
  write: fc.boolean(),
  page: fc.nat(255),
  length: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(1, 512, 4096, 10_000) }, fc.constantFrom(65_536, 65_537, 200_000)),
  bad: fc.oneof({ weight: 6, arbitrary: fc.constant(false) }, fc.constant(true)),
});

for (const structured of [true, false]) {
  const kind = structured ? 'structured' : 'simple';
  test(`any requests in any pieces, with ${kind} replies, are answered once and rightly`, async () => {
    const scenario = fc.record({
      steps: fc.array(step, { minLength: 1, maxLength: 40 }),
      pieces: fc.array(fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 300_000 })),
        { minLength: 1, maxLength: 8 }),
      delays: fc.array(fc.nat(3), { minLength: 1, maxLength: 5 }),
      memoryMib: fc.integer({ min: 1, max: 4 }),
      inFlight: fc.integer({ min: 1, max: 20 }),
    });
    await fc.assert(fc.asyncProperty(scenario, async ({ steps, pieces, delays, memoryMib, inFlight }) => {
      const plan = planned(steps);
      const disk = new MemoryDisk(DISK_BYTES);
      await disk.write(plan.before, 0);
      const limits = { memoryBytes: memoryMib * 1024 * KIB, requestsInFlight: inFlight, connectionBytes: 512 * KIB };
      const bench = new Bench(lazy(diskExport('x', disk), delays), { limits, structured });
      await bench.feed(plan.bytes, pieces);
      const replies = bench.replies((cookie) => plan.expected.get(cookie)?.data?.length ?? 0);
      assert.equal(replies.size, plan.expected.size);
      for (const [cookie, { data, isError }] of plan.expected) {
        const reply = replies.get(cookie)!;
        const failed = structured ? reply.type === NBD_CHUNK.ERROR : reply.error !== 0;
        assert.equal(failed, isError);
        if (data === undefined || isError) continue;
        assert.ok(reply.payload.subarray(structured ? 8 : 0).equals(data), `data of request ${cookie}`);
      }
      const seen = Buffer.alloc(DISK_BYTES);
      await disk.read(seen, 0);
      assert.ok(seen.equals(plan.after), 'the disk holds what was written');
      bench.inbox.dispose();
      bench.outbox.dispose();
      assert.equal(bench.pool.usedBytes, 0, 'all memory is back');
    }), { numRuns: 60 });
  });
}

/**
 * Requests that do not overlap while they differ: reads in the first half of the disk, writes in the second, later ones
 * elsewhere.
 */
function planned(steps: Step[]) {
  const half = DISK_BYTES / 2;
  const before = Buffer.alloc(half, 'what was there before');
  const after = Buffer.alloc(DISK_BYTES);
  before.copy(after);
  const expected = new Map<bigint, { data?: Buffer; isError: boolean }>();
  const bytes: Buffer[] = [];
  let end = half;
  steps.forEach(({ write, page, length, bad }, index) => {
    const cookie = BigInt(index + 1) << 33n | BigInt(index);
    const isWrite = write && (bad || end + length <= DISK_BYTES);
    const offset = bad ? DISK_BYTES - 1 : isWrite ? end : Math.min(page * 2048 + 3, half - length);
    const asked = bad ? length + 1 : length;
    bytes.push(request(isWrite ? NBD_CMD.WRITE : NBD_CMD.READ, offset, asked, 0, cookie));
    if (isWrite) bytes.push(Buffer.alloc(asked, index + 1));
    if (isWrite && !bad) after.fill(index + 1, end, (end += length));
    expected.set(cookie, isWrite || bad ? { isError: bad } : { data: before.subarray(offset, offset + length), isError: bad });
  });
  return { before, after, expected, bytes: Buffer.concat(bytes) };
}

const request = (command: number, offset: number, length: number, flags = 0, cookie = 1n) =>
  encodeRequest({ command, offset, length, flags, cookie });

test('all requests that arrive together start before any of them ends', async () => {
  const started: number[] = [];
  const gate = Promise.withResolvers<void>();
  const target = { ...diskExport('x', new MemoryDisk(DISK_BYTES)), write: (_: Uint8Array, offset: number) => {
    started.push(offset);
    return gate.promise;
  } };
  const bench = new Bench(target);
  const writes = [0, 512, 1024].map((offset) => Buffer.concat([request(NBD_CMD.WRITE, offset, 512), Buffer.alloc(512)]));
  const bytes = Buffer.concat(writes);
  bytes.copy(bench.inbox.target());
  bench.inbox.accept(bytes.length, bench.inbox.target());
  assert.equal(bench.transmission.pump().kind, 'more');
  assert.deepEqual(started, [0, 512, 1024]);
  gate.resolve();
  await bench.drain();
});

test('bytes that were answered make room for others', async () => {
  let started = 0;
  let gate = Promise.resolve();
  const target = { ...diskExport('x', new MemoryDisk(DISK_BYTES)), read: () => {
    started += 1;
    return gate;
  } };
  const bench = new Bench(target, { limits: { connectionBytes: 256 * KIB } });
  const reads = (first: bigint) => Buffer.concat([0n, 1n, 2n].map((i) => request(NBD_CMD.READ, 0, 100 * KIB, 0, first + i)));
  await bench.feed(reads(1n), [1000]);
  assert.equal(started, 3);
  const closed = Promise.withResolvers<void>();
  gate = closed.promise;
  const fed = bench.feed(reads(4n), [1000]);
  await turn();
  assert.equal(started, 5, 'two of them fit');
  closed.resolve();
  await fed;
  assert.equal(bench.replies().size, 6);
});

test('zeroing, trimming and FUA reach the export as they were asked for', async () => {
  const calls: unknown[] = [];
  const base = diskExport('x', new MemoryDisk(DISK_BYTES));
  const target: NbdExport = {
    ...base,
    write: async (from, offset, flags) => void calls.push(['write', offset, from.length, flags]),
    zero: async (offset, length, flags) => void calls.push(['zero', offset, length, flags]),
    trim: async (offset, length, flags) => void calls.push(['trim', offset, length, flags]),
    flush: async () => void calls.push(['flush']),
  };
  const bench = new Bench(target);
  const { FUA, NO_HOLE } = NBD_CMD_FLAG;
  await bench.feed(Buffer.concat([
    request(NBD_CMD.WRITE, 1, 2, FUA, 1n), Buffer.alloc(2), request(NBD_CMD.WRITE_ZEROES, 3, 4, 0, 2n),
    request(NBD_CMD.WRITE_ZEROES, 5, 6, FUA | NO_HOLE, 3n), request(NBD_CMD.TRIM, 7, 8, FUA, 4n),
    request(NBD_CMD.FLUSH, 0, 0, 0, 5n), request(NBD_CMD.CACHE, 0, 9, 0, 6n),
  ]), [1000]);
  assert.deepEqual(calls, [
    ['write', 1, 2, { fua: true }], ['zero', 3, 4, { fua: false, mayDiscard: true }],
    ['zero', 5, 6, { fua: true, mayDiscard: false }], ['trim', 7, 8, { fua: true }], ['flush'],
  ]);
  assert.deepEqual([...bench.replies().values()].map((reply) => reply.error), [0, 0, 0, 0, 0, 0]);
});

test('failures reach the client by their errno, and the log by their message', async () => {
  const rows: [string | undefined, number][] = [
    ['ENOSPC', NBD_ERRNO.ENOSPC], ['EDQUOT', NBD_ERRNO.ENOSPC], ['EFBIG', NBD_ERRNO.ENOSPC], ['EROFS', NBD_ERRNO.EPERM],
    ['EINVAL', NBD_ERRNO.EINVAL], ['EPERM', NBD_ERRNO.EPERM], ['ENOENT', NBD_ERRNO.EIO], [undefined, NBD_ERRNO.EIO],
  ];
  for (const throws of [false, true]) {
    for (const [code, number] of rows) {
      const fail = () => {
        const error = Object.assign(new Error('secret path'), code === undefined ? {} : { code });
        if (throws) throw error;
        return Promise.reject(error);
      };
      const bench = new Bench({ ...diskExport('x', new MemoryDisk(DISK_BYTES)), read: fail });
      await bench.feed(request(NBD_CMD.READ, 0, 512), [1000]);
      const chunk = decodeErrorChunk(NBD_CHUNK.ERROR, bench.replies().get(1n)!.payload);
      assert.ok(!isMalformed(chunk));
      assert.equal(chunk.error, number);
      assert.doesNotMatch(chunk.message, /secret/);
      assert.deepEqual(bench.failures, ['READ 0+512: secret path']);
    }
  }
});

test('block status describes the range that was asked for', async () => {
  const disk = new MemoryDisk(DISK_BYTES);
  await disk.write(Buffer.alloc(4096, 1), 8192);
  const bench = new Bench(diskExport('x', disk));
  await bench.feed(request(NBD_CMD.BLOCK_STATUS, 4096, 16_384), [1000]);
  const reply = bench.replies().get(1n)!;
  assert.equal(reply.type, NBD_CHUNK.BLOCK_STATUS);
  const extents = [{ length: 4096, flags: 3 }, { length: 4096, flags: 0 }, { length: 8192, flags: 3 }];
  assert.deepEqual(decodeBlockStatus(reply.payload), { contextId: 1, extents });
});

test('a refused write is answered when its payload has been dropped, and the next request is served', async () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES), { readOnly: true }));
  const write = Buffer.concat([request(NBD_CMD.WRITE, 0, 300_000), Buffer.alloc(300_000)]);
  await bench.feed(write.subarray(0, 299_999), [50_000]);
  assert.equal(bench.out.length, 0);
  await bench.feed(Buffer.concat([write.subarray(299_999), request(NBD_CMD.READ, 0, 512, 0, 2n)]), [50_000]);
  assert.deepEqual([...bench.replies().values()].map((reply) => reply.type), [NBD_CHUNK.ERROR, NBD_CHUNK.OFFSET_DATA]);
});

test('a payload that is far over the limit is refused and ends the connection', async () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES)));
  await bench.feed(request(NBD_CMD.WRITE, 0, 2 ** 31), [1000]);
  assert.equal(bench.replies().get(1n)!.type, NBD_CHUNK.ERROR);
  assert.ok(bench.pause.kind === 'end' && bench.pause.isFault);
  assert.match(bench.pause.reason, /2147483648 bytes, at most 33554432/);
});

test('hundreds of refusals at once all reach the client', async () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES)));
  const bad = Array.from({ length: 500 }, (_, i) => request(NBD_CMD.READ, DISK_BYTES, 4096, 0, BigInt(i)));
  await bench.feed(Buffer.concat(bad), [100_000]);
  assert.equal(bench.replies().size, 500);
  assert.ok(bench.writes < 10);
});

test('a client that takes no refusals is not read any further', () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES)));
  const bad = Buffer.concat(Array.from({ length: 500 }, () => request(NBD_CMD.READ, DISK_BYTES, 1)));
  bad.copy(bench.inbox.target());
  bench.inbox.accept(bad.length, bench.inbox.target());
  assert.equal(bench.transmission.pump().kind, 'wait');
  assert.equal(bench.transmission.refused, 256);
});

test('a wrong magic ends the connection after what came before it', async () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES)));
  const wrong = request(NBD_CMD.READ, 0, 512, 0, 2n);
  wrong[3]! ^= 1;
  await bench.feed(Buffer.concat([request(NBD_CMD.READ, 0, 512), wrong, request(NBD_CMD.READ, 0, 512, 0, 3n)]), [1000]);
  assert.deepEqual(bench.pause, { kind: 'end', isFault: true, reason: 'request magic 0x25609512, expected 0x25609513' });
  assert.deepEqual([...bench.replies().keys()], [1n]);
});

test('DISC ends the connection without a reply', async () => {
  const bench = new Bench(diskExport('x', new MemoryDisk(DISK_BYTES)));
  await bench.feed(request(NBD_CMD.DISC, 0, 0), [3]);
  assert.deepEqual(bench.pause, { kind: 'end', isFault: false, reason: 'the client disconnected' });
  assert.equal(bench.out.length, 0);
});

test('replies that end together leave in one write of one piece', async () => {
  const atOnce = { ...diskExport('x', new MemoryDisk(DISK_BYTES)), read: (): Done => undefined };
  const bench = new Bench(atOnce);
  const reads = Array.from({ length: 16 }, (_, i) => request(NBD_CMD.READ, 4096 * i, 4096, 0, BigInt(i)));
  await bench.feed(Buffer.concat(reads), [10_000]);
  assert.equal(bench.replies().size, 16);
  assert.equal(bench.writes, 1);
});
