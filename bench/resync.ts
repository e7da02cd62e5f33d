/**
 * How long does a whole resynchronization take: two servers over TLS on loopback, from the command to the end of the merge? A disk of the
 * recipe (images.ts) is replicated; then replication is suspended, some of it is written anew through the guest's NBD, and the VM is
 * resynchronized by a full compare. Beside it on the same two files `b3sum` of both, `rsync` with its own choice of checksum (xxHash, which
 * proves nothing to who can choose the data) and with the fastest cryptographic one it has, and what is left of the work when all
 * that a design may leave out is left out (bare-side.ts). The initial copy is timed too.
 *
 *   node bench/resync.ts [--gib 4] [--rounds 3]       b3sum and rsync are left out where they are absent
 */
import { execFileSync, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { callHost } from '../src/cli/client.ts';
import { hostClock } from '../src/disk/host-clock.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import { Pair } from '../test/rig/pair.ts';
import { changes, differences, makeDifferent, makeImage, type Difference, type Runs } from './images.ts';
import type { BareWork } from './bare-side.ts';
import { median, record, spread } from './record.ts';
import { repaired, untilReplicating } from './repairs.ts';

const { values } = parseArgs({ options: { gib: { type: 'string', default: '4' }, rounds: { type: 'string', default: '3' } } });
const SIZE = Math.round(Number(values.gib) * 2 ** 30);
const ROUNDS = Number(values.rounds);
const cleanups: (() => unknown)[] = [];
const signal = new AbortController().signal;
const rsync = (from: string, to: string, more: readonly string[]) =>
  void execFileSync('rsync', ['-I', '--inplace', '--no-whole-file', ...more, from, to]);
const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function rewrite(uri: string, runs: Runs, difference: Difference, seed: number): Promise<void> {
  const disk = await openDisk(uri, { readOnly: false, lock: false, clock: hostClock });
  for (const { offset, data } of changes(runs, difference, seed)) await disk.write(data, offset);
  await disk.flush();
  await disk.close();
}

async function resynchronized(pair: Pair, uri: string, runs: Runs, difference: Difference, seed: number): Promise<{ seconds: number; sent: number }> {
  await pair.primary.json('suspend', pair.vm);
  await rewrite(uri, runs, difference, seed);
  return repaired(pair, 'full-compare', { resynchronize: true });
}

/** Two programs that do nothing but the least, side by side, on the files after they were made equal: they write what is there. */
async function bare(source: string, target: string, aside: string, work: BareWork): Promise<number> {
  const sides = [['source', source, aside], ['target', target, aside]].map((words) => fork(join(import.meta.dirname, 'bare-side.ts'), words));
  try {
    await Promise.all(sides.map((side) => once(side, 'message')));
    return await timed(async () => {
      const done = sides.map((side) => once(side, 'message'));
      for (const side of sides) side.send(work);
      await Promise.all(done);
    });
  } finally {
    for (const side of sides) side.kill();
    rmSync(aside, { force: true });
  }
}

try {
  const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) }, { sizes: [SIZE], frequencySec: 900 });
  const runs = makeImage(pair.disks[0]!, SIZE);
  const dataBytes = runs.reduce((sum, [, count]) => sum + count, 0) * 2 ** 20;
  await pair.primary.json('vm', 'attach', pair.vm);
  const initial = await timed(async () => {
    await callHost(pair.primary.data, 'start', { name: pair.vm }, { signal });
    await untilReplicating(pair);
  });
  const [uri] = await pair.uris();
  const target = join(pair.folder, 'peer.img');
  execFileSync('cp', ['--sparse=always', pair.disks[0]!, target]);
  const rows: (string | number)[][] = [];
  for (const difference of differences(SIZE)) {
    const taken = { ours: [] as number[], b3sum: [] as number[], bare: [] as number[], rsync: [] as number[], sha1: [] as number[] };
    let sent = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const ours = await resynchronized(pair, uri!, runs, difference, 7 + round);
      taken.ours.push(ours.seconds);
      sent = ours.sent;
      await pair.primary.json('sync-now', pair.vm);
      const offsets = [...changes(runs, difference, 7 + round)].map(({ offset }) => offset).toSorted((a, b) => a - b);
      taken.bare.push(await bare(pair.disks[0]!, pair.replicaPath(0), join(pair.folder, 'aside'), { runs, offsets, bytes: difference.bytes, size: SIZE }));
      if (has('b3sum')) taken.b3sum.push(await timed(() => void execFileSync('b3sum', [pair.disks[0]!, pair.replicaPath(0)])));
      if (!has('rsync')) continue;
      rsync(pair.disks[0]!, target, []);
      for (const [kind, ...choice] of [['rsync'], ['sha1', '--checksum-choice=sha1']] as const) {
        makeDifferent(target, runs, difference);
        taken[kind].push(await timed(() => rsync(pair.disks[0]!, target, choice)));
      }
    }
    await pair.compare();
    // Round by round: the machine is not equally fast in all of them.
    const ratio = (to: number[], of = taken.ours) =>
      (to.length === 0 ? 'absent' : `${median(of.map((seconds, round) => seconds / to[round]!)).toFixed(2)} ×`);
    rows.push([difference.name, spread(taken.ours), spread(taken.b3sum), ratio(taken.b3sum), spread(taken.bare),
      ratio(taken.b3sum, taken.bare), spread(taken.rsync), ratio(taken.rsync), spread(taken.sha1), ratio(taken.sha1), (sent / 2 ** 20).toFixed(2)]);
  }
  record({
    question: 'A whole resynchronization by full compare, from the command to the end of the merge',
    command: `node bench/resync.ts --gib ${values.gib} --rounds ${values.rounds}`,
    notes: [`${values.gib} GiB, ${Math.round(dataBytes / 2 ** 20)} MiB of it random data`,
      'two servers, TLS on loopback, page cache warm', `median of ${ROUNDS} (least–greatest), seconds; ratios round by round`],
    columns: ['differing', 'resync', 'b3sum of both', 'to b3sum', 'the least', 'the least to b3sum',
      'rsync', 'to rsync', 'rsync, SHA-1', 'to that', 'MiB of pages sent'],
    rows,
  });
  record({
    question: 'Initial replication', command: `node bench/resync.ts --gib ${values.gib}`,
    columns: ['data', 'seconds', 'MiB/s'], rows: [[`${Math.round(dataBytes / 2 ** 20)} MiB`, initial.toFixed(2), Math.round(dataBytes / 2 ** 20 / initial)]],
  });
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
