/**
 * What does a format cost? Sequential (1 MiB, 8 at a time) and 4 KiB random I/O (16 at a time) through our drivers, against our raw driver and
 * `qemu-img bench` in the same run; then comparing two nearly equal disks of each format, and making them equal. All in turns within each
 * round, warm page cache; medians, and ratios to raw.
 *
 *   node bench/formats.ts [--mib 256] [--rounds 3] [--only io|resync] [--folder DIR]       needs qemu-img
 *
 * `qemu-img bench` has no random mode: for 4 KiB it strides over the disk, which is what random costs without a seek.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createImage } from '../src/disk/images/create-image.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import type { DiskFormat, VirtualDisk } from '../src/disk/virtual-disk.ts';
import { hostCompute } from '../src/resync/compare/host-compute.ts';
import { compareLocal, syncLocal } from '../src/resync/compare/local.ts';
import { mustRun } from '../test/rig/program.ts';
import { median, record, spread } from './record.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256' }, rounds: { type: 'string', default: '3' }, only: { type: 'string' },
    folder: { type: 'string', default: tmpdir() },
  },
});
const MIB = 1 << 20;
const size = Number(values.mib) * MIB;
const rounds = Number(values.rounds);
const RANDOM_OPERATIONS = 8192;
const command = `node bench/formats.ts --mib ${values.mib} --rounds ${values.rounds}`;
const NOTES = [`disks of ${values.mib} MiB, all of it written`, `medians of ${values.rounds} rounds, the formats in turns`, 'warm page cache'];

interface Shape {
  name: string;
  format: DiskFormat;
  variant?: 'fixed' | 'dynamic';
  qemu: string;
}

const SHAPES: Shape[] = [
  { name: 'raw', format: 'raw', qemu: 'raw' },
  { name: 'vhd fixed', format: 'vhd', variant: 'fixed', qemu: 'vpc' },
  { name: 'vhd dynamic', format: 'vhd', variant: 'dynamic', qemu: 'vpc' },
  { name: 'vhdx fixed', format: 'vhdx', variant: 'fixed', qemu: 'vhdx' },
  { name: 'vhdx dynamic', format: 'vhdx', variant: 'dynamic', qemu: 'vhdx' },
];

/** Repeatable offsets of 4 KiB pages. */
function pages(seed: number): number[] {
  let state = seed;
  return Array.from({ length: RANDOM_OPERATIONS }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state % (size / 4096)) * 4096;
  });
}

const inOrder = Array.from({ length: size / MIB }, (_, index) => index * MIB);
const WORKLOADS = [
  { name: 'read 1M', bytes: MIB, depth: 8, write: false, offsets: () => inOrder },
  { name: 'write 1M', bytes: MIB, depth: 8, write: true, offsets: () => inOrder },
  { name: 'read 4k', bytes: 4096, depth: 16, write: false, offsets: () => pages(1) },
  { name: 'write 4k', bytes: 4096, depth: 16, write: true, offsets: () => pages(2) },
];
type Workload = (typeof WORKLOADS)[number];

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function drive(disk: VirtualDisk, { bytes, depth, write, offsets }: Workload): Promise<number> {
  const left = offsets()[Symbol.iterator]();
  const lane = async () => {
    const buffer = Buffer.alloc(bytes, 0x5a);
    for (const offset of left) await (write ? disk.write(buffer, offset) : disk.read(buffer, offset));
  };
  return seconds(async () => {
    await Promise.all(Array.from({ length: depth }, lane));
    if (write) await disk.flush();
  });
}

async function qemuBench(path: string, { qemu }: Shape, { bytes, depth, write }: Workload): Promise<number> {
  const count = bytes === MIB ? size / MIB : RANDOM_OPERATIONS;
  // A stride that comes to every part of the disk; it goes around at the end.
  const step = bytes === MIB ? MIB : 4096 * 2053;
  const said = await mustRun('qemu-img', ['bench', '-f', qemu, '-c', String(count), '-d', String(depth), '-s', String(bytes), '-S', String(step),
    ...(write ? ['-w', '--pattern=90'] : []), path]);
  return Number(/Run completed in ([\d.]+) seconds/.exec(said)![1]);
}

/** What the machine was least disturbed in. */
const least = (numbers: readonly number[]): number => Math.min(...numbers);
const note = (table: Map<string, number[]>, key: string, value: number): void => void table.set(key, [...(table.get(key) ?? []), value]);

async function fill(path: string, shape: Shape, differing: boolean): Promise<void> {
  await createImage(path, { format: shape.format, size, ...(shape.variant && { variant: shape.variant }) });
  const disk = await openDisk(path, { readOnly: false, format: shape.format });
  const words = new Uint32Array(MIB / 4);
  let state = 7;
  for (const offset of inOrder) {
    for (let at = 0; at < words.length; at++) words[at] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // One page of each eighth megabyte differs.
    if (differing && offset % (8 * MIB) === 0) words.fill(1, 0, 1024);
    await disk.write(new Uint8Array(words.buffer), offset);
  }
  await disk.flush();
  await disk.close();
}

