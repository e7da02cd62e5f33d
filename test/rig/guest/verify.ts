/**
 * The disks as the guest would find them after a power cut, and its records judged: by a second guest, or without one by e2fsprogs, which
 * takes a second instead of ten. Where a guest has to boot is what a test is about, the first; else the second.
 */
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convertImage } from '../../../src/disk/images/convert-image.ts';
import { qemuName } from '../disk-formats.ts';
import { mustRun, run } from '../program.ts';
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
    await mustRun('tar', ['-xf', out, '-C', folder]);
    return verdict(await foundIn(folder, paths.length), problems, { min, max });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The same for image files without a guest: raw copies of them are brought up as at a mount (journals replayed, nothing repaired), checked, and
 * read. The files are untouched.
 */
export async function inspectDisks(paths: string[], { min = 1, max = Infinity }: Omit<Expected, 'snapshot'> = {}): Promise<Verdict> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-inspect-'));
  try {
    const problems: string[] = [];
    for (const [disk, path] of paths.entries()) {
      const [copy, files] = [join(folder, `${disk}.raw`), join(folder, String(disk))];
      // QEMU's tools may not open a VHDX that a server has open.
      if (qemuName(path) === 'raw') await mustRun('cp', ['--sparse=always', '--reflink=auto', path, copy]);
      else await convertImage(path, copy, { to: { format: 'raw' } });
      // Preen: what a mount would do, and no more; it refuses what needs a decision.
      const replayed = await run('e2fsck', ['-p', copy], { env: SBIN });
      if (replayed.status !== 0 && replayed.status !== 1) problems.push(`e2fsck -p of disk ${disk}: ${replayed.stdout}${replayed.stderr}`);
      const checked = await run('e2fsck', ['-fn', copy], { env: SBIN });
      if (checked.status !== 0) problems.push(`e2fsck of disk ${disk}: ${checked.stdout.slice(-2000)}`);
      await mkdir(files);
      await mustRun('debugfs', ['-R', `rdump / ${files}`, copy], { env: SBIN });
      const seeds = await run('sha256sum', ['-c', '--status', '../manifest'], { cwd: join(files, 'seed') });
      if (seeds.status !== 0) problems.push(`seed files of disk ${disk} differ from their sums`);
    }
    return verdict(await foundIn(folder, paths.length), problems, { min, max });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const SBIN = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

function verdict(found: Found, problems: string[], { min, max }: { min: number; max: number }): Verdict {
  const judgement = judge(found);
  problems.push(...judgement.problems);
  const { records } = judgement;
  if (records < min) problems.push(`${records} records, but ${min} were acknowledged before this instant`);
  if (records > max) problems.push(`${records} records, but there were at most ${max} at this instant`);
  return { ok: problems.length === 0, records, problems };
}

/** The files of disk d lie in `folder`/d. */
async function foundIn(folder: string, disks: number): Promise<Found> {
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
