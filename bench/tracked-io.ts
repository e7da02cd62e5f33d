/**
 * What does protection cost the guest? fio against the same kind of disk served by Understudy tracked (replicating to a second
 * server on this machine), by Understudy untracked, by `nbdkit file` and by `qemu-nbd`, in turns within each round; reads also cold, with the
 * files evicted from the page cache (what the servers have read from the disk is checked). Beside the rate stands the processor time of
 * the server for one request, which other programs on the machine disturb less, and how much of the time fio itself computed: near 100 % it
 * is fio that is measured. Then: the stall of a log switch (fio's p99.9
 * with and without switches), shipping throughput, and the server's memory.
 *
 *   node bench/tracked-io.ts [--seconds N] [--rounds N] [--only ROW,…] [--servers NAME,…]       needs fio, nbdkit, qemu-nbd
 *
 * Rows are those of `CASES`, and: cold, switches, shipping. Servers: nbdkit (always), qemu-nbd, untracked, tracked.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Pair } from '../test/rig/pair.ts';
import { mustRun, untilThere } from '../test/rig/program.ts';
import { UNDERSTUDY } from '../test/rig/server.ts';
import { fio, measured, shown, type FioSide, type Sample } from './fio.ts';
import { median, record } from './record.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' }, rounds: { type: 'string', default: '3' }, only: { type: 'string' }, servers: { type: 'string' },
  },
});

const SIZE_MIB = 512;
const TIMED = ['--time_based', `--runtime=${values.seconds}`, '--norandommap'];
/**
 * So much and no more, where the rate is that of memory: all of it is shipped afterwards, at a twentieth of that rate, and the dirty
 * pages that more of it leaves would be written back under the next server.
 */
const AMOUNT = [`--io_size=${256 * Number(values.seconds)}m`];
const CASES: Record<string, { args: string[]; length: string[] }> = {
  'randread 4k q16': { args: ['--rw=randread', '--bs=4k', '--iodepth=16'], length: TIMED },
  'randwrite 4k q16': { args: ['--rw=randwrite', '--bs=4k', '--iodepth=16'], length: TIMED },
  'randwrite 4k q16 flush/32': { args: ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--fsync=32'], length: TIMED },
  'randwrite 4k q1': { args: ['--rw=randwrite', '--bs=4k', '--iodepth=1'], length: TIMED },
  'read 1M q4': { args: ['--rw=read', '--bs=1M', '--iodepth=4'], length: AMOUNT },
  'write 1M q4': { args: ['--rw=write', '--bs=1M', '--iodepth=4'], length: AMOUNT },
  'randread 4k q1': { args: ['--rw=randread', '--bs=4k', '--iodepth=1'], length: TIMED },
  'randread 4k q16, 2 connections': { args: ['--rw=randread', '--bs=4k', '--iodepth=16', '--numjobs=2', '--group_reporting'], length: TIMED },
};
/** So much is read cold; each page once. */
const COLD_MIB = 64;

const rowNames = [...Object.keys(CASES), 'cold', 'switches', 'shipping'];
const only = values.only?.split(',').map((name) => name.trim());
const unknown = only?.filter((name) => !rowNames.includes(name)) ?? [];
// Names hold commas: '…, 2 connections' is asked for as a part of the text.
if (unknown.length > 0 && !rowNames.some((name) => name === values.only)) throw new Error(`no row ${unknown.join(', ')}; rows: ${rowNames.join(' · ')}`);
const isAsked = (name: string) => only === undefined || only.includes(name) || name === values.only;

interface Contender {
  name: string;
  uri: string;
  path: string;
  pid: number;
}

const cleanups: (() => unknown)[] = [];

const onDisk = (uri: string, folder: string, args: string[], length = TIMED) => fio(uri, folder, `${SIZE_MIB}m`, [...length, ...args]);

const measure = ({ uri, pid }: Contender, folder: string, args: string[], length: string[]): Promise<Sample> =>
  measured(pid, () => onDisk(uri, folder, args, length));

async function peer(command: string, args: string[], socket: string): Promise<ChildProcess> {
  rmSync(socket, { force: true });
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  cleanups.push(() => child.kill('SIGKILL'));
  await untilThere(socket);
  return child;
}

async function contendersOf(pair: Pair): Promise<Contender[]> {
  const plain = { nbdkit: join(pair.folder, 'nbdkit.raw'), qemu: join(pair.folder, 'qemu.raw'), untracked: join(pair.folder, 'untracked.raw') };
  for (const path of Object.values(plain)) await mustRun('truncate', ['--size', `${SIZE_MIB}M`, path]);
  const [nbdkitSocket, qemuSocket] = [join(pair.folder, 'nbdkit.sock'), join(pair.folder, 'qemu.sock')];
  const nbdkit = await peer('nbdkit', ['-f', '-U', nbdkitSocket, 'file', plain.nbdkit], nbdkitSocket);
  const qemuNbd = await peer('qemu-nbd', ['-f', 'raw', '-t', '-x', '', '--cache=writeback', '-k', qemuSocket, plain.qemu], qemuSocket);
  const { disks } = await pair.primary.json<{ disks: { uri: string }[] }>('vm', 'add', 'plain', '--disk', plain.untracked);
  const all: Contender[] = [
    { name: 'nbdkit', uri: `nbd+unix:///?socket=${nbdkitSocket}`, path: plain.nbdkit, pid: nbdkit.pid! },
    { name: 'qemu-nbd', uri: `nbd+unix:///?socket=${qemuSocket}`, path: plain.qemu, pid: qemuNbd.pid! },
    { name: 'untracked', uri: disks[0]!.uri, path: plain.untracked, pid: pair.primary.pid },
    { name: 'tracked', uri: (await pair.uris())[0]!, path: pair.disks[0]!, pid: pair.primary.pid },
  ];
  return all.filter(({ name }) => name === 'nbdkit' || (values.servers?.split(',').includes(name) ?? true));
}

/** Bytes that the process has had read from disks. */
const readBytes = (pid: number): number => Number(/^read_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))![1]);

