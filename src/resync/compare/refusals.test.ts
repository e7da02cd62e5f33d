import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { MemoryDisk } from '../../disk/memory-disk.ts';
import { UnderstudyError } from '../../model/errors.ts';
import { StreamChannel } from './frame-channel.ts';
import { COMPARE_VERSION, FRAME, encodeJson } from './frames.ts';
import { compareLocal } from './local.ts';
import {
  DiskUnderTest,
  PAGE,
  type PairOptions,
  SMALL,
  contents,
  differences,
  plainLink,
  randomDisks,
  randomFrom,
  startPair,
  syncCompute,
} from './pair.suite.ts';

const MUTANTS = Number(process.env.MUTANTS ?? 1000);

/** Both sides reject with an expected failure; returns the two codes. */
async function refusals(options: PairOptions): Promise<[source: string, target: string]> {
  const { source, target } = await startPair(options).outcome;
  const codes = [source, target].map((side) => {
    assert.equal(side.status, 'rejected');
    assert.ok(side.reason instanceof UnderstudyError, String((side.reason as Error).stack));
    assert.ok(side.reason.remedy.length > 10);
    return side.reason.code;
  });
  return [codes[0]!, codes[1]!];
}

const disk = (size: number, options = {}) => new DiskUnderTest(new MemoryDisk(size), options);

test('disks of different sizes are refused on both sides with both values, before anything is read', async () => {
  const [source, target] = [disk(2 ** 20), disk(2 ** 20 + 512)];
  assert.deepEqual(await refusals({ source, target }), ['DISK_SIZE_MISMATCH', 'DISK_SIZE_MISMATCH']);
  assert.deepEqual([source.reads, target.reads], [0, 0]);
  await assert.rejects(compareLocal(source, target, { compute: syncCompute }), /1048576 bytes.*1049088 bytes/);
});

test('different logical sectors are refused unless only bytes matter', async () => {
  const [source, target] = [disk(2 ** 20), disk(2 ** 20, { logicalSectorSize: 4096 })];
  assert.deepEqual(await refusals({ source, target }), ['DISK_SECTOR_MISMATCH', 'DISK_SECTOR_MISMATCH']);
  const { outcome } = startPair({ source, target, sourceOptions: { sameSectorSize: false } });
  assert.equal((await outcome).source.status, 'fulfilled');
});

test('a late session of another token or phase is refused and nothing is written', async () => {
  for (const late of [
    { token: 'old', phase: 'compare' },
    { token: 'new', phase: 'drain' },
  ]) {
    const [source, target] = [disk(2 ** 20), disk(2 ** 20)];
    await source.inside.write(Buffer.from('x'), 0);
    const codes = await refusals({
      source,
      target,
      sourceOptions: { session: late },
      targetOptions: { session: { token: 'new', phase: 'compare' } },
    });
    assert.deepEqual(codes, ['RESYNC_FENCED', 'RESYNC_FENCED']);
    assert.deepEqual(target.written, []);
  }
});

test('a resync that has moved on stops the writes of the session before', async () => {
  const [source, target] = [disk(4 * 2 ** 20), disk(4 * 2 ** 20)];
  for (let at = 0; at < 4; at++) await source.inside.write(Buffer.alloc(PAGE, 1), at * 2 ** 20);
  const moved = new UnderstudyError('state', 'RESYNC_FENCED', 'phase merge has begun', 'Nothing to do here.');
  let writes = 0;
  const admit = () => {
    if (writes++ >= 2) throw moved;
  };
  assert.deepEqual(await refusals({ source, target, targetOptions: { admit } }), ['RESYNC_FENCED', 'RESYNC_FENCED']);
  assert.equal(target.written.length, 2);
});

test('a target that may only be compared is never changed, and neither is one that is open read-only', async () => {
  const source = disk(2 ** 20);
  await source.inside.write(Buffer.from('x'), 0);
  const target = disk(2 ** 20);
  assert.deepEqual(await refusals({ source, target, targetOptions: { allow: 'compare-only' } }), [
    'DISK_READ_ONLY',
    'DISK_READ_ONLY',
  ]);
  assert.deepEqual(await refusals({ source, target: disk(2 ** 20, { readOnly: true }) }), [
    'DISK_READ_ONLY',
    'DISK_READ_ONLY',
  ]);
  assert.deepEqual(target.written, []);
});

