import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { MemoryDisk } from '../../disk/memory-disk.ts';
import type { Extent } from '../../disk/virtual-disk.ts';
import { UnderstudyError } from '../../model/errors.ts';
import { FRAME } from './frames.ts';
import { compareLocal, syncLocal } from './local.ts';
import type { Decision } from './options.ts';
import type { ByteRange } from './selection.ts';
import { SEGMENT_WINDOW, segmentLeaves } from './tree-shape.ts';
import {
  DiskUnderTest,
  PAGE,
  SMALL,
  contents,
  differences,
  noise,
  plainLink,
  randomDisks,
  randomFrom,
  runPair,
  sameData,
  startPair,
  syncCompute,
} from './pair.suite.ts';

const RUNS = Number(process.env.COUNT ?? 40);
const seeds = fc.integer({ min: 1, max: 2 ** 31 });

test('a compare finds exactly the pages that differ and the first byte, and writes nothing', async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const { source, target } = await randomDisks(seed);
      const before = await contents(target);
      const expected = differences(await contents(source), before);
      const { source: result, target: echoed } = await runPair({ source, target, mode: 'compare-only' });
      assert.equal(result.differingBytes, expected.pages.length * PAGE);
      assert.equal(result.firstDifference, expected.first);
      assert.equal(result.equal, expected.pages.length === 0);
      assert.equal(result.comparedBytes, source.virtualSize);
      assert.equal(echoed.firstDifference, expected.first);
      assert.deepEqual(await contents(target), before);
      assert.deepEqual(target.written, []);
    }),
    { numRuns: RUNS },
  );
});

test('who looks on is told of every byte once, and of every differing leaf twice: found, then mended', async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const { source, target } = await randomDisks(seed);
      const truth = await contents(source);
      const told = new Map<Decision, Set<number>>();
      let bytes = 0;
      const onDecided = (decision: Decision, { offset, length }: ByteRange) => {
        const offsets = told.get(decision) ?? new Set();
        told.set(decision, offsets);
        for (let at = offset; at < offset + length; at += SMALL.leafBytes) offsets.add(at);
        if (decision !== 'differing') bytes += length;
        if (decision === 'hole') assert.ok(truth.subarray(offset, offset + length).every((byte) => byte === 0));
      };
      await runPair({ source, target, sourceOptions: { onDecided } });
      assert.equal(bytes, source.virtualSize);
      assert.deepEqual([...(told.get('mended') ?? [])].sort(), [...(told.get('differing') ?? [])].sort());
    }),
    { numRuns: RUNS },
  );
});

test('a sync makes the target equal, counts exactly, touches only differing pages and flushes', async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const { source, target } = await randomDisks(seed);
      const [truth, before] = [await contents(source), await contents(target)];
      const expected = differences(truth, before);
      const cursors: number[] = [];
      const { source: result, target: echoed } = await runPair({
        source,
        target,
        sourceOptions: { onCursor: (offset) => void cursors.push(offset) },
      });
      assert.ok(truth.equals(await contents(target)));
      assert.ok(truth.equals(await contents(source)));
      assert.equal(result.differingBytes, expected.pages.length * PAGE);
      assert.equal(result.firstDifference, expected.first);
      assert.equal(result.comparedBytes, source.virtualSize);
      assert.deepEqual({ ...echoed, wireBytes: 0 }, { ...result, wireBytes: 0 });
      assert.equal(cursors.at(-1), source.virtualSize);
      assert.ok(target.flushes > 0);
    }),
    { numRuns: RUNS },
  );
});