/** Pages are evicted only when they are clean, so the file is made durable first. */
async function evict(path: string): Promise<void> {
  await mustRun('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
  await mustRun('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
}

async function measureCold(contender: Contender, folder: string): Promise<Sample> {
  await evict(contender.path);
  const before = readBytes(contender.pid);
  const sample = await measure(contender, folder, ['--rw=randread', '--bs=4k', '--iodepth=16'], [`--io_size=${COLD_MIB}m`]);
  const share = (readBytes(contender.pid) - before) / (COLD_MIB * 2 ** 20);
  if (share < 0.9) throw new Error(`${contender.name}: only ${Math.round(100 * share)} % came from the disk, the rest was cached`);
  return sample;
}

/** All rounds of one row, each contender once in each. `deliver`: between rounds, so that shipping does not run inside a measurement. */
async function row(name: string, contenders: Contender[], measureOne: (one: Contender) => Promise<Sample>, deliver: () => Promise<unknown>): Promise<string[]> {
  const results = contenders.map((): Sample[] => []);
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [index, contender] of contenders.entries()) results[index]!.push(await measureOne(contender));
    await deliver();
  }
  return [name, ...results.map((own) => `${shown(own, results[0]!)} ${Math.round(median(own.map(({ guestPercent }) => guestPercent)))} %`)];
}

const memoryMib = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);

async function switches(pair: Pair, uri: string, syncNow: () => Promise<unknown>): Promise<void> {
  const load = ['--rw=randwrite', '--bs=4k', '--iodepth=4', '--rate_iops=2000'];
  const tail = (side: FioSide) => ((side.clat_ns.percentile?.['99.900000'] ?? 0) / 1e6).toFixed(1);
  const control = await onDisk(uri, pair.folder, load);
  let running = true;
  const under = onDisk(uri, pair.folder, load).finally(() => (running = false));
  let count = 0;
  while (running) {
    await syncNow();
    if (running) count++;
  }
  record({
    question: 'Log switch', command: `node bench/tracked-io.ts --seconds ${values.seconds} --only switches`,
    notes: ['p99.9 of 4 KiB writes at 2,000 a second, while sets are switched, shipped and applied, and without'],
    columns: ['p99.9, ms', 'switches', 'p99.9 without, ms'], rows: [[tail((await under).write), count, tail(control.write)]],
  });
}

async function shipping(pair: Pair, uri: string, syncNow: () => Promise<string>): Promise<void> {
  await onDisk(uri, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4'], AMOUNT);
  const { bytes, seconds } = JSON.parse(await syncNow()) as { bytes: number; seconds: number };
  record({
    question: 'Shipping, memory', command: `node bench/tracked-io.ts --seconds ${values.seconds} --only shipping`,
    notes: ['1 MiB writes, shipped and applied (TLS on loopback)'],
    columns: ['shipped and applied, MiB/s', 'MiB', 'primary, MiB', 'replica, MiB'],
    rows: [[Math.round(bytes / 2 ** 20 / seconds), Math.round(bytes / 2 ** 20), memoryMib(pair.primary.pid), memoryMib(pair.replica.pid)]],
  });
}

try {
  // The disk is far larger than what is written to it: the log limit must not end the tracking that is measured. No cycle of its own
  // begins within a measurement.
  const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) }, { sizes: [64 * 2 ** 30], frequencySec: 900 });
  await pair.replicate();
  const contenders = await contendersOf(pair);
  const syncNow = () => mustRun(UNDERSTUDY, ['--data', pair.primary.data, 'sync-now', pair.vm, '--json'], { timeoutMs: 3_600_000 });
  // Every contender writes its file once, so that none pays for first allocation later.
  for (const { uri } of contenders) await onDisk(uri, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4'], [`--io_size=${SIZE_MIB}m`]);
  await syncNow();

  const rows: string[][] = [];
  for (const [name, { args, length }] of Object.entries(CASES)) {
    if (isAsked(name)) rows.push(await row(name, contenders, (one) => measure(one, pair.folder, args, length), syncNow));
  }
  if (isAsked('cold')) rows.push(await row('randread 4k q16, cold', contenders, (one) => measureCold(one, pair.folder), syncNow));
  if (rows.length > 0) {
    record({
      question: 'Guest I/O: requests a second, the ratio to nbdkit round by round, processor time of the server for one, how busy fio itself is',
      command: `node bench/tracked-io.ts --seconds ${values.seconds} --rounds ${values.rounds}`,
      notes: [`fio over a Unix socket, ${SIZE_MIB} MiB, log and disk on one file system`, `median of ${values.rounds} rounds of ${values.seconds} s`],
      columns: ['fio', ...contenders.map(({ name }) => name)], rows,
    });
  }
  const tracked = (await pair.uris())[0]!;
  if (isAsked('switches')) await switches(pair, tracked, syncNow);
  if (isAsked('shipping')) await shipping(pair, tracked, syncNow);
  await syncNow();
  await pair.compare();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
