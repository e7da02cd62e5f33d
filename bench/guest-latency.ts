/**
 * What does a guest feel of a resynchronization with the default share, and of log switches, applying and merging? fio at a fixed rate on
 * the tracked disk: alone, while sets are switched, shipped and applied one after another, and while full compares run one after another,
 * each to the end of its merge. At least one of them must have run from start to end under fio, and the disks must be equal afterwards.
 * As a control the same disk is read and digested by other programs at the lowest priority: `b3sum`, one thread, `nice -n 19`.
 *
 *   node bench/guest-latency.ts [--gib 8] [--seconds 70] [--rounds 1]       needs fio
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { callHost } from '../src/cli/client.ts';
import { HOT_REGIONS_MAX, REGION_BYTES_DEFAULT } from '../src/tracking/change-map.ts';
import { Pair } from '../test/rig/pair.ts';
import { mustRun, run } from '../test/rig/program.ts';
import { fio } from './fio.ts';
import { makeImage } from './images.ts';
import { median, record } from './record.ts';
import { repaired, untilReplicating } from './repairs.ts';

const { values } = parseArgs({
  options: { gib: { type: 'string', default: '8' }, seconds: { type: 'string', default: '70' }, rounds: { type: 'string', default: '1' } },
});
const SIZE = Math.round(Number(values.gib) * 2 ** 30);
/** Where the guest works: no more than the regions that stay hot. */
const AREA = HOT_REGIONS_MAX * REGION_BYTES_DEFAULT;
/** How often is looked whether a resynchronization is over: each look is work for the server that the guest waits for. */
const LOOK_MS = 2000;
/** A host of its own has a disk of its own: the replica's lies in memory. */
const MEMORY = '/dev/shm';
const cleanups: (() => unknown)[] = [];
const signal = new AbortController().signal;

interface Tail {
  p99: number;
  p999: number;
  /** How often the disturbance ran from start to end. */
  times: number;
}

async function guest(uri: string, folder: string): Promise<Omit<Tail, 'times'>> {
  const { mixed } = await fio(uri, folder, String(Math.min(SIZE, AREA)), ['--rw=randrw', '--bs=4k', '--iodepth=4', '--rate_iops=500', '--time_based',
    `--runtime=${values.seconds}`, '--norandommap', '--unified_rw_reporting=1']);
  const percentile = mixed!.clat_ns.percentile!;
  return { p99: percentile['99.000000']! / 1e6, p999: percentile['99.900000']! / 1e6 };
}

/** One disturbance after another for as long as fio runs; the last one ends after it and does not count. */
async function under(uri: string, folder: string, disturb: (() => Promise<unknown>) | null): Promise<Tail> {
  let running = true;
  const measured = guest(uri, folder).finally(() => (running = false));
  let times = 0;
  while (running && disturb !== null) {
    await Promise.race([disturb(), measured.then(() => undefined)]);
    if (running) times++;
  }
  return { ...(await measured), times };
}

try {
  if ((await run('fio', ['--version']).catch(() => null))?.status !== 0) {
    console.log('skipped: fio is absent');
  } else {
    const memory = existsSync(MEMORY) ? mkdtempSync(join(MEMORY, 'understudy-bench-')) : null;
    if (memory !== null) cleanups.push(() => rmSync(memory, { recursive: true }));
    const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) },
      { sizes: [SIZE], frequencySec: 900, ...(memory !== null && { replicaFolder: memory }) });
    makeImage(pair.disks[0]!, SIZE);
    await pair.replicate();
    // The replica's would be another host: it gets what this one leaves idle.
    await mustRun('chrt', ['--all-tasks', '--idle', '--pid', '0', String(pair.replica.pid)]);
    const uri = (await pair.uris())[0]!;
    const syncNow = () => callHost(pair.primary.data, 'sync-now', { name: pair.vm }, { signal });
    const resynchronize = async () => {
      await callHost(pair.primary.data, 'suspend', { name: pair.vm }, { signal });
      await repaired(pair, 'full-compare', { resynchronize: true }, LOOK_MS);
    };
    // Log switches one behind another sync a thousand times a minute, and some devices are slower for minutes afterwards: they come last.
    const cases: [name: string, disturb: (() => Promise<unknown>) | null][] = [
      ['alone', null], ['b3sum of the disk, nice 19', () => mustRun('nice', ['-n', '19', 'b3sum', '--num-threads', '1', pair.disks[0]!])],
      ['full compares and their merges, default share', resynchronize], ['log switches, shipping, applying', syncNow],
    ];
    // The first write to a region waits for its bit: that is not to be in the first measurement alone.
    await guest(uri, pair.folder);
    const found = new Map<string, Tail[]>(cases.map(([name]) => [name, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [name, disturb] of cases) {
        // What came before is not written back by the kernel under this one.
        await mustRun('sync', []);
        const tail = await under(uri, pair.folder, disturb);
        if (disturb !== null && tail.times === 0) throw new Error(`${name}: none ended under fio; use more --seconds`);
        found.get(name)!.push(tail);
        await untilReplicating(pair);
        await syncNow();
      }
    }
    await pair.compare();
    const alone = found.get('alone')!;
    const of = (tails: Tail[], key: 'p99' | 'p999') => median(tails.map((tail) => tail[key]));
    record({
      question: 'What the guest feels of a resynchronization, of log switches, applying and merging',
      command: `node bench/guest-latency.ts --gib ${values.gib} --seconds ${values.seconds} --rounds ${values.rounds}`,
      notes: [`fio, 4 KiB random reads and writes at 1,000 a second, depth 4, on a tracked disk of ${values.gib} GiB, all regions touched before`,
        'both servers and the guest on one machine; the replica\'s server, which has a host of its own in life, is scheduled when the others are idle'
          + (memory === null ? '' : ', and its disk lies in memory')],
      columns: ['meanwhile', 'p99, ms', 'to alone', 'p99.9, ms', 'more than alone, ms', 'times'],
      rows: [...found].map(([name, tails]) => [name, of(tails, 'p99').toFixed(2), `${(of(tails, 'p99') / of(alone, 'p99')).toFixed(2)} ×`,
        of(tails, 'p999').toFixed(2), (of(tails, 'p999') - of(alone, 'p999')).toFixed(2), tails.reduce((sum, { times }) => sum + times, 0)]),
    });
  }
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