test('one-byte hashes, which collide all the time, still end in proven equality', async () => {
  let unproven = 0;
  let reopened = 0;
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const random = randomFrom(seed);
      const source = new MemoryDisk(4 * 2 ** 20);
      for (let page = 0; page < 1024; page++) if (random(3) === 0) await source.write(noise(random, 16), page * PAGE);
      const target = new DiskUnderTest(new MemoryDisk(4 * 2 ** 20));
      const { near } = await runPair({ source, target, sourceOptions: { nodeHashBytes: 1, pageHashBytes: 1 } });
      assert.ok((await contents(source)).equals(await contents(target)));
      unproven += near.seen.get(FRAME.unproven) ?? 0;
      reopened += Math.max(0, (near.seen.get(FRAME.segmentHashes) ?? 0) - (near.seen.get(FRAME.group) ?? 0));
    }),
    { numRuns: 30 },
  );
  assert.ok(unproven > 10, `only ${unproven} messages were unproven: the second round is not exercised`);
  assert.ok(reopened > 0, 'no group was ever opened twice: the proof of the rest is not exercised');
});

test('equal sparse disks of 8 GiB cost less than 4 KiB in both directions together', async () => {
  const disks = [new MemoryDisk(8 * 2 ** 30), new MemoryDisk(8 * 2 ** 30)] as const;
  await disks[0].write(Buffer.from('same'), 5 * 2 ** 30);
  await disks[1].write(Buffer.from('same'), 5 * 2 ** 30);
  const result = await compareLocal(...disks, { compute: syncCompute });
  assert.equal(result.equal, true);
  assert.equal(result.comparedBytes, 8 * 2 ** 30);
  assert.ok(result.wireBytes < 2048, `${result.wireBytes} bytes on the wire`);
});

test('scattered differences cost at most five percent and 64 KiB over their compressed pages', async () => {
  const random = randomFrom(77);
  const size = 512 * 2 ** 20;
  const [source, target] = [new MemoryDisk(size), new MemoryDisk(size)];
  const pages: Buffer[] = [];
  const text = Buffer.from(Array.from({ length: 3000 }, (_, at) => `line ${at * 7919} of some log\n`).join(''));
  for (let at = 0; at < size; at += 512 * 1024) {
    const offset = at + PAGE * random(64);
    const page = Buffer.concat([text.subarray(random(40_000)).subarray(0, 3072), noise(random, 1024)]);
    await source.write(page, offset);
    pages.push(page);
  }
  const result = await syncLocal(source, target, { compute: syncCompute });
  const ideal = zstdCompressSync(Buffer.concat(pages)).length;
  assert.equal(result.differingBytes, pages.length * PAGE);
  assert.ok(result.wireBytes <= 1.05 * ideal + 65536, `${result.wireBytes} bytes on the wire, zstd alone ${ideal}`);
});

test('while others wait for the thread its messages are short, whatever differs, and nothing else changes', async () => {
  const longest = async (dense: boolean, othersWait: boolean) => {
    const random = randomFrom(5);
    const [source, target] = [new MemoryDisk(8 * 2 ** 20), new MemoryDisk(8 * 2 ** 20)];
    for (let at = 0; at < source.virtualSize; at += SMALL.leafBytes) await source.write(noise(random, dense ? SMALL.leafBytes : PAGE), at);
    let most = 0;
    const { source: result } = await runPair({ source, target, sourceOptions: { othersWait: () => othersWait }, prepare: (near) => {
      near.change = (type, parts) => {
        if (type === FRAME.mend) most = Math.max(most, parts.reduce((sum, { length }) => sum + length, 0));
        return { type, parts };
      };
    } });
    assert.equal(result.sentBytes, dense ? 8 * 2 ** 20 : (8 * 2 ** 20 / SMALL.leafBytes) * PAGE);
    assert.ok((await contents(target)).equals(await contents(source)));
    return most;
  };
  const [scattered, dense] = [await longest(false, true), await longest(true, true)];
  assert.ok(scattered <= 132 * 1024, `${scattered} bytes in one message`);
  assert.ok(dense <= 516 * 1024, `${dense} bytes in one message`);
  assert.ok((await longest(false, false)) > 512 * 1024 && (await longest(true, false)) > 1000 * 1024, 'messages are long where nobody waits');
});

