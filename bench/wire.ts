/**
 * What crosses the wire when two disks are made equal with `disk sync` through a remote shell? Every byte of the pipe counts, in both
 * directions. Two lines: equal disks (at most 4 KiB), and 1 % of the data changed in scattered pages of 4 KiB (at most 1.05 × those pages,
 * compressed, and 64 KiB). Fails when one is missed.
 *
 * usage: node bench/wire.ts [--gib 8] [--data-every 1] [--folder DIR]     --data-every N: one MiB of N is data, the rest holes
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { syncThroughPipe } from '../test/rig/whole-pipe.ts';

const { values } = parseArgs({ options: {
  gib: { type: 'string', default: '8' }, 'data-every': { type: 'string', default: '1' }, folder: { type: 'string', default: tmpdir() },
} });
const size = Number(values.gib) * 2 ** 30;
const dataEvery = Number(values['data-every']);
const program = join(import.meta.dirname, '..', 'bin', 'understudy');
const onePercent = Math.round(size / dataEvery / 4096 / 100);

for (const [name, differing] of [['equal', 0], ['1 %, 4 KiB scattered', onePercent]] as const) {
  const folder = mkdtempSync(join(values.folder, 'understudy-bench-'));
  try {
    const { sent, received, wireBytes, differingBytes, compressedBytes } = await syncThroughPipe(folder, { size, dataEvery, differing, program });
    const limit = differing === 0 ? 4096 : Math.floor(1.05 * compressedBytes + 65536);
    const ok = sent + received <= limit && differingBytes === differing * 4096;
    console.log({ name, size, dataBytes: size / dataEvery, differingBytes, compressedBytes, pipeBytes: sent + received, sent, received, wireBytes, limit, ok });
    if (!ok) process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
