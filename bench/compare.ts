/**
 * How fast are two nearly equal disks compared and made equal, and what crosses the wire? One run makes the images of
 * the recipe (58 % random data in runs of 8 to 64 MiB, the rest holes, fixed seed), measures `b3sum` and `rsync` on
 * them, then the compare engine with both sides in one process, and prints ratios. Warm page cache, no fsync asked of
 * the others.
 *
 * usage: node bench/compare.ts [--gib 4] [--rounds 3] [--folder DIR] [--json]
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openRawDisk } from '../src/disk/raw-disk.ts';
import { hostCompute } from '../src/resync/compare/host-compute.ts';
import { compareLocal, syncLocal } from '../src/resync/compare/local.ts';
import { differences, makeDifferent, makeImage, zstdOfDifferences, type Difference, type Runs } from './images.ts';
import { median, record } from './record.ts';

const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '3' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const size = Math.round(Number(values.gib) * 2 ** 30);
const rounds = Number(values.rounds);

async function timed(work: () => Promise<void> | void): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

async function main(): Promise<void> {
  const folder = mkdtempSync(join(values.folder, 'understudy-bench-'));
  const [source, target] = [join(folder, 'source.img'), join(folder, 'target.img')];
  const rows: Record<string, number | string | null>[] = [];
  try {
    const runs = makeImage(source, size);
    for (const difference of differences(size)) {
      rows.push(await measure(source, target, runs, difference));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (values.json === true) console.log(JSON.stringify({ size, rows }));
  else record({
    question: 'The compare engine alone, both sides in one process',
    command: `node bench/compare.ts --gib ${values.gib} --rounds ${values.rounds}`,
    columns: Object.keys(rows[0]!), rows: rows.map((row) => Object.values(row).map((value) => value ?? 'absent')),
  });
}

async function measure(source: string, target: string, runs: Runs, difference: Difference) {
  const compute = hostCompute();
  const remake = () => {
    execFileSync('cp', ['--sparse=always', source, target]);
    return makeDifferent(target, runs, difference);
  };
  const differing = remake();
  const zstd = zstdOfDifferences(source, target, size);
  const samples = { b3sum: [] as number[], rsync: [] as number[], compare: [] as number[], sync: [] as number[] };
  let wire = 0;
  for (let round = 0; round < rounds; round++) {
    if (has('b3sum')) samples.b3sum.push(await timed(() => void execFileSync('b3sum', [source, target])));
    samples.compare.push(
      await timed(async () => {
        const [a, b] = await Promise.all(
          [source, target].map((path) => openRawDisk(path, { readOnly: true, lock: false })),
        );
        const result = await compareLocal(a!, b!, { compute });
        assert.equal(result.differingBytes, differing);
        await Promise.all([a!.close(), b!.close()]);
      }),
    );
    samples.sync.push(
      await timed(async () => {
        const a = await openRawDisk(source, { readOnly: true, lock: false });
        const b = await openRawDisk(target, { readOnly: false, lock: false });
        const result = await syncLocal(a, b, { compute });
        assert.equal(result.differingBytes, differing);
        wire = result.wireBytes;
        await Promise.all([a.close(), b.close()]);
      }),
    );
    execFileSync('cmp', [source, target]);
    makeDifferent(target, runs, difference);
    if (has('rsync')) {
      const rsync = ['-I', '--inplace', '--no-whole-file', source, target];
      samples.rsync.push(await timed(() => void execFileSync('rsync', rsync)));
      makeDifferent(target, runs, difference);
    }
  }
  const seconds = Object.fromEntries(
    Object.entries(samples).map(([name, taken]) => [name, taken.length === 0 ? null : median(taken)]),
  );
  const ratio = (value: number | null, to: number | null) =>
    value === null || to === null ? null : Number((value / to).toFixed(3));
  return {
    difference: difference.name,
    b3sumSeconds: ratio(seconds.b3sum!, 1),
    rsyncSeconds: ratio(seconds.rsync!, 1),
    compareSeconds: ratio(seconds.compare!, 1),
    syncSeconds: ratio(seconds.sync!, 1),
    compareToB3sum: ratio(seconds.compare!, seconds.b3sum!),
    syncToB3sum: ratio(seconds.sync!, seconds.b3sum!),
    syncToRsync: ratio(seconds.sync!, seconds.rsync!),
    wireBytes: wire,
    zstdBytes: zstd,
    wireToZstd: ratio(Math.max(0, wire - 65536), zstd === 0 ? null : zstd),
  };
}

await main();
