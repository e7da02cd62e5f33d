/** A second guest looks at the disks as the first would after a power cut; its records are judged here. */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mustRun } from '../program.ts';
import { Machine } from './machine.ts';
import { judge, LANES, type Found } from './records.ts';

const OUT_BYTES = 16 << 20;

export interface Verdict {
  ok: boolean;
  /** The disks hold the records 1..records. */
  records: number;
  /** Every reason against them: gaps, wrong slots, seed files that changed, e2fsck's findings, records out of bounds. */
  problems: string[];
}

export interface Expected {
  /** At least this many records: what was acknowledged before the replica's instant. */
  min?: number;
  /** At most this many: what was acknowledged after it, and one in flight. */
  max?: number;
  /** Leave the files untouched (default). Without it the guest replays the journals into them. */
  snapshot?: boolean;
}

/** Boots a guest over these raw files: mounts them (journal replay), checks records, seed files and file systems. */
export async function verifyGuest(paths: string[], { min = 1, max = Infinity, snapshot = true }: Expected = {}): Promise<Verdict> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-verify-'));
  try {
    const out = join(folder, 'out.tar');
    await writeFile(out, '');
    await truncate(out, OUT_BYTES);
    const machine = await Machine.boot('verify', [...paths.map((at) => ({ at, snapshot })), { at: out }], paths.length);
    const code = await machine.exitCode();
    const problems = machine.errors();
    if (code !== 0 && problems.length === 0) problems.push(`the guest's check ended with ${code}:\n${machine.said.slice(-2000)}`);
    const judgement = judge(await unpacked(out, folder, paths.length));
    problems.push(...judgement.problems);
    const { records } = judgement;
    if (records < min) problems.push(`${records} records, but ${min} were acknowledged before this instant`);
    if (records > max) problems.push(`${records} records, but there were at most ${max} at this instant`);
    return { ok: problems.length === 0, records, problems };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function unpacked(archive: string, folder: string, disks: number): Promise<Found> {
  await mustRun('tar', ['-xf', archive, '-C', folder]);
  const read = (disk: number, name: string): Promise<Buffer | null> =>
    readFile(join(folder, String(disk), name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
  const lanes = Array.from({ length: LANES }, async (_, lane) => (await read(lane % disks, `lane${lane}`))?.toString('latin1') ?? '');
  const slots = Array.from({ length: disks }, async (_, disk) => (await read(disk, 'slots')) ?? Buffer.alloc(0));
  return {
    lanes: await Promise.all(lanes),
    slots: await Promise.all(slots),
    renamed: (await read(0, 'renamed'))?.toString('latin1') ?? null,
  };
}