test('a source of another version is refused with both versions', async () => {
  const hello = encodeJson({ protocol: 'understudy-compare', version: 1, colour: 'unknown' });
  const change = (type: number, parts: readonly Uint8Array[]) => ({
    type,
    parts: type === FRAME.hello ? hello : parts,
  });
  const codes = await refusals({ source: disk(512), target: disk(512), prepare: (near) => (near.change = change) });
  assert.deepEqual(codes, ['COMPARE_VERSION_MISMATCH', 'COMPARE_VERSION_MISMATCH']);
});

test('a disk that fails ends both sides with its error', async () => {
  for (const failing of ['source', 'target'] as const) {
    const { source, target } = { source: disk(2 ** 20), target: disk(2 ** 20) };
    await source.inside.write(Buffer.from('a'), 5000);
    await target.inside.write(Buffer.from('b'), 5000);
    const broken = { source, target }[failing];
    broken.read = () => Promise.reject(Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' }));
    assert.deepEqual(await refusals({ source, target }), ['COMPARE_DISK_FAILED', 'COMPARE_DISK_FAILED']);
  }
});

test('a target whose disk forgets what is written is told apart after the leaf was sent whole', async () => {
  const [source, target] = [disk(2 ** 20), disk(2 ** 20)];
  await source.inside.write(Buffer.alloc(PAGE, 1), 8 * PAGE);
  target.write = async () => {};
  const codes = await refusals({ source, target });
  assert.deepEqual(codes, ['COMPARE_NOT_PROVEN', 'COMPARE_NOT_PROVEN']);
});

test('an abort ends both sides, and its reason is what the caller sees', async () => {
  const stop = new AbortController();
  const [source, target] = [disk(64 * 2 ** 20), disk(64 * 2 ** 20)];
  await source.inside.write(Buffer.from('x'), 0);
  const { outcome } = startPair({
    source,
    target,
    sourceOptions: { signal: stop.signal, onProgress: () => stop.abort(new Error('the user has had enough')) },
  });
  const ended = await outcome;
  assert.equal(ended.source.status === 'rejected' && ended.source.reason.message, 'the user has had enough');
  assert.equal(ended.target.status, 'rejected');
});

/** A link that changes one byte, somewhere, in one direction, and ends when nothing moves any more. */
function damagedLink(seed: number): {
  link: () => [StreamChannel, StreamChannel];
  damaged: () => boolean;
  watch: () => Promise<void>;
} {
  const random = randomFrom(seed);
  const [a, aEnd] = duplexPair();
  const [b, bEnd] = duplexPair();
  let left = random(400);
  let damaged = false;
  let moved = 0;
  const forward = random(2) === 0;
  const carry = (from: typeof a, to: typeof a, damage: boolean) => {
    from.on('data', (chunk: Buffer) => {
      moved++;
      if (damage && !damaged && left < chunk.length) {
        chunk = Buffer.from(chunk);
        chunk[left] = chunk[left]! ^ (1 + random(255));
        damaged = true;
      }
      left -= damage ? chunk.length : 0;
      if (!to.destroyed && !to.writableEnded) to.write(chunk);
    });
    from
      .on('end', () => to.end())
      .on('close', () => to.destroy())
      .on('error', () => to.destroy());
  };
  carry(aEnd, bEnd, forward);
  carry(bEnd, aEnd, !forward);
  return {
    link: () => [new StreamChannel(a, a, syncCompute), new StreamChannel(b, b, syncCompute)],
    damaged: () => damaged,
    // A damaged length makes one side wait for bytes that never come; a real transport's time-out ends that.
    async watch() {
      for (let seen = -1, still = 0; still < 60; still = seen === moved ? still + 1 : 0) {
        seen = moved;
        await new Promise((resolve) => setImmediate(resolve));
      }
      aEnd.destroy();
      bEnd.destroy();
    },
  };
}

const EXPECTED = new Set(['COMPARE_FRAME_MALFORMED', 'COMPARE_LINK_LOST', 'COMPARE_VERSION_MISMATCH']);

test(`${MUTANTS / 2} streams with one damaged byte are refused clearly, and nothing wrong is written`, async () => {
  let refused = 0;
  for (let seed = 1; seed <= MUTANTS / 2; seed++) {
    const { source, target } = await randomDisks(seed, 2 ** 20);
    const [truth, before] = [await contents(source), await contents(target)];
    const { link, damaged, watch } = damagedLink(seed);
    const pair = startPair({ source, target, link });
    const [ended] = await Promise.all([pair.outcome, watch()]);
    for (const side of [ended.source, ended.target]) {
      if (side.status === 'fulfilled') continue;
      assert.ok(side.reason instanceof UnderstudyError, `seed ${seed}: ${String((side.reason as Error).stack)}`);
      assert.ok(EXPECTED.has(side.reason.code), `seed ${seed}: ${side.reason.code}: ${side.reason.message}`);
    }
    if (damaged()) {
      refused++;
      assert.ok(
        [ended.source, ended.target].some(({ status }) => status === 'rejected'),
        `seed ${seed}: nobody noticed`,
      );
    } else assert.equal(ended.source.status, 'fulfilled', `seed ${seed}`);
    // Each page is what it was or what it should become, never anything else.
    const after = await contents(target);
    for (const page of differences(before, after).pages) {
      const at = page * PAGE;
      assert.ok(after.subarray(at, at + PAGE).equals(truth.subarray(at, at + PAGE)), `seed ${seed}: page ${page}`);
    }
  }
  assert.ok(refused > MUTANTS / 4, `only ${refused} streams were damaged`);
});

test(`${MUTANTS / 2} well-sealed messages of a source gone wrong are refused or proven wrong`, async () => {
  let refused = 0;
  for (let seed = 1; seed <= MUTANTS / 2; seed++) {
    const random = randomFrom(seed * 31);
    const { source, target } = await randomDisks(seed, 2 ** 20);
    const truth = await contents(source);
    let countdown = random(14);
    const { link, watch } = damagedLink(1);
    const pair = startPair({
      source,
      target,
      link: () => (random(2) === 0 ? plainLink() : link()),
      prepare: (near) => {
        near.change = (type, parts) => {
          if (countdown-- !== 0) return { type, parts };
          const body = Buffer.concat(parts);
          const kind = random(4);
          if (kind === 0) return { type: random(32), parts: [body] };
          if (kind === 1) return { type, parts: [body.subarray(0, random(body.length + 1))] };
          if (kind === 2) return { type, parts: [body, Buffer.alloc(1 + random(9), random(256))] };
          if (body.length > 0) body[random(body.length)]! ^= 1 + random(255);
          return { type, parts: [body] };
        };
      },
    });
    const [ended] = await Promise.all([pair.outcome, watch(), idle(pair.near, pair.far)]);
    for (const side of [ended.source, ended.target]) {
      if (side.status === 'fulfilled') continue;
      assert.ok(side.reason instanceof UnderstudyError, `seed ${seed}: ${String((side.reason as Error).stack)}`);
    }
    if (ended.source.status === 'rejected') refused++;
    assert.ok(truth.equals(await contents(source)), `seed ${seed}: the source was changed`);
    if (ended.target.status === 'fulfilled' && ended.source.status === 'fulfilled') {
      assert.ok(truth.equals(await contents(target)), `seed ${seed}: called equal and is not`);
    }
  }
  assert.ok(refused > MUTANTS / 8, `only ${refused} were refused`);
});

/**
 * Cuts the link when no message has moved for a while: a side that waits for a message that was turned into another.
 */
async function idle(near: { frames: number; cut(): void }, far: { frames: number; cut(): void }): Promise<void> {
  for (let seen = -1, still = 0; still < 60; still = seen === near.frames + far.frames ? still + 1 : 0) {
    seen = near.frames + far.frames;
    await new Promise((resolve) => setImmediate(resolve));
  }
  near.cut();
  far.cut();
}

test('a source that says it is done while leaves differ is not believed', async () => {
  const [source, target] = [disk(2 ** 20), disk(2 ** 20)];
  await source.inside.write(Buffer.from('x'), 0);
  const claim = {
    comparedBytes: 2 ** 20,
    differingBytes: 0,
    sentBytes: 0,
    wireBytes: 0,
    equal: true,
    firstDifference: null,
  };
  const change = (type: number, parts: readonly Uint8Array[]) =>
    type === FRAME.open ? { type: FRAME.done, parts: encodeJson(claim) } : { type, parts };
  const codes = await refusals({ source, target, prepare: (near) => (near.change = change) });
  assert.deepEqual(codes, ['COMPARE_FRAME_MALFORMED', 'COMPARE_FRAME_MALFORMED']);
});

test('a message beyond its bound is refused before it is read', async () => {
  const [a, b] = duplexPair();
  const channel = new StreamChannel(b, b, syncCompute);
  const header = Buffer.alloc(4);
  header.writeUInt32BE(FRAME.mend * 2 ** 24 + 0xff_ff_ff);
  a.write(header);
  await assert.rejects(channel.receive(), { code: 'COMPARE_FRAME_MALFORMED', message: /16777215 bytes/ });
});

test('large messages keep their bytes while a stream in memory holds on to them, and a body until it is released', async () => {
  const [a, b] = duplexPair();
  const held: Buffer[] = [];
  const [c, d] = duplexPair();
  b.on('data', (chunk: Buffer) => held.push(chunk));
  const [sender, receiver] = [new StreamChannel(a, a, syncCompute), new StreamChannel(d, d, syncCompute)];
  for (let value = 1; value <= 6; value++) await sender.send(FRAME.mend, [Buffer.alloc(200_000, value)]);
  for (const chunk of held) c.write(chunk);
  const frames = [];
  for (let value = 1; value <= 6; value++) {
    const frame = await receiver.receive();
    frames.push(frame!);
    if (value % 2 === 0) frame!.release!();
  }
  for (const index of [0, 2, 4]) assert.ok(frames[index]!.body.equals(Buffer.alloc(200_000, index + 1)));
});

test('repeated and reordered messages are refused by their seals', async () => {
  const [a, b] = duplexPair();
  const sender = new StreamChannel(a, a, syncCompute);
  void sender.send(FRAME.agreed, [Buffer.from([1])]);
  void sender.send(FRAME.agreed, [Buffer.from([2])]);
  const bytes: Buffer[] = [];
  b.on('data', (chunk: Buffer) => bytes.push(chunk));
  await new Promise((resolve) => setImmediate(resolve));
  const all = Buffer.concat(bytes);
  const [first, second] = [all.subarray(0, 13), all.subarray(13)];
  for (const wrong of [[first, first], [second, first], [second]]) {
    const [c, d] = duplexPair();
    const receiver = new StreamChannel(d, d, syncCompute);
    c.end(Buffer.concat(wrong));
    const received = async () => {
      for (let count = 0; count < wrong.length; count++) await receiver.receive();
    };
    await assert.rejects(received(), { code: 'COMPARE_FRAME_MALFORMED', message: /seal/ });
  }
});

test('the shape of the tree is bounded', async () => {
  for (const shape of [
    { leafBytes: 512 * 1024, segmentNodes: 1 },
    { leafBytes: 40_000, segmentNodes: 1 },
    { leafBytes: 65536, segmentNodes: 65 },
  ]) {
    const hello = {
      protocol: 'understudy-compare',
      version: COMPARE_VERSION,
      token: '',
      phase: '',
      mode: 'mend',
      virtualSize: 512,
      logicalSectorSize: 512,
    };
    const parts = encodeJson({
      ...hello,
      sameSectorSize: true,
      ...shape,
      nodeHashBytes: 2,
      pageHashBytes: 2,
      ranges: null,
    });
    const change = (type: number, was: readonly Uint8Array[]) => ({ type, parts: type === FRAME.hello ? parts : was });
    const codes = await refusals({
      source: disk(512),
      target: disk(512),
      sourceOptions: { shape: SMALL },
      prepare: (near) => (near.change = change),
    });
    assert.deepEqual(codes, ['COMPARE_FRAME_MALFORMED', 'COMPARE_FRAME_MALFORMED']);
  }
});
