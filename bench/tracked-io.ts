/**
 * What does protection cost the guest? fio against the same kind of disk served by Understudy tracked (replicating to a second
 * server on this machine), by Understudy untracked, by `nbdkit file` and by `qemu-nbd`, in turns within each round; reads also cold, with the
 * files evicted from the page cache (what the servers have read from the disk is checked). Then: the stall of a log switch (fio's p99.9
 * with and without switches), shipping throughput, and the server's memory.
 *
 *   node bench/tracked-io.ts [--seconds N] [--rounds N]       needs fio, nbdkit, qemu-nbd
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Pair } from '../test/rig/pair.ts';
import { mustRun } from '../test/rig/program.ts';
import { UNDERSTUDY } from '../test/rig/server.ts';
import { median, record } from './record.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '4' }, rounds: { type: 'string', default: '3' } } });

const SIZE_MIB = 512;
const CASES: Record<string, string[]> = {
  'randread 4k q16': ['--rw=randread', '--bs=4k', '--iodepth=16'],
  'randwrite 4k q16': ['--rw=randwrite', '--bs=4k', '--iodepth=16'],
  'randwrite 4k q16 flush/32': ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--fsync=32'],
  'read 1M q4': ['--rw=read', '--bs=1M', '--iodepth=4'],
  'write 1M q4': ['--rw=write', '--bs=1M', '--iodepth=4'],
  'randread 4k q1': ['--rw=randread', '--bs=4k', '--iodepth=1'],
  'randread 4k q16, 2 connections': ['--rw=randread', '--bs=4k', '--iodepth=16', '--numjobs=2', '--group_reporting'],
};
/** So much is read cold; each page once. */
const COLD_MIB = 64;

interface FioSide {
  iops: number;
  total_ios: number;
  clat_ns: { percentile?: Record<string, number> };
}

const cleanups: (() => unknown)[] = [];

const TIMED = ['--time_based', `--runtime=${values.seconds}`, '--norandommap'];

async function fio(uri: string, folder: string, args: string[], length = TIMED): Promise<{ read: FioSide; write: FioSide }> {
  const text = await mustRun('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, `--size=${SIZE_MIB}m`, ...length, '--output-format=json',
    '--randrepeat=0', '--percentile_list=99:99.9', ...args], { cwd: folder });
  const job = (JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { error: number; read: FioSide; write: FioSide }[] }).jobs[0]!;
  if (job.error !== 0 || job.read.total_ios + job.write.total_ios === 0) throw new Error(`fio did nothing on ${uri}`);
  return job;
}

async function peer(command: string, args: string[], socket: string): Promise<ChildProcess> {
  rmSync(socket, { force: true });
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  cleanups.push(() => child.kill('SIGKILL'));
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 20));
  return child;
}

/** Bytes that the process has had read from disks. */
const readBytes = (pid: number): number => Number(/^read_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))![1]);

