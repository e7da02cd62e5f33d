/**
 * Does a slow line make a resynchronization of equal disks slower? Two servers in network namespaces; a disk of which a fifth is data is
 * replicated over a fast line, then compared in full over lines of 10 Gbit/s and of 1.5 Mbit/s, in turns. Nothing differs, so next to nothing
 * crosses; each run must have been a full compare, and the disks must be equal afterwards.
 *
 *   node bench/slow-line.ts [--gib 8] [--rounds 3]       needs root, iproute2, qemu-utils
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { callHost } from '../src/cli/client.ts';
import { mustRun, run, temporaryFolder } from '../test/rig/program.ts';
import { makeImage } from './images.ts';
import { median, record, spread } from './record.ts';
import { TwoSites } from './two-sites.ts';

const { values } = parseArgs({ options: { gib: { type: 'string', default: '8' }, rounds: { type: 'string', default: '3' } } });
const LINES = { '10 Gbit/s': '10gbit', '1.5 Mbit/s': '1500kbit' } as const;
const cleanups: (() => unknown)[] = [];
const signal = new AbortController().signal;

async function compared(sites: TwoSites): Promise<{ seconds: number; bytes: number }> {
  const data = sites.data('primary');
  await callHost(data, 'suspend', { name: 'vm' }, { signal });
  const [before, began] = [await sites.lineBytes(), performance.now()];
  await callHost(data, 'resume', { name: 'vm', resynchronize: true }, { signal });
  await sites.untilReplicating();
  const seconds = (performance.now() - began) / 1000;
  const [newest] = (await callHost(data, 'resync.history', { name: 'vm' }, { signal })) as { rung: string; sentBytes: number; result: string }[];
  if (newest?.rung !== 'full-compare' || newest.result !== 'finished' || newest.sentBytes !== 0) throw new Error(`the resync was ${JSON.stringify(newest)}`);
  return { seconds, bytes: (await sites.lineBytes()) - before };
}

try {
  const able = process.getuid?.() === 0 && (await run('ip', ['netns', 'list']).catch(() => null))?.status === 0;
  if (!able) {
    console.log('skipped: it needs root and iproute2 with network namespaces');
  } else {
    const folder = await temporaryFolder({ after: (work: unknown) => cleanups.push(work as () => unknown) });
    const sites = new TwoSites(folder);
    cleanups.push(() => sites.down());
    await sites.up(LINES['10 Gbit/s']);
    const path = join(folder, 'disk.raw');
    makeImage(path, Math.round(Number(values.gib) * 2 ** 30), 0.2);
    const { vmId } = await sites.enabled(path);
    await sites.json('primary', 'start', 'vm');
    await sites.untilReplicating();
    const found = Object.keys(LINES).map((name) => ({ name: name as keyof typeof LINES, seconds: [] as number[], bytes: [] as number[] }));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const line of found) {
        await sites.setRate(LINES[line.name]);
        const { seconds, bytes } = await compared(sites);
        line.seconds.push(seconds);
        line.bytes.push(bytes);
      }
    }
    await mustRun('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', path, join(folder, 'store', 'vm', vmId, 'disk.raw')]);
    record({
      question: 'Equal disks over a slow line', command: `node bench/slow-line.ts --gib ${values.gib} --rounds ${values.rounds}`,
      notes: [`${values.gib} GiB, a fifth of it data`, 'whole resynchronizations by full compare, from the command to the end of the merge, in turns',
        'bytes that crossed the line, both ways, headers and all'],
      columns: ['line', 'seconds', 'to the fast line', 'KiB'],
      rows: found.map(({ name, seconds, bytes }) => [name, spread(seconds), `${(median(seconds) / median(found[0]!.seconds)).toFixed(2)} ×`,
        (median(bytes) / 1024).toFixed(1)]),
    });
  }
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
