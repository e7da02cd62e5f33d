/**
 * Step 4 as the replica runs it: the base is scanned, the diff disk over it is read and written. On real files, as hashing
 * reads those.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { atEnd, type Ending } from '../../test/rig/at-end.ts';
import { openDiffDisk } from '../disk/diff-disk.ts';
import { hostClock } from '../disk/host-clock.ts';
import { hostFiles } from '../disk/host-files.ts';
import { openDisk } from '../disk/open-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import { hostCompute } from './compare/host-compute.ts';
import { runSource } from './compare/source.ts';
import { runTarget } from './compare/target.ts';

const PAGE = 4096;
const LEAF = 256 << 10;
const SIZE = 4 << 20;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const compute = hostCompute();

test('pages that are zero on the primary and not on the replica are mended through the diff disk', async (t) => {
  const primary = Buffer.alloc(SIZE, 9);
  primary.fill(0, LEAF, LEAF + 8 * PAGE);
  const { result, seen } = await compareOnce(t, primary, Buffer.alloc(SIZE, 9));
  assert.ok(seen.equals(primary));
  assert.deepEqual([result.differingBytes, result.sentBytes], [8 * PAGE, 8 * PAGE]);
});

test('only pages that differ travel, also in the second session of a compare', async (t) => {
  const replica = Buffer.alloc(SIZE, 9);
  const primary = Buffer.from(replica);
  primary.fill(7, 3 * PAGE, 5 * PAGE);
  primary.fill(0, SIZE - PAGE);
  const { result, again } = await compareOnce(t, primary, replica);
  assert.equal(result.sentBytes, 3 * PAGE);
  assert.deepEqual([again.differingBytes, again.sentBytes, again.equal], [0, 0, true]);
});

test(`whatever differs, base and diff disk together equal the primary, and the base stays as it was (SEED=${SEED})`,
  async (t) => {
  const page = fc.integer({ min: 0, max: SIZE / PAGE - 1 });
  const fills = fc.array(fc.tuple(page, fc.integer({ min: 1, max: 200 }), fc.constantFrom(0, 0, 1, 2)), { minLength: 1,
    maxLength: 12 });
  const paint = (runs: [number, number, number][]) => {
    const disk = Buffer.alloc(SIZE);
    for (const [at, count, byte] of runs) disk.fill(byte, at * PAGE, Math.min(SIZE, (at + count) * PAGE));
    return disk;
  };
  await fc.assert(fc.asyncProperty(fills, fills, async (ours, theirs) => {
    const primary = paint(ours);
    const { seen, again } = await compareOnce(t, primary, paint(theirs));
    assert.ok(seen.equals(primary));
    assert.equal(again.equal, true);
  }), { seed: SEED, numRuns: 5, endOnFailure: true });
});

async function compareOnce(t: Ending, primary: Buffer, replica: Buffer) {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-compare-'));
  atEnd(t, () => rm(folder, { recursive: true, force: true }));
  const paths = { primary: join(folder, 'primary.raw'), base: join(folder, 'base.raw'), diff: join(folder, 'base.raw.diff') };
  await writeFile(paths.primary, primary);
  await writeFile(paths.base, replica);
  const source = await open(paths.primary);
  const target = await openDiffDisk(hostFiles, paths.diff, await open(paths.base));
  const base = await open(paths.base);
  try {
    const result = await session(source, base, target);
    const again = await session(source, target, target);
    const seen = Buffer.alloc(SIZE, 0xa5);
    await target.read(seen, 0);
    const left = Buffer.alloc(SIZE);
    await base.read(left, 0);
    assert.ok(left.equals(replica), 'the base was written');
    return { result, again, seen };
  } finally {
    for (const disk of [source, base, target]) await disk.close();
  }
}

async function session(disk: VirtualDisk, base: VirtualDisk, target: VirtualDisk) {
  const [near, far] = duplexPair();
  const [result] = await Promise.all([
    runSource(new StreamChannel(near, near, compute), { disk, mode: 'mend', compute }),
    runTarget(new StreamChannel(far, far, compute), { base, target, allow: 'mend', compute }),
  ]);
  return result;
}

const open = (path: string): Promise<VirtualDisk> =>
  openDisk(path, { format: 'raw', readOnly: true, lock: false, bootIdFile: '/proc/sys/kernel/random/boot_id', clock: hostClock });