test('holes of the source become holes of the target, and zeroes over a hole are no difference', async () => {
  const [source, target] = [new MemoryDisk(2 ** 20), new MemoryDisk(2 ** 20)];
  const filled = Buffer.alloc(2 ** 18, 9);
  await target.write(filled, 0); // a hole in the source: zeroed without data on the wire
  await source.write(Buffer.alloc(2 ** 18), 2 ** 18); // zeroes over a hole: equal
  await source.write(filled.subarray(0, PAGE), 2 ** 19); // one page of data among zero pages in a differing leaf
  await target.write(filled.subarray(0, 8 * PAGE), 2 ** 19);
  const result = await syncLocal(source, target, { compute: syncCompute, shape: SMALL });
  assert.equal(result.differingBytes, 64 * PAGE + 7 * PAGE);
  assert.ok(result.sentBytes <= 8 * PAGE, `${result.sentBytes} bytes sent`);
  const holes: Extent[] = [];
  for await (const extent of target.extents(0, 2 ** 20)) holes.push(extent);
  assert.deepEqual(holes, [
    { offset: 0, length: 2 ** 19, kind: 'zero' },
    { offset: 2 ** 19, length: PAGE, kind: 'data' },
    { offset: 2 ** 19 + PAGE, length: 2 ** 19 - PAGE, kind: 'zero' },
  ]);
});

test('only the named ranges are compared, rounded to leaves', async () => {
  const [source, target] = [new MemoryDisk(8 * 2 ** 20), new DiskUnderTest(new MemoryDisk(8 * 2 ** 20))];
  for (let at = 0; at < 8; at++) await source.write(Buffer.alloc(10, 1), at * 2 ** 20 + 5);
  const ranges = [
    { offset: 6 * 2 ** 20, length: 2 ** 20 },
    { offset: 2 ** 20, length: 100 },
    { offset: 2 ** 20 + 50, length: 2 ** 15 },
  ];
  const { source: result } = await runPair({ source, target, sourceOptions: { ranges } });
  assert.equal(result.comparedBytes, 2 ** 20 + 2 * SMALL.leafBytes);
  assert.equal(result.differingBytes, 2 * PAGE);
  assert.deepEqual(
    target.written.map(({ offset }) => offset),
    [2 ** 20, 6 * 2 ** 20],
  );
});

test('no ranges at all is equal at once', async () => {
  const disk = new MemoryDisk(2 ** 20);
  const { source: result } = await runPair({ source: disk, target: disk, sourceOptions: { ranges: [] } });
  assert.deepEqual(
    { ...result, wireBytes: 0 },
    { comparedBytes: 0, differingBytes: 0, sentBytes: 0, wireBytes: 0, equal: true, firstDifference: null },
  );
});

