/**
 * How long does the first copy of a disk take beside the usual ways to copy one? The same image of the recipe, warm, in turns within each
 * round: initial replication between two servers (TLS on loopback), `nbdcopy` and `qemu-img convert` over TLS into `nbdkit`, and `casync make`
 * and `extract` through a local store. Every copy is compared with its source, and what initial replication sends with what zstd makes of the
 * data. What is absent is left out and named.
 *
 *   node bench/copying.ts [--gib 2] [--rounds 1]       nbdcopy and qemu-img with nbdkit, and casync, where they are there
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { constants, createZstdCompress } from 'node:zlib';
import { callHost } from '../src/cli/client.ts';
import { Pair } from '../test/rig/pair.ts';
import { kill9, mustRun, run, temporaryFolder, untilThere } from '../test/rig/program.ts';
import { makeImage, type Runs } from './images.ts';
import { endedProgramsSeconds, processorSeconds } from './processor-time.ts';
import { median, record, spread } from './record.ts';
import { untilReplicating } from './repairs.ts';

const { values } = parseArgs({ options: { gib: { type: 'string', default: '2' }, rounds: { type: 'string', default: '1' } } });
const SIZE = Math.round(Number(values.gib) * 2 ** 30);
const MIB = 2 ** 20;
const signal = new AbortController().signal;
const LIMIT = { timeoutMs: 3_600_000 };

const has = async (program: string, ...args: string[]): Promise<boolean> => (await run(program, args).catch(() => null))?.status === 0;
const same = (a: string, b: string) => mustRun('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', a, b], LIMIT);

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

async function within<T>(work: (cleanups: { after(action: () => unknown): void }) => Promise<T>): Promise<T> {
  const cleanups: (() => unknown)[] = [];
  try {
    return await work({ after: (action) => cleanups.push(action) });
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
  }
}

interface Copied {
  seconds: number;
  /** Of all programs that took part. */
  processor: number;
}

/** Of all that is not a hole, in one stream of level 1. */
async function zstdBytes(path: string, runs: Runs): Promise<number> {
  const file = await open(path, 'r');
  async function* data() {
    for (const [first, count] of runs) for (let at = first; at < first + count; at++) yield (await file.read(Buffer.alloc(MIB), 0, MIB, at * MIB)).buffer;
  }
  let bytes = 0;
  const level = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
  await pipeline(data, createZstdCompress(level), async (shrunk) => {
    for await (const piece of shrunk) bytes += (piece as Buffer).length;
  });
  await file.close();
  return bytes;
}

