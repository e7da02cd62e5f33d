import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { atEnd, type Ending } from '../rig/at-end.ts';
import { formatsFor } from '../rig/disk-formats.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { untilThere } from '../rig/program.ts';

const ROUNDS = process.env.UNDERSTUDY_TEST_LONG === '1' ? 24 : 10;

for (const format of formatsFor('dear')) test(`${format}: kill -9 of either server at random moments under load, ${ROUNDS} times: ` +
  'no guest I/O error, no resync, disks equal', async (t) => {
  const pair = await Pair.make(t, { format, sizes: [1 << 30] });
  await pair.replicate();
  const { socket, stop } = await reconnectingDisk(t, pair);
  const seed = Number(process.env.SEED ?? Date.now() % 100_000);
  t.diagnostic(`SEED=${seed}`);
  const enough = `${pair.folder}/enough`;
  const load = fio(t, { socket, folder: pair.folder, enough, seed });
  // What opens a disk of a server that is down gets an error; a guest has opened it long since.
  await pair.primary.until<Status>(['status', pair.vm], ({ pendingBytes }) => pendingBytes > 0);
  for (let round = 0; round < ROUNDS; round++) {
    const victim = (seed + round * 7) % 3 === 0 ? pair.replica : pair.primary;
    // A moment of the load, not a wait for something to happen.
    await new Promise((resolve) => setTimeout(resolve, 300 + ((seed * (round + 1) * 7919) % 1200)));
    await victim.kill9();
    await victim.start();
    if (round % 4 === 3) await pair.primary.cli('sync-now', pair.vm);
  }
  await writeFile(enough, '');
  const done = await load;
  assert.equal(done.status, 0, `${done.output.slice(0, 2000)}\n${pair.primary.log.slice(-6000)}`);
  await stop();
  await pair.primary.json('sync-now', pair.vm);
  const status = await pair.status();
  assert.equal(status.state, 'Replicating', JSON.stringify(status));
  await pair.compare();
  const events = await pair.primary.json<{ id: string | number }[]>('events', pair.vm, '--limit', '1000');
  assert.ok(!events.some(({ id }) => id === 'ResynchronizationRequired'), 'a resync was required');
});

/** A disk that rides out restarts of its server, as QEMU's does with reconnect-delay: nbdkit opens it again and repeats. */
async function reconnectingDisk(t: Ending, pair: Pair) {
  const socket = `${pair.folder}/guest.sock`;
  const [uri] = await pair.uris();
  const daemon = spawn('nbdkit', ['-f', '-U', socket, '--filter=retry', 'nbd', `uri=${uri}`, 'retries=60', 'retry-delay=1',
    'retry-exponential=no'], { stdio: ['ignore', 'inherit', 'inherit'] });
  atEnd(t, () => daemon.kill('SIGKILL'));
  await untilThere(socket);
  return {
    socket,
    async stop() {
      daemon.kill('SIGTERM');
      await once(daemon, 'exit');
    },
  };
}

/** Random writes with flushes until the file `enough` is there; its exit code tells of any I/O error. */
async function fio(
  t: Ending, { socket, folder, enough, seed }: { socket: string; folder: string; enough: string; seed: number },
): Promise<{ status: number; output: string }> {
  const child = spawn('fio', ['--name=load', '--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, '--rw=randwrite', '--bs=4k',
    '--iodepth=8', '--size=64m', '--fsync=64', '--time_based', '--runtime=3600',
    `--trigger-file=${enough}`, '--trigger=true',
    `--randseed=${seed}`], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  atEnd(t, () => child.kill('SIGKILL'));
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const [status] = (await once(child, 'close')) as [number];
  return { status, output };
}
