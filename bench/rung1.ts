/**
 * How long does the repair after a machine crash take? A sparse disk of 1 TiB is replicated; a guest writes 64 MiB in 500 places, and the
 * host dies (the server is killed, its boot id changes). From `resume` to the end of the merge, by the change map alone; memory of both.
 *
 *   node bench/rung1.ts [--gib 1024] [--places 500]
 */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { hostClock } from '../src/disk/host-clock.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import { Pair } from '../test/rig/pair.ts';
import { temporaryFolder } from '../test/rig/program.ts';
import { record } from './record.ts';
import { repaired } from './repairs.ts';

const { values } = parseArgs({ options: { gib: { type: 'string', default: '1024' }, places: { type: 'string', default: '500' } } });
const [SIZE, PLACES] = [Number(values.gib) * 2 ** 30, Number(values.places)];
const PIECE = Math.floor((64 << 20) / PLACES / 4096) * 4096;
const cleanups: (() => unknown)[] = [];
const t = { after: (work: unknown) => cleanups.push(work as () => unknown) };
const peakMib = (pid: number): number => Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);

try {
  const bootIdFile = join(await temporaryFolder(t), 'boot-id');
  await writeFile(bootIdFile, '11111111-1111-4111-8111-111111111111\n');
  const pair = await Pair.make(t, { sizes: [SIZE], frequencySec: 900, env: { UNDERSTUDY_BOOT_ID_FILE: bootIdFile } });
  await pair.replicate();
  await pair.primary.json('set', pair.vm, '--auto-resync', 'off');
  const disk = await openDisk((await pair.uris())[0]!, { readOnly: false, lock: false, clock: hostClock });
  for (let place = 0; place < PLACES; place++) {
    await disk.write(Buffer.alloc(PIECE, 1 + (place % 250)), Math.floor(((place * SIZE) / PLACES) / 4096) * 4096);
  }
  await disk.flush();
  await disk.close();
  await pair.primary.kill9();
  await writeFile(bootIdFile, '22222222-2222-4222-8222-222222222222\n');
  await pair.primary.start();
  const { state } = await pair.status();
  if (state !== 'WaitingForStartResynchronize') throw new Error(`after the crash the state is ${state}`);
  const { seconds, sent } = await repaired(pair, 'suspect-regions');
  // Also what was never written: qemu-img skips holes on both sides.
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
  record({
    question: 'Repair by the change map after a machine crash', command: `node bench/rung1.ts --gib ${values.gib} --places ${values.places}`,
    notes: ['from the command to the end of the merge, two servers, TLS on loopback', 'peak memory since the start of each server'],
    columns: ['disk', 'dirtied', 'seconds', 'MiB of pages sent', 'primary, MiB', 'replica, MiB'],
    rows: [[`${values.gib} GiB, sparse`, `${Math.round((PIECE * PLACES) / 2 ** 20)} MiB in ${PLACES} places`, seconds.toFixed(2),
      (sent / 2 ** 20).toFixed(1), peakMib(pair.primary.pid), peakMib(pair.replica.pid)]],
  });
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
