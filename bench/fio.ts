/** fio as the guest: requests over NBD, and what the server's processor paid for each. */
import { mustRun } from '../test/rig/program.ts';
import { processorSeconds } from './processor-time.ts';
import { median } from './record.ts';

export interface FioSide {
  iops: number;
  total_ios: number;
  /** Percentiles that were asked for, ns. */
  clat_ns: { percentile?: Record<string, number> };
}

/** `mixed` with `--unified_rw_reporting=1`. */
export interface FioJob {
  error: number;
  read: FioSide;
  write: FioSide;
  mixed?: FioSide;
  /** Percent of the time that fio itself computed. */
  usr_cpu: number;
  sys_cpu: number;
}

export interface Sample {
  perSecond: number;
  /** Processor time of the server, all threads, user and system. */
  microsPerRequest: number;
  /** Percent of the time that fio itself computed: at about 100 it is the one that is measured. */
  guestPercent: number;
}

/** Throws when it did nothing. `size`: of the part of the disk that it uses. */
export async function fio(uri: string, folder: string, size: string, args: readonly string[]): Promise<FioJob> {
  const text = await mustRun('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, `--size=${size}`, '--output-format=json', '--randrepeat=0',
    '--percentile_list=99:99.9', ...args], { cwd: folder });
  const job = (JSON.parse(text.slice(text.indexOf('{'))) as { jobs: FioJob[] }).jobs[0]!;
  const done = [job.read, job.write, job.mixed].reduce((sum, side) => sum + (side?.total_ios ?? 0), 0);
  if (job.error !== 0 || done === 0) throw new Error(`fio did nothing on ${uri}`);
  return job;
}

/** One run against the server `pid`. */
export async function measured(pid: number, run: () => Promise<FioJob>): Promise<Sample> {
  const before = processorSeconds(pid);
  const { read, write, usr_cpu: user, sys_cpu: system } = await run();
  const micros = (processorSeconds(pid) - before) * 1e6;
  return { perSecond: read.iops + write.iops, microsPerRequest: micros / (read.total_ios + write.total_ios), guestPercent: user + system };
}

/** Medians of the rounds: `RATE (RATIO) MICROS µs`, the ratio round by round to what `base` did in the same one. */
export function shown(own: readonly Sample[], base: readonly Sample[]): string {
  const rate = Math.round(median(own.map(({ perSecond }) => perSecond)));
  const ratio = median(own.map(({ perSecond }, round) => perSecond / base[round]!.perSecond));
  return `${rate} (${ratio.toFixed(2)}) ${Math.round(median(own.map(({ microsPerRequest }) => microsPerRequest)))} µs`;
}
