/**
 * `disk sync` through a remote shell that keeps every byte of its pipe, in both directions: what a network would carry, measured outside
 * of the program. Two disks that are equal, or differ in scattered pages that compress by about a half.
 */
import { chmod, open, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { constants, zstdCompressSync } from 'node:zlib';
import { mustRun } from './program.ts';

const MIB = 2 ** 20;
const PAGE = 4096;

export interface PipeBytes {
  /** Counted in the pipe. */
  sent: number;
  received: number;
  /** What the program says of itself. */
  wireBytes: number;
  differingBytes: number;
  /** All differing pages of the source in one zstd stream, level 1. */
  compressedBytes: number;
}

/** Half of it noise, half of it text: pages of a real guest shrink to about a half. */
function page(number: number, side: number): Buffer {
  const bytes = Buffer.alloc(PAGE, 'the quick brown fox jumps over the lazy dog; ');
  let x = Math.imul(number * 2 + side + 1, 2654435761) | 1;
  for (let at = 0; at < PAGE / 2; at += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes.writeInt32LE(x, at);
  }
  return bytes;
}

/**
 * `dataEvery`: of how many MiB one is data, the others are holes. `differing`: so many pages, spread evenly over the data.
 */
export async function syncThroughPipe(
  folder: string, { size, dataEvery, differing, program }: { size: number; dataEvery: number; differing: number; program: string },
): Promise<PipeBytes> {
  const [source, target] = [join(folder, 'source.raw'), join(folder, 'target.raw')];
  const pages: Buffer[] = [];
  const dataPages = (size / MIB / dataEvery) * (MIB / PAGE);
  const stride = differing === 0 ? Infinity : dataPages / differing;
  const [a, b] = [await open(source, 'w'), await open(target, 'w')];
  for (const file of [a, b]) await file.truncate(size);
  const [left, right] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  let next = 0;
  for (let at = 0, number = 0; at < size; at += dataEvery * MIB) {
    for (let offset = 0; offset < MIB; offset += PAGE, number++) {
      const bytes = page(number, 0);
      left.set(bytes, offset);
      const differs = number >= next;
      right.set(differs && stride < Infinity ? page(number, 1) : bytes, offset);
      if (!differs || stride === Infinity) continue;
      pages.push(bytes);
      next += stride;
    }
    await a.write(left, 0, MIB, at);
    await b.write(right, 0, MIB, at);
  }
  await a.close();
  await b.close();
  const level = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
  const compressedBytes = pages.length === 0 ? 0 : zstdCompressSync(Buffer.concat(pages), level).length;
  const told = JSON.parse(await mustRun(program,
    ['disk', 'sync', source, `host:${target}`, '--json', '--rsh', await countingShell(folder), '--remote-command', program],
    { timeoutMs: 3_600_000 })) as { wireBytes: number; differingBytes: number };
  const [sent, received] = await Promise.all(['sent', 'received'].map(async (name) => (await stat(join(folder, name))).size));
  return { sent: sent!, received: received!, wireBytes: told.wireBytes, differingBytes: told.differingBytes, compressedBytes };
}

async function countingShell(folder: string): Promise<string> {
  const shell = join(folder, 'counting-rsh');
  // The last of the pipe is waited for, so both files are whole when the shell ends.
  await writeFile(shell, `#!/bin/sh\nshift\ntee '${folder}/sent' | sh -c "$*" | tee '${folder}/received'\n`);
  await chmod(shell, 0o755);
  return shell;
}