async function io(folder: string): Promise<void> {
  const ours = new Map<string, number[]>();
  const theirs = new Map<string, number[]>();
  for (const shape of SHAPES) await fill(join(folder, shape.name.replace(' ', '.')), shape, false);
  for (let round = 0; round < rounds; round++) {
    for (const workload of WORKLOADS) {
      for (const shape of SHAPES) {
        const path = join(folder, shape.name.replace(' ', '.'));
        const key = `${shape.name}/${workload.name}`;
        const disk = await openDisk(path, { readOnly: false, format: shape.format });
        note(ours, key, await drive(disk, workload));
        const seen = Buffer.alloc(workload.bytes);
        await disk.read(seen, workload.offsets()[0]!);
        if (workload.write) assert.ok(seen.equals(Buffer.alloc(workload.bytes, 0x5a)), `${key} did not write`);
        await disk.close();
        note(theirs, key, await qemuBench(path, shape, workload));
      }
    }
  }
  const rate = (table: Map<string, number[]>, shape: Shape, { name, bytes }: Workload): number => {
    const time = median(table.get(`${shape.name}/${name}`)!);
    return bytes === MIB ? size / MIB / time : RANDOM_OPERATIONS / time / 1000;
  };
  record({
    question: 'What a format costs: sequential and 4 KiB random I/O', command, notes: [...NOTES, 'MiB/s for 1M, thousand operations/s for 4k'],
    columns: ['workload', 'format', 'ours', 'ours / our raw', '`qemu-img bench`', 'ours / qemu'],
    rows: WORKLOADS.flatMap((workload) => SHAPES.map((shape) => {
      const [mine, other] = [rate(ours, shape, workload), rate(theirs, shape, workload)];
      return [workload.name, shape.name, mine.toFixed(1), (mine / rate(ours, SHAPES[0]!, workload)).toFixed(2), other.toFixed(1),
        (mine / other).toFixed(2)];
    })),
  });
}

async function resync(folder: string): Promise<void> {
  const compute = hostCompute({ level: 3 });
  const compared = new Map<string, number[]>();
  const synced = new Map<string, number[]>();
  /** Seconds of processors, all threads together: what others do on the machine changes it least. */
  const computed = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const shape of SHAPES) {
      const [a, b] = ['a', 'b'].map((name) => join(folder, `${name}.${round}.${shape.name.replace(' ', '.')}`)) as [string, string];
      await fill(a, shape, false);
      await fill(b, shape, true);
      const source = await openDisk(a, { readOnly: true, format: shape.format });
      const target = await openDisk(b, { readOnly: false, format: shape.format });
      const options = { compute, sameSectorSize: true };
      const measured = async (what: string, table: Map<string, number[]>, work: () => Promise<unknown>) => {
        const before = process.cpuUsage();
        note(table, shape.name, await seconds(work));
        const { user, system } = process.cpuUsage(before);
        note(computed, `${what} ${shape.name}`, (user + system) / 1e6);
      };
      await measured('make equal', synced, () => syncLocal(source, target, options));
      let equal = false;
      await measured('compare equal', compared, async () => ({ equal } = await compareLocal(source, target, options)));
      assert.ok(equal, `${shape.name}: the disks differ after the sync`);
      await source.close();
      await target.close();
      rmSync(a);
      rmSync(b);
    }
  }
  const raw = SHAPES[0]!.name;
  const ratio = (of: (numbers: number[]) => number, table: Map<string, number[]>, [name, base]: [string, string]): string =>
    (of(table.get(base)!) / of(table.get(name)!)).toFixed(2);
  const rows = ([['make equal', synced], ['compare equal', compared]] as const).flatMap(([what, table]) => SHAPES.map(({ name }) =>
    [what, name, spread(table.get(name)!), ratio(median, table, [name, raw]), ratio(least, table, [name, raw]),
      spread(computed.get(`${what} ${name}`)!), ratio(median, computed, [`${what} ${name}`, `${what} ${raw}`])]));
  record({
    question: 'Comparing two disks of one format and making them equal, against raw disks: at least 0.8', command,
    notes: [...NOTES, 'a page in each eighth megabyte differs', 'seconds'],
    columns: ['', 'format', 'seconds', 'raw / this, medians', 'raw / this, least', 'CPU seconds', 'raw / this, CPU'],
    rows,
  });
}

const folder = mkdtempSync(join(values.folder, 'understudy-formats-'));
try {
  if (values.only !== 'resync') await io(folder);
  if (values.only !== 'io') await resync(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
