/**
 * What do first touches cost the guest? 4 KiB writes all over a sparse disk of 1 TiB: nearly each of them is the first one in its region, whose
 * bit must be durable before the write is answered. Tracked against the same server untracked and against `nbdkit file`, in turns, each on a
 * file of its own; then over so few regions that all of them are hot. Everything is shipped afterwards, and both disks must be equal.
 *
 *   node bench/first-touches.ts [--gib 1024] [--seconds 3] [--rounds 3]       needs fio, nbdkit
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { HOT_REGIONS_MAX, REGION_BYTES_DEFAULT } from '../src/tracking/change-map.ts';
import { Pair } from '../test/rig/pair.ts';
import { mustRun, run, untilThere } from '../test/rig/program.ts';
import { fio, measured, shown, type Sample } from './fio.ts';
import { record } from './record.ts';

const { values } = parseArgs({
  options: { gib: { type: 'string', default: '1024' }, seconds: { type: 'string', default: '3' }, rounds: { type: 'string', default: '3' } },
});
const cleanups: (() => unknown)[] = [];
const WRITES = ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--time_based', `--runtime=${values.seconds}`, '--norandommap'];
/** Half as many regions as stay hot. */
const HOT_SIZE = `${(HOT_REGIONS_MAX / 2) * (REGION_BYTES_DEFAULT / 2 ** 20)}m`;

try {
  if ((await run('fio', ['--version']).catch(() => null))?.status !== 0) {
    console.log('skipped: fio is absent');
  } else {
    const bytes = Number(values.gib) * 2 ** 30;
    const pair = await Pair.make({ after: (work: unknown) => cleanups.push(work as () => unknown) }, { sizes: [bytes], frequencySec: 900 });
    await pair.replicate();
    const [plain, peer, socket] = ['untracked.raw', 'nbdkit.raw', 'nbdkit.sock'].map((name) => join(pair.folder, name)) as [string, string, string];
    for (const path of [plain, peer]) await mustRun('truncate', ['--size', String(bytes), path]);
    const nbdkit = spawn('nbdkit', ['-f', '-U', socket, 'file', peer], { stdio: 'ignore' });
    cleanups.push(() => nbdkit.kill('SIGKILL'));
    await untilThere(socket);
    const { disks } = await pair.primary.json<{ disks: { uri: string }[] }>('vm', 'add', 'plain', '--disk', plain);
    const contenders = [
      { name: 'nbdkit file', uri: `nbd+unix:///?socket=${socket}`, pid: nbdkit.pid! },
      { name: 'untracked', uri: disks[0]!.uri, pid: pair.primary.pid },
      { name: 'tracked', uri: (await pair.uris())[0]!, pid: pair.primary.pid },
    ];
    const rows: string[][] = [];
    for (const [where, size] of [[`all over ${values.gib} GiB`, String(bytes)], [`in ${HOT_SIZE}, all regions hot`, HOT_SIZE]] as const) {
      if (size === HOT_SIZE) for (const { uri } of contenders) await fio(uri, pair.folder, size, ['--rw=write', '--bs=1M', '--iodepth=4']);
      const samples = contenders.map((): Sample[] => []);
      for (let round = 0; round < Number(values.rounds); round++) {
        for (const [index, { uri, pid }] of contenders.entries()) {
          await mustRun('sync', []);
          samples[index]!.push(await measured(pid, () => fio(uri, pair.folder, size, WRITES)));
        }
        await pair.primary.json('sync-now', pair.vm);
      }
      rows.push([where, ...samples.map((own) => shown(own, samples[0]!))]);
    }
    await pair.compare();
    record({
      question: '4 KiB writes that touch regions for the first time: requests a second, ratio to nbdkit round by round, processor time of the server for one',
      command: `node bench/first-touches.ts --gib ${values.gib} --seconds ${values.seconds} --rounds ${values.rounds}`,
      notes: [`regions of ${REGION_BYTES_DEFAULT / 2 ** 20} MiB, the ${HOT_REGIONS_MAX} used last are hot: their bits stay set`, 'fio, depth 16'],
      columns: ['where', ...contenders.map(({ name }) => name)], rows,
    });
  }
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