/** Pages are evicted only when they are clean, so the file is made durable first. */
async function evict(path: string): Promise<void> {
  await mustRun('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
  await mustRun('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
}

const memoryMib = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);

try {
  // The disk is far larger than what is written to it: the log limit must not end the tracking that is measured.
  const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) }, { sizes: [64 * 2 ** 30], frequencySec: 300 });
  await pair.replicate();
  const plain = { nbdkit: join(pair.folder, 'nbdkit.raw'), qemu: join(pair.folder, 'qemu.raw'), untracked: join(pair.folder, 'untracked.raw') };
  for (const path of Object.values(plain)) await mustRun('truncate', ['--size', `${SIZE_MIB}M`, path]);
  const [nbdkitSocket, qemuSocket] = [join(pair.folder, 'nbdkit.sock'), join(pair.folder, 'qemu.sock')];
  const nbdkit = await peer('nbdkit', ['-f', '-U', nbdkitSocket, 'file', plain.nbdkit], nbdkitSocket);
  const qemuNbd = await peer('qemu-nbd', ['-f', 'raw', '-t', '-x', '', '--cache=writeback', '-k', qemuSocket, plain.qemu], qemuSocket);
  const { disks } = await pair.primary.json<{ disks: { uri: string }[] }>('vm', 'add', 'plain', '--disk', plain.untracked);
  const tracked = (await pair.uris())[0]!;
  const contenders: [name: string, uri: string, path: string, pid: number][] = [
    ['nbdkit', `nbd+unix:///?socket=${nbdkitSocket}`, plain.nbdkit, nbdkit.pid!],
    ['qemu-nbd', `nbd+unix:///?socket=${qemuSocket}`, plain.qemu, qemuNbd.pid!],
    ['untracked', disks[0]!.uri, plain.untracked, pair.primary.pid], ['tracked', tracked, pair.disks[0]!, pair.primary.pid],
  ];
  const syncNow = () => mustRun(UNDERSTUDY, ['--data', pair.primary.data, 'sync-now', pair.vm, '--json'], { timeoutMs: 3_600_000 });
  // Every contender writes its file once, so that none pays for first allocation later.
  for (const [, uri] of contenders) await fio(uri, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4']);
  await syncNow();

  const rows: (string | number)[][] = [];
  const note = (name: string, results: Map<string, number[]>) => {
    const base = results.get('nbdkit')!;
    rows.push([name, ...[...results.values()].map((own) =>
      `${Math.round(median(own))} (${median(own.map((value, round) => value / base[round]!)).toFixed(2)})`)]);
  };
  for (const [name, args] of Object.entries(CASES)) {
    const results = new Map<string, number[]>(contenders.map(([contender]) => [contender, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [contender, uri] of contenders) {
        const { read, write } = await fio(uri, pair.folder, args);
        results.get(contender)!.push(read.iops + write.iops);
      }
      // Deliver what was written between rounds, so that shipping does not run inside a measurement.
      await syncNow();
    }
    note(name, results);
  }
  const cold = new Map<string, number[]>(contenders.map(([contender]) => [contender, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [contender, uri, path, pid] of contenders) {
      await evict(path);
      const before = readBytes(pid);
      const { read } = await fio(uri, pair.folder, ['--rw=randread', '--bs=4k', '--iodepth=16'], [`--io_size=${COLD_MIB}m`]);
      cold.get(contender)!.push(read.iops);
      const share = (readBytes(pid) - before) / (COLD_MIB * 2 ** 20);
      if (share < 0.9) throw new Error(`${contender}: only ${Math.round(100 * share)} % came from the disk, the rest was cached`);
    }
  }
  note('randread 4k q16, cold', cold);
  record({
    question: 'Guest I/O: requests a second, and the ratio to nbdkit round by round',
    command: `node bench/tracked-io.ts --seconds ${values.seconds} --rounds ${values.rounds}`,
    notes: [`fio over a Unix socket, ${SIZE_MIB} MiB, log and disk on one file system`, `median of ${values.rounds} rounds of ${values.seconds} s`],
    columns: ['fio', ...contenders.map(([name]) => name)], rows,
  });

  const load = ['--rw=randwrite', '--bs=4k', '--iodepth=4', '--rate_iops=2000'];
  const tail = (side: FioSide) => ((side.clat_ns.percentile?.['99.900000'] ?? 0) / 1e6).toFixed(1);
  const control = await fio(tracked, pair.folder, load);
  const under = fio(tracked, pair.folder, load);
  let switches = 0;
  let running = true;
  void under.finally(() => (running = false));
  while (running) {
    await syncNow();
    switches++;
  }
  const stalled = [tail((await under).write), `${switches}`, tail(control.write)];
  await fio(tracked, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4']);
  const { bytes, seconds } = JSON.parse(await syncNow()) as { bytes: number; seconds: number };
  record({
    question: 'Log switch, shipping, memory', command: 'node bench/tracked-io.ts',
    notes: ['p99.9 of 4 KiB writes at 2,000 a second, while sets are switched, shipped and applied, and without',
      'then 1 MiB writes, shipped and applied (TLS on loopback)'],
    columns: ['p99.9, ms', 'switches', 'p99.9 without, ms', 'shipped and applied, MiB/s', 'MiB', 'primary, MiB', 'replica, MiB'],
    rows: [[...stalled, Math.round(bytes / 2 ** 20 / seconds), Math.round(bytes / 2 ** 20), memoryMib(pair.primary.pid), memoryMib(pair.replica.pid)]],
  });
  await pair.compare();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
