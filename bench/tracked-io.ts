/**
 * What does protection cost the guest? fio against the same kind of disk served by Understudy tracked (replicating to a second
 * server on this machine), by Understudy untracked, by `nbdkit file` and by `qemu-nbd`, in turns within each round. Then: the
 * stall of a log switch (fio's p99.9 with and without switches), shipping throughput, and the server's memory.
 *
 *   node bench/tracked-io.ts [--seconds N] [--rounds N]       needs fio, nbdkit, qemu-nbd
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Pair } from '../test/rig/pair.ts';
import { mustRun } from '../test/rig/program.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '4' }, rounds: { type: 'string', default: '3' } } });

const SIZE_MIB = 512;
const CASES: Record<string, string[]> = {
  'randread 4k q16': ['--rw=randread', '--bs=4k', '--iodepth=16'],
  'randwrite 4k q16': ['--rw=randwrite', '--bs=4k', '--iodepth=16'],
  'randwrite 4k q16 flush/32': ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--fsync=32'],
  'read 1M q4': ['--rw=read', '--bs=1M', '--iodepth=4'],
  'write 1M q4': ['--rw=write', '--bs=1M', '--iodepth=4'],
};

interface FioSide {
  iops: number;
  total_ios: number;
  clat_ns: { percentile?: Record<string, number> };
}

const cleanups: (() => unknown)[] = [];
const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

async function fio(uri: string, folder: string, args: string[]): Promise<{ read: FioSide; write: FioSide }> {
  const text = await mustRun('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, `--size=${SIZE_MIB}m`, '--time_based',
    `--runtime=${values.seconds}`, '--output-format=json', '--norandommap', '--randrepeat=0', '--percentile_list=99:99.9', ...args],
  { cwd: folder });
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

const memoryMib = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);

try {
  // The disk is far larger than what is written to it: the log limit must not end the tracking that is measured.
  const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) }, { sizes: [64 * 2 ** 30], frequencySec: 300 });
  await pair.replicate();
  const plain = { nbdkit: join(pair.folder, 'nbdkit.raw'), qemu: join(pair.folder, 'qemu.raw'), untracked: join(pair.folder, 'untracked.raw') };
  for (const path of Object.values(plain)) await mustRun('truncate', ['--size', `${SIZE_MIB}M`, path]);
  const [nbdkitSocket, qemuSocket] = [join(pair.folder, 'nbdkit.sock'), join(pair.folder, 'qemu.sock')];
  await peer('nbdkit', ['-f', '-U', nbdkitSocket, 'file', plain.nbdkit], nbdkitSocket);
  await peer('qemu-nbd', ['-f', 'raw', '-t', '-x', '', '--cache=writeback', '-k', qemuSocket, plain.qemu], qemuSocket);
  const { disks } = await pair.primary.json<{ disks: { uri: string }[] }>('vm', 'add', 'plain', '--disk', plain.untracked);
  const tracked = (await pair.uris())[0]!;
  const contenders: [name: string, uri: string][] = [
    ['nbdkit', `nbd+unix:///?socket=${nbdkitSocket}`], ['qemu-nbd', `nbd+unix:///?socket=${qemuSocket}`],
    ['untracked', disks[0]!.uri], ['tracked', tracked],
  ];
  // Every contender writes its file once, so that none pays for first allocation later.
  for (const [, uri] of contenders) await fio(uri, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4']);
  await pair.primary.json('sync-now', pair.vm);

  console.log(`requests per second and ratio to nbdkit, median of ${values.rounds} rounds of ${values.seconds} s`);
  for (const [name, args] of Object.entries(CASES)) {
    const results = new Map<string, number[]>(contenders.map(([contender]) => [contender, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [contender, uri] of contenders) {
        const { read, write } = await fio(uri, pair.folder, args);
        results.get(contender)!.push(read.iops + write.iops);
      }
      // Deliver what was written between rounds, so that shipping does not run inside a measurement.
      await pair.primary.json('sync-now', pair.vm);
    }
    const base = results.get('nbdkit')!;
    const shown = contenders.map(([contender]) => {
      const own = results.get(contender)!;
      return `${contender} ${Math.round(median(own))} (${median(own.map((value, round) => value / base[round]!)).toFixed(2)})`.padEnd(24);
    });
    console.log(`${name.padEnd(26)} ${shown.join(' ')}`);
  }

  const load = ['--rw=randwrite', '--bs=4k', '--iodepth=4', '--rate_iops=2000'];
  const tail = (side: FioSide) => ((side.clat_ns.percentile?.['99.900000'] ?? 0) / 1e6).toFixed(1);
  const control = await fio(tracked, pair.folder, load);
  const under = fio(tracked, pair.folder, load);
  let switches = 0;
  let running = true;
  void under.finally(() => (running = false));
  while (running) {
    await pair.primary.json('sync-now', pair.vm);
    switches++;
  }
  console.log(`log switch: p99.9 of 4 KiB writes ${tail((await under).write)} ms with ${switches} switches, shipped and applied; ` +
    `${tail(control.write)} ms without`);

  await fio(tracked, pair.folder, ['--rw=write', '--bs=1M', '--iodepth=4']);
  const { bytes, seconds } = await pair.primary.json<{ bytes: number; seconds: number }>('sync-now', pair.vm);
  console.log(`ship and apply: ${(bytes / 2 ** 20 / seconds).toFixed(0)} MiB/s (${(bytes / 2 ** 20).toFixed(0)} MiB, loopback TLS)`);
  console.log(`memory: primary ${memoryMib(pair.primary.pid)} MiB, replica ${memoryMib(pair.replica.pid)} MiB`);
  await pair.compare();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