/** From the command to the state Replicating, and what was sent over the link. */
const ours = () => within(async (t) => {
  const pair = await Pair.make(t, { sizes: [SIZE], frequencySec: 900 });
  const runs = makeImage(pair.disks[0]!, SIZE);
  await pair.primary.json('vm', 'attach', pair.vm);
  const used = () => processorSeconds(pair.primary.pid) + processorSeconds(pair.replica.pid);
  const before = used();
  const seconds = await timed(async () => {
    await callHost(pair.primary.data, 'start', { name: pair.vm }, { signal });
    await untilReplicating(pair);
  });
  const processor = used() - before;
  await pair.compare();
  const { statistics: { sentBytes } } = await pair.primary.json<{ statistics: { sentBytes: number } }>('health', pair.vm);
  return { seconds, processor, sentBytes, zstdBytes: await zstdBytes(pair.disks[0]!, runs), dataMib: runs.reduce((sum, [, count]) => sum + count, 0) };
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

interface Door {
  /** Of the folder with the key, and of the key in it. */
  folder: string;
  keys: string;
  port: number;
}
const nbdcopyTo = (source: string, { keys, port }: Door) =>
  mustRun('nbdcopy', ['--destination-is-zero', '--flush', source, `nbds://bench@127.0.0.1:${port}/?tls-psk-file=${keys}`], LIMIT);
const convertTo = (source: string, { folder, port }: Door) =>
  mustRun('qemu-img', ['convert', '-n', '--target-is-zero', '-W', '-f', 'raw', '--object', `tls-creds-psk,id=psk,dir=${folder},endpoint=client,username=bench`,
    source, '--target-image-opts', `driver=nbd,host=127.0.0.1,port=${port},tls-creds=psk`], LIMIT);

const intoNbdkit = (copy: (source: string, door: Door) => Promise<unknown>) => async (source: string, folder: string): Promise<Copied> => {
  const [target, keys, pidFile, port] = [join(folder, 'copy.raw'), join(folder, 'keys.psk'), join(folder, 'nbdkit.pid'), await freePort()];
  await writeFile(keys, `bench:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  await writeFile(target, '');
  await truncate(target, SIZE);
  const server = spawn('nbdkit', ['-f', '-P', pidFile, '-i', '127.0.0.1', '-p', String(port), '--tls=require', `--tls-psk=${keys}`, 'file', target],
    { stdio: ['ignore', 'ignore', 'inherit'] });
  try {
    // Written when it listens.
    await untilThere(pidFile);
    const before = endedProgramsSeconds();
    const seconds = await timed(() => copy(source, { folder, keys, port }));
    const processor = endedProgramsSeconds() - before + processorSeconds(server.pid!);
    await same(source, target);
    return { seconds, processor };
  } finally {
    await kill9(server);
    for (const path of [target, pidFile]) await rm(path, { force: true });
  }
};

async function casync(source: string, folder: string): Promise<Copied> {
  const [target, index, store] = [join(folder, 'casync.raw'), join(folder, 'x.caibx'), join(folder, 'x.castr')];
  const before = endedProgramsSeconds();
  const seconds = await timed(async () => {
    await mustRun('casync', ['make', `--store=${store}`, index, source], LIMIT);
    await mustRun('casync', ['extract', `--store=${store}`, index, target], LIMIT);
  });
  const processor = endedProgramsSeconds() - before;
  await same(source, target);
  for (const path of [target, index, store]) await rm(path, { recursive: true, force: true });
  return { seconds, processor };
}

await within(async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'source.raw');
  makeImage(source, SIZE);
  const nbdkit = await has('nbdkit', '--version');
  const absent = async (program: string) => (nbdkit && (await has(program, '--version')) ? null : `${program} or nbdkit is absent`);
  const peers: { name: string; absent: string | null; copy: (source: string, folder: string) => Promise<Copied>; copied: Copied[] }[] = [
    { name: 'nbdcopy over TLS into nbdkit', absent: await absent('nbdcopy'), copy: intoNbdkit(nbdcopyTo), copied: [] },
    { name: 'qemu-img convert over TLS into nbdkit', absent: await absent('qemu-img'), copy: intoNbdkit(convertTo), copied: [] },
    { name: 'casync make and extract', absent: (await has('casync', '--version')) ? null : 'casync is absent', copy: casync, copied: [] },
  ];
  const taken: Copied[] = [];
  let [dataMib, sent, shrunk] = [0, 0, 0];
  for (let round = 0; round < Number(values.rounds); round++) {
    const copy = await ours();
    taken.push(copy);
    ({ dataMib, sentBytes: sent, zstdBytes: shrunk } = copy);
    for (const peer of peers) if (peer.absent === null) peer.copied.push(await peer.copy(source, folder));
  }
  record({
    question: 'The first copy of a disk', command: `node bench/copying.ts --gib ${values.gib} --rounds ${values.rounds}`,
    notes: [`${values.gib} GiB, ${dataMib} MiB of it random data, page cache warm, both ends on one machine`, 'ours from the command to Replicating; '
      + 'nbdcopy ends with a flush, the others with none',
      `on the wire ${(sent / MIB).toFixed(2)} MiB, zstd makes ${(shrunk / MIB).toFixed(2)} MiB of the data`,
      ...peers.flatMap(({ name, absent }) => (absent === null ? [] : [`${name}: skipped, ${absent}`]))],
    columns: ['copy', 'seconds', 'MiB/s', 'ours to it', 'processor time, s', 'ours to it'],
    rows: [{ name: 'initial replication', copied: taken }, ...peers.filter(({ absent }) => absent === null)].map(({ name, copied }) => {
      const [seconds, processor] = [copied.map((one) => one.seconds), copied.map((one) => one.processor)];
      const [ourSeconds, ourProcessor] = [median(taken.map((one) => one.seconds)), median(taken.map((one) => one.processor))];
      return [name, spread(seconds), Math.round(dataMib / median(seconds)), `${(ourSeconds / median(seconds)).toFixed(2)} ×`,
        spread(processor), `${(ourProcessor / median(processor)).toFixed(2)} ×`];
    }),
  });
});