test('a link cut at any message costs at most what was under way, and the cursor carries on', async () => {
  const checkpoint = 2 ** 20;
  const shape = { leafBytes: 32 * 1024, segmentNodes: 1 };
  const window = (SEGMENT_WINDOW + 1) * segmentLeaves(shape) * shape.leafBytes;
  let resumedInside = 0;
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const random = randomFrom(seed);
      const size = 96 * 2 ** 20;
      const [source, target] = [new MemoryDisk(size), new MemoryDisk(size)];
      for (let count = 0; count < 60; count++) await source.write(noise(random, 5000), random(size - 5000));
      let [cursor, compared, cuts] = [0, 0, 0];
      for (let done = false; !done;) {
        const stopAt = cuts < 6 ? 2 + random(60) : Infinity;
        let progress = 0;
        const { outcome } = startPair({
          source,
          target,
          sourceOptions: {
            cursor,
            shape,
            checkpointBytes: { compared: checkpoint, mended: checkpoint },
            onCursor: (offset) => {
              assert.ok(offset > cursor, `the cursor went from ${cursor} to ${offset}`);
              cursor = offset;
            },
            onProgress: ({ comparedBytes }) => (progress = comparedBytes),
          },
          prepare: (near) => (near.onFrame = (number) => number === stopAt && near.cut()),
        });
        const ended = await outcome;
        assert.ok(await sameData(source, target, cursor), `not equal before the cursor ${cursor}`);
        compared += progress;
        done = ended.source.status === 'fulfilled';
        if (ended.source.status === 'rejected') {
          assert.equal((ended.source.reason as UnderstudyError).code, 'COMPARE_LINK_LOST');
          assert.equal(ended.target.status, 'rejected');
          cuts++;
          if (cursor > 0) resumedInside++;
        }
      }
      assert.ok(await sameData(source, target, size));
      assert.equal(cursor, size);
      assert.ok(compared <= size + cuts * (checkpoint + window), `${compared} bytes compared with ${cuts} cuts`);
    }),
    { numRuns: 12 },
  );
  assert.ok(resumedInside > 5, `only ${resumedInside} sessions were resumed from inside`);
});

test('a guest may write during the compare: nothing is lost once its log is applied, and the proofs hold', async () => {
  let changedWhileOpen = 0;
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const { source, target } = await randomDisks(seed, 3 * 2 ** 20);
      const random = randomFrom(seed ^ 0x5eed);
      const log: { offset: number; bytes: Buffer }[] = [];
      const guestWrites = async (): Promise<void> => {
        if (random(3) !== 0) return;
        const offset = random(source.virtualSize);
        const bytes = noise(random, 1 + random(Math.min(9000, source.virtualSize - offset)));
        log.push({ offset, bytes });
        await source.inside.write(bytes, offset);
        changedWhileOpen++;
      };
      const read = async (into: Uint8Array, offset: number): Promise<void> => {
        await source.inside.read(into, offset);
        await guestWrites();
      };
      await runPair({ source, target, sourceOptions: { read } });
      for (const { offset, bytes } of log) await target.inside.write(bytes, offset);
      assert.ok((await contents(source.inside)).equals(await contents(target.inside)));
    }),
    { numRuns: RUNS },
  );
  assert.ok(changedWhileOpen > RUNS, `only ${changedWhileOpen} guest writes`);
});

test('with a diff disk in front of the base, the base is only read', async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const { source, target: overlay } = await randomDisks(seed, 2 ** 20);
      const base = new DiskUnderTest(new MemoryDisk(overlay.virtualSize));
      const before = await contents(overlay);
      await base.inside.write(before, 0);
      await runPair({ source, target: overlay, targetOptions: { base } });
      assert.deepEqual(base.written, []);
      assert.ok(before.equals(await contents(base)));
      assert.ok((await contents(source)).equals(await contents(overlay)));
    }),
    { numRuns: 20 },
  );
});

test('several compares follow one another on one channel', async () => {
  const [near, far] = plainLink();
  for (let seed = 1; seed <= 4; seed++) {
    const { source, target } = await randomDisks(seed, 2 ** 20);
    await runPair({ source, target, link: () => [near, far] });
    assert.ok((await contents(source)).equals(await contents(target)));
  }
});

test('a target that answers nothing stops the scan at the window, and not before', async () => {
  const disk = new MemoryDisk(100 * 2 ** 20);
  let scanned = 0;
  let release = (): void => {};
  const silence = new Promise<void>((resolve) => (release = resolve));
  const { outcome } = startPair({
    source: disk,
    target: disk,
    sourceOptions: { onProgress: ({ scannedBytes }) => (scanned = scannedBytes) },
    prepare: (near) => (near.hold = (type) => (type === FRAME.equal ? silence : undefined)),
  });
  for (let turns = 0; turns < 200; turns++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(scanned, 64 * 2 ** 20);
  release();
  assert.equal((await outcome).source.status, 'fulfilled');
});
