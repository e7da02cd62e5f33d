/** What every VirtualDisk must do, whatever is below it. Call once per implementation, from the test beside it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Extent, VirtualDisk } from '../../src/disk/virtual-disk.ts';

export interface DiskUnderTest {
  /** At least 1 MiB, at most 16 MiB, writable. What it holds at first does not matter. */
  disk: VirtualDisk;
  /** Opens the same contents again, after `disk` (or the last reopened one) was closed. */
  reopen(): Promise<VirtualDisk>;
  /** Called once at the end; the disk is closed by then. */
  cleanup(): Promise<void>;
}

export interface SuiteOptions {
  /** A reason not to run. */
  skip?: string | false;
  /** Whether a zeroed aligned megabyte must show as `zero` in the extents. Default true. */
  zeroMakesHoles?: boolean;
  /** Runs of the property test. Default 40. */
  runs?: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

export function virtualDiskSuite(name: string, make: () => Promise<DiskUnderTest>, options: SuiteOptions = {}): void {
  const { zeroMakesHoles = true, runs = 40 } = options;
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

  const withDisk = async (work: (disk: VirtualDisk, made: DiskUnderTest) => Promise<VirtualDisk | void>): Promise<void> => {
    const made = await make();
    let disk = made.disk;
    try {
      disk = (await work(disk, made)) ?? disk;
    } finally {
      await disk.close();
      await made.cleanup();
    }
  };

  describe(`${name} as a virtual disk`, { skip: options.skip ?? false }, () => {
    test('it describes itself consistently', () => withDisk(async (disk) => {
      assert.ok(disk.virtualSize >= MIB && disk.virtualSize <= 16 * MIB && disk.virtualSize % 512 === 0);
      assert.ok([512, 4096].includes(disk.logicalSectorSize));
      assert.ok(disk.physicalSectorSize >= disk.logicalSectorSize);
      assert.equal(disk.readOnly, false);
      assert.ok(disk.location.length > 0);
      assert.deepEqual(JSON.parse(JSON.stringify(await disk.seal())), await disk.seal());
    }));

    test('a read returns what was written, at any alignment', () => withDisk(async (disk) => {
      for (const [offset, length] of unalignedRanges(disk.virtualSize)) {
        const data = pattern(length, offset + length);
        await disk.write(data, offset);
        assert.ok((await readBack(disk, offset, length)).equals(data), `${offset}+${length}`);
      }
    }));

    test('a write leaves its neighbours alone', () => withDisk(async (disk) => {
      const around = pattern(64 * KIB, 1);
      await disk.write(around, 64 * KIB);
      for (const [start, length] of [[1, 1], [511, 2], [4095, 4098], [10_000, 3], [20_000, 33_333]] as const) {
        const data = pattern(length, start);
        await disk.write(data, 64 * KIB + start);
        around.set(data, start);
      }
      assert.ok((await readBack(disk, 64 * KIB, 64 * KIB)).equals(around));
    }));

    test('where two writes overlap the later one stands', () => withDisk(async (disk) => {
      await disk.write(pattern(10_000, 1), 5000);
      await disk.write(pattern(10_000, 2), 11_111);
      const expected = Buffer.concat([pattern(10_000, 1).subarray(0, 6111), pattern(10_000, 2)]);
      assert.ok((await readBack(disk, 5000, 16_111)).equals(expected));
    }));

    test('a zeroed range reads as zeroes and its neighbours stay', () => withDisk(async (disk) => {
      const expected = pattern(256 * KIB, 3);
      await disk.write(expected, 0);
      for (const [start, length] of [[512, 512], [5000, 3], [8192, 4096], [20_001, 100_000], [131_072, 65_536]] as const) {
        await disk.zero(start, length);
        expected.fill(0, start, start + length);
      }
      assert.ok((await readBack(disk, 0, expected.length)).equals(expected));
    }));

    test('a discard reads as zeroes or does nothing, as the disk promises', () => withDisk(async (disk) => {
      const expected = pattern(256 * KIB, 4);
      await disk.write(expected, 0);
      await disk.discard(64 * KIB, 100_001);
      if (disk.discardReadsZero) expected.fill(0, 64 * KIB, 64 * KIB + 100_001);
      assert.ok((await readBack(disk, 0, expected.length)).equals(expected));
    }));

    const noHoles = zeroMakesHoles ? false : 'not promised here';
    test('a zeroed megabyte shows as a hole', { skip: noHoles }, () => withDisk(async (disk) => {
      await disk.write(pattern(disk.virtualSize, 5), 0);
      assert.deepEqual(await zeroRanges(disk), []);
      await disk.zero(0, MIB);
      await disk.flush();
      assert.deepEqual(await zeroRanges(disk), [{ offset: 0, length: MIB }]);
    }));

    test('extents cover any range in order, without gaps, and zero ones read as zeroes', () => withDisk(async (disk) => {
      await disk.zero(0, disk.virtualSize);
      for (const at of [0, 70_000, 300_000, disk.virtualSize - 5000]) await disk.write(pattern(5000, at), at);
      for (const [offset, length] of [[0, disk.virtualSize], ...unalignedRanges(disk.virtualSize)] as const) {
        await assertExtents(disk, offset, length);
      }
      assert.deepEqual(await collect(disk.extents(4096, 0)), []);
    }));

    test('a range outside of the disk is a RangeError and changes nothing', () => withDisk(async (disk) => {
      const size = disk.virtualSize;
      await disk.write(pattern(1024, 6), size - 1024);
      const refused: [number, number][] = [[size, 1], [size - 1, 2], [-1, 1], [0.5, 1], [Number.MAX_SAFE_INTEGER, 1], [NaN, 1]];
      for (const [offset, length] of refused) {
        await assert.rejects(async () => disk.read(Buffer.alloc(length), offset), RangeError);
        await assert.rejects(async () => disk.write(Buffer.alloc(length), offset), RangeError);
        await assert.rejects(async () => disk.zero(offset, length), RangeError);
        await assert.rejects(async () => collect(disk.extents(offset, length)), RangeError);
      }
      assert.ok((await readBack(disk, size - 1024, 1024)).equals(pattern(1024, 6)));
    }));

    test('nothing is done by operations of length 0, even at the very end', () => withDisk(async (disk) => {
      await disk.write(Buffer.alloc(0), disk.virtualSize);
      await disk.read(Buffer.alloc(0), disk.virtualSize);
      await disk.zero(disk.virtualSize, 0);
      await disk.discard(0, 0);
    }));

    test('what was written is there after close and reopen', () => withDisk(async (disk, made) => {
      const data = pattern(100_000, 7);
      await disk.write(data, 12_345);
      await disk.zero(40_000, 20_000);
      data.fill(0, 40_000 - 12_345, 60_000 - 12_345);
      await disk.flush();
      await disk.close();
      const again = await made.reopen();
      assert.equal(again.virtualSize, disk.virtualSize);
      assert.ok((await readBack(again, 12_345, data.length)).equals(data));
      return again;
    }));

    test('concurrent writes to disjoint ranges all arrive, even within one sector', () => withDisk(async (disk) => {
      const pieces = Array.from({ length: 200 }, (_, index) => ({ at: index * 1237, data: pattern(1237, index) }));
      await Promise.all(pieces.map(({ at, data }) => disk.write(data, at)));
      assert.ok((await readBack(disk, 0, 200 * 1237)).equals(Buffer.concat(pieces.map(({ data }) => data))));
    }));

    test(`it equals a plain buffer after any sequence of operations (SEED=${seed})`, () => withDisk(async (disk, made) => {
      let current = disk;
      const model = Buffer.alloc(disk.virtualSize);
      const reopen = async (): Promise<void> => {
        await current.close();
        current = await made.reopen();
      };
      try {
        await fc.assert(fc.asyncProperty(operations(disk.virtualSize), async (steps) => {
          await current.zero(0, current.virtualSize);
          model.fill(0);
          for (const step of steps) await perform(step, current, model, reopen);
          assert.ok((await readBack(current, 0, model.length)).equals(model), 'the whole disk');
        }), { seed, numRuns: runs });
      } catch (error) {
        await current.close().catch(() => {}); // the failure of the property is what counts
        throw error;
      }
      return current;
    }));
  });
}

type Step =
  | { kind: 'write' | 'zero' | 'discard' | 'read' | 'extents'; offset: number; length: number; fill: number }
  | { kind: 'flush' | 'reopen' };

function operations(size: number): fc.Arbitrary<Step[]> {
  // Around multiples of sector, page and block sizes, where implementations have their edges.
  const near = fc.tuple(fc.constantFrom(1, 512, 4096, 65_536, MIB), fc.nat(64), fc.integer({ min: -2, max: 2 }))
    .map(([unit, factor, shift]) => Math.min(size, Math.max(0, unit * factor + shift)));
  const kinds = fc.constantFrom('write', 'zero', 'discard', 'read', 'extents');
  const range = fc.tuple(near, near, kinds, fc.integer({ min: 1, max: 255 })).map(([a, b, kind, fill]): Step =>
    ({ kind, offset: Math.min(a, b), length: Math.min(300_000, Math.abs(a - b)), fill }));
  const other = fc.constantFrom<Step>({ kind: 'flush' }, { kind: 'flush' }, { kind: 'reopen' });
  return fc.array(fc.oneof({ weight: 9, arbitrary: range }, { weight: 1, arbitrary: other }), { minLength: 1, maxLength: 20 });
}

async function perform(step: Step, disk: VirtualDisk, model: Buffer, reopen: () => Promise<void>): Promise<void> {
  switch (step.kind) {
    case 'flush':
      return disk.flush();
    case 'reopen':
      return reopen();
    case 'write': {
      const data = pattern(step.length, step.fill);
      model.set(data, step.offset);
      return disk.write(data, step.offset);
    }
    case 'zero':
      model.fill(0, step.offset, step.offset + step.length);
      return disk.zero(step.offset, step.length);
    case 'discard':
      if (disk.discardReadsZero) model.fill(0, step.offset, step.offset + step.length);
      return disk.discard(step.offset, step.length);
    case 'read': {
      const seen = await readBack(disk, step.offset, step.length);
      return assert.ok(seen.equals(model.subarray(step.offset, step.offset + step.length)), `read ${step.offset}+${step.length}`);
    }
    case 'extents':
      return assertExtents(disk, step.offset, step.length, model);
  }
}

async function assertExtents(disk: VirtualDisk, offset: number, length: number, model?: Buffer): Promise<void> {
  let at = offset;
  for await (const extent of disk.extents(offset, length)) {
    assert.equal(extent.offset, at, `an extent begins where the last one ended (${offset}+${length})`);
    assert.ok(extent.length > 0);
    at += extent.length;
    if (extent.kind === 'data') continue;
    const bytes = model?.subarray(extent.offset, at) ?? (await readBack(disk, extent.offset, extent.length));
    assert.ok(bytes.equals(Buffer.alloc(extent.length)), `the zero extent ${extent.offset}+${extent.length} reads as zeroes`);
  }
  assert.equal(at, offset + length, `extents end where the range ends (${offset}+${length})`);
}

/** Runs of zero extents of the whole disk, joined. */
async function zeroRanges(disk: VirtualDisk): Promise<{ offset: number; length: number }[]> {
  const runs: { offset: number; length: number }[] = [];
  for await (const { offset, length, kind } of disk.extents(0, disk.virtualSize)) {
    if (kind === 'data') continue;
    const last = runs.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else runs.push({ offset, length });
  }
  return runs;
}

function unalignedRanges(size: number): [offset: number, length: number][] {
  return [[0, 1], [0, 512], [511, 2], [513, 4096], [4095, 2], [65_535, 65_538], [size - 1, 1], [size - 4097, 4097]];
}

/** Never zero, so that a hole is told from data; different for each `fill`, and at each place. */
export function pattern(length: number, fill: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at += 1) data[at] = 1 + ((at * 7 + (at >> 8) + fill * 31) % 255);
  return data;
}

export async function readBack(disk: VirtualDisk, offset: number, length: number): Promise<Buffer> {
  // What was in the buffer before must not pass for the disk's zeroes.
  const into = Buffer.alloc(length, 0xa5);
  await disk.read(into, offset);
  return into;
}

export async function collect(extents: AsyncIterable<Extent>): Promise<Extent[]> {
  const found: Extent[] = [];
  for await (const extent of extents) found.push(extent);
  return found;
}
