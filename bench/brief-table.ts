/**
 * What is a resynchronization worth against copying everything again? A disk of data that compresses like a real guest's is replicated
 * over a line; then replication is suspended, some of it is rewritten, and the VM is resynchronized: at once, when little has
 * changed, and hours later, when much has. Two servers in network namespaces, joined at 1 Gbit/s and at 1.5 Mbit/s. Sizes are
 * 1:100 and 1:1000 of 80 GB with 100 MB and 5.5 GB (1 Gbit/s) or 78 MB and 10 GB (1.5 Mbit/s) changed.
 *
 *   node bench/brief-table.ts [--link 1gbit|1500kbit]        needs root, iproute2, qemu-utils; about ten minutes
 */
import { randomBytes } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { hostClock } from '../src/disk/host-clock.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import { mustRun, temporaryFolder } from '../test/rig/program.ts';
import { record } from './record.ts';
import { TwoSites } from './two-sites.ts';

const { values } = parseArgs({ options: { link: { type: 'string' } } });
const MB = 1_000_000;
const PAGE = 4096;
const LINKS = [
  { rate: '1gbit', name: '1 Gbit/s, 1:100', diskBytes: 800 * MB, soonBytes: 1 * MB, lateBytes: 55 * MB },
  { rate: '1500kbit', name: '1.5 Mbit/s, 1:1000', diskBytes: 80 * MB, soonBytes: 0.078 * MB, lateBytes: 10 * MB },
].filter(({ rate }) => values.link === undefined || values.link === rate);

const cleanups: (() => unknown)[] = [];
interface Measured { seconds: number; bytes: number }

/** Two fifths noise, the rest text: zstd brings it to 43 % or so, as it does the programs of a Linux guest. */
function likeAGuest(bytes: number): Buffer {
  const data = Buffer.alloc(Math.ceil(bytes / PAGE) * PAGE, 'replication health: Normal; last synchronized at ');
  for (let at = 0; at < data.length; at += PAGE) randomBytes(PAGE * 0.4 | 0).copy(data, at);
  return data;
}

/** Rewrites so many bytes in runs of 16 pages, evenly over the disk, as a guest does. */
async function churn(uri: string, bytes: number): Promise<void> {
  const disk = await openDisk(uri, { readOnly: false, lock: false, clock: hostClock });
  const run = Math.min(16 * PAGE, Math.ceil(bytes / PAGE) * PAGE);
  const count = Math.ceil(bytes / run);
  const stride = Math.floor(disk.virtualSize / count / PAGE) * PAGE;
  for (let index = 0; index < count; index++) await disk.write(likeAGuest(run).subarray(0, run), index * stride);
  await disk.flush();
  await disk.close();
}

async function measured(sites: TwoSites, command: string[]): Promise<Measured> {
  const [before, began] = [await sites.lineBytes(), performance.now()];
  await sites.json('primary', ...command);
  for (;;) {
    const { state } = await sites.json<{ state: string }>('primary', 'status', 'vm');
    if (state === 'Replicating') break;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const seconds = (performance.now() - began) / 1000;
  return { seconds, bytes: (await sites.lineBytes()) - before };
}

const found: string[][] = [];

async function rows(link: (typeof LINKS)[number]): Promise<void> {
  const folder = await temporaryFolder({ after: (work: unknown) => cleanups.push(work as () => unknown) });
  const sites = new TwoSites(folder);
  try {
    await sites.up(link.rate);
    await rowsOf(sites, link);
  } finally {
    // Before the next line: its sites have the same names.
    await sites.down();
  }
}

async function rowsOf(sites: TwoSites, { name, diskBytes, soonBytes, lateBytes }: (typeof LINKS)[number]): Promise<void> {
  const { folder } = sites;
  const path = join(folder, 'disk.raw');
  await writeFile(path, likeAGuest(diskBytes));
  await truncate(path, Math.ceil(diskBytes / MB) * (1 << 20));
  const { vmId, disks } = await sites.enabled(path);
  const initial = await measured(sites, ['start', 'vm']);
  for (const [when, bytes] of [['at once', soonBytes], ['after churn', lateBytes]] as const) {
    await sites.json('primary', 'suspend', 'vm');
    await churn(disks[0]!.uri, bytes);
    const resync = await measured(sites, ['resume', 'vm', '--resynchronize']);
    await mustRun('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', path, join(folder, 'store', 'vm', vmId, 'disk.raw')]);
    const shown = ({ seconds, bytes: crossed }: Measured) => `${(crossed / MB).toFixed(2)} MB, ${seconds.toFixed(1)} s`;
    found.push([name, `${when} (${bytes / MB} MB changed)`, shown(initial), shown(resync)]);
  }
}

try {
  for (const link of LINKS) await rows(link);
  record({
    question: 'Resynchronization against copying again', command: 'node bench/brief-table.ts',
    notes: ['bytes that crossed the line, both ways, headers and all'],
    columns: ['line', 'resynchronized', 'initial replication', 'resynchronization'], rows: found,
  });
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
