/**
 * What does our NBD server cost, without tracking, compared with `nbdkit file` and `qemu-nbd` on the same file? Usage:
 * node bench/nbd-untracked.ts [--folder DIR] [--seconds N] [--rounds N] [--only CASE,…]. Needs fio, nbdkit, qemu-nbd.
 * The servers take turns within each round, so that what else the machine does hits all of them: read the ratios. When
 * other programs want the processors, a server of many threads gets more of them than a server of one; then read the
 * processor time per request.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { untilThere } from '../test/rig/program.ts';
import { fio, measured, shown, type Sample } from './fio.ts';

const { values } = parseArgs({
  options: {
    folder: { type: 'string', default: tmpdir() },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
  },
});

const SIZE_MIB = 1024;
const CASES: Record<string, string[]> = {
  'randread 4k q16': ['--rw=randread', '--bs=4k', '--iodepth=16'],
  'randread 4k q1': ['--rw=randread', '--bs=4k', '--iodepth=1'],
  'randwrite 4k q16': ['--rw=randwrite', '--bs=4k', '--iodepth=16'],
  'randwrite 4k q16 flush/32': ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--fsync=32'],
  'randrw 4k q16': ['--rw=randrw', '--bs=4k', '--iodepth=16'],
  'randwrite 64k q16': ['--rw=randwrite', '--bs=64k', '--iodepth=16'],
  'read 1M q4': ['--rw=read', '--bs=1M', '--iodepth=4'],
  'write 1M q4': ['--rw=write', '--bs=1M', '--iodepth=4'],
};

const folder = mkdtempSync(join(values.folder, 'nbd-bench-'));
const image = join(folder, 'image.raw');

interface Contender {
  name: string;
  start: (socket: string) => ChildProcess;
}
const ours = join(import.meta.dirname, 'nbd-serve.ts');
const contenders: Contender[] = [
  { name: 'nbdkit', start: (socket) => spawn('nbdkit', ['-f', '-U', socket, 'file', image], { stdio: 'inherit' }) },
  {
    name: 'qemu-nbd',
    start: (socket) => spawn('qemu-nbd', ['-f', 'raw', '-t', '-e', '8', '-x', '', '--cache=writeback', '-k', socket, image],
      { stdio: 'inherit' }),
  },
  {
    name: 'understudy',
    start: (socket) => spawn(process.execPath, [ours, image, socket], { stdio: ['ignore', 'ignore', 'inherit'] }),
  },
];

async function measure(contender: Contender, args: string[]): Promise<Sample> {
  const socket = join(folder, `${contender.name}.sock`);
  const server = contender.start(socket);
  const gone = once(server, 'exit');
  await untilThere(socket);
  const sample = await measured(server.pid!, () => fio(`nbd+unix:///?socket=${socket}`, folder, `${SIZE_MIB}m`,
    ['--time_based', `--runtime=${values.seconds}`, '--norandommap', ...args]));
  server.kill('SIGTERM');
  await gone;
  rmSync(socket, { force: true });
  return sample;
}

try {
  const piece = Buffer.alloc(1024 * 1024, 0x5a);
  for (let i = 0; i < SIZE_MIB; i += 1) writeFileSync(image, piece, { flag: 'a' });
  console.log(`in ${values.folder}: requests per second and their ratio to nbdkit,`
    + ` processor time of the server per request; median of ${values.rounds} rounds of ${values.seconds} s`);
  for (const [name, args] of Object.entries(CASES)) {
    if (values.only !== undefined && !values.only.split(',').includes(name)) continue;
    const results = new Map<string, Sample[]>(contenders.map((contender) => [contender.name, []]));
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const contender of contenders) results.get(contender.name)!.push(await measure(contender, args));
    }
    const base = results.get('nbdkit')!;
    const columns = contenders.map(({ name: server }) => `${server} ${shown(results.get(server)!, base)}`);
    console.log(`${name.padEnd(26)} ${columns.map((column) => column.padEnd(34)).join('')}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
