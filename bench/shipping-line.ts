/**
 * Are logs shipped as fast as a line of 1 Gbit/s lets them? Two servers in network namespaces; random 4 KiB writes over a part of a disk, once of
 * data that does not compress and once of data of which half does; then the set is sent and applied. What the primary has put on the line is
 * read all the time: its rate between the first and the last twentieth of it is that of shipping. The disks must be equal afterwards.
 *
 *   node bench/shipping-line.ts [--mib 512] [--rounds 3] [--rate 1gbit]       needs root, iproute2, fio, qemu-utils
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { truncate, writeFile } from 'node:fs/promises';
import { callHost } from '../src/cli/client.ts';
import { mustRun, run, temporaryFolder } from '../test/rig/program.ts';
import { median, record, spread } from './record.ts';
import { TwoSites } from './two-sites.ts';

const { values } = parseArgs({ options: {
  mib: { type: 'string', default: '512' }, rounds: { type: 'string', default: '3' }, rate: { type: 'string', default: '1gbit' },
} });
const MIB = Number(values.mib);
const SAMPLE_MS = 20;
const cleanups: (() => unknown)[] = [];
const signal = new AbortController().signal;

/** MiB/s of the bytes on the line between the first and the last twentieth of them. */
function rateOf(samples: { at: number; bytes: number }[]): number {
  const all = samples.at(-1)!.bytes - samples[0]!.bytes;
  const reached = (share: number) => samples.find(({ bytes }) => bytes - samples[0]!.bytes >= share * all)!;
  const [from, to] = [reached(0.05), reached(0.95)];
  return (to.bytes - from.bytes) / 2 ** 20 / ((to.at - from.at) / 1000);
}

async function shipped(sites: TwoSites): Promise<{ line: number; whole: number; lineMib: number }> {
  const samples: { at: number; bytes: number }[] = [];
  const sample = () => void samples.push({ at: performance.now(), bytes: sites.sentBytes('primary') });
  sample();
  const timer = setInterval(sample, SAMPLE_MS);
  await callHost(sites.data('primary'), 'sync-now', { name: 'vm' }, { signal });
  clearInterval(timer);
  sample();
  const [first, last] = [samples[0]!, samples.at(-1)!];
  return { line: rateOf(samples), whole: MIB / ((last.at - first.at) / 1000), lineMib: (last.bytes - first.bytes) / 2 ** 20 };
}

/** A VM with one disk that replicates; resolves with the address of the disk, and the paths of both copies. */
async function replicating(sites: TwoSites, folder: string): Promise<{ uri: string; disks: [string, string] }> {
  const path = join(folder, 'disk.raw');
  await writeFile(path, '');
  await truncate(path, 64 * 2 ** 30);
  const { vmId, disks } = await sites.enabled(path);
  await sites.json('primary', 'start', 'vm');
  await sites.untilReplicating();
  return { uri: disks[0]!.uri, disks: [path, join(folder, 'store', 'vm', vmId, 'disk.raw')] };
}

try {
  const able = process.getuid?.() === 0 && (await run('ip', ['netns', 'list']).catch(() => null))?.status === 0;
  if (!able) {
    console.log('skipped: it needs root and iproute2 with network namespaces');
  } else {
    const folder = await temporaryFolder({ after: (work: unknown) => cleanups.push(work as () => unknown) });
    const sites = new TwoSites(folder);
    cleanups.push(() => sites.down());
    await sites.up(values.rate);
    const { uri, disks } = await replicating(sites, folder);
    const found = { 'does not compress': 0, 'half compresses': 50 };
    const rows: string[][] = [];
    for (const [data, percent] of Object.entries(found)) {
      const results: Awaited<ReturnType<typeof shipped>>[] = [];
      for (let round = 0; round < Number(values.rounds); round++) {
        await mustRun('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, `--size=${MIB / 2}m`, `--io_size=${MIB}m`, '--rw=randwrite', '--bs=4k',
          '--iodepth=16', '--norandommap', `--randseed=${round + 1}`, `--buffer_compress_percentage=${percent}`, '--refill_buffers'], { cwd: folder });
        results.push(await shipped(sites));
      }
      rows.push([data, spread(results.map(({ line }) => line), 0), Math.round(median(results.map(({ lineMib }) => lineMib))).toString(),
        spread(results.map(({ line, lineMib }) => (line * MIB) / lineMib), 0), spread(results.map(({ whole }) => whole), 0)]);
    }
    await mustRun('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', ...disks], { timeoutMs: 600_000 });
    record({
      question: `Shipping over a line of ${values.rate}`, command: `node bench/shipping-line.ts --mib ${MIB} --rounds ${values.rounds}`,
      notes: [`${MIB} MiB of random 4 KiB writes over ${MIB / 2} MiB`, 'a line of 1 Gbit/s carries 119 MiB/s, its frames included',
        'whole: from `sync-now` to applied, closing and applying included'],
      columns: ['data', 'on the line, MiB/s', 'MiB on the line', 'of logs, MiB/s', 'whole, MiB/s'], rows,
    });
  }
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
