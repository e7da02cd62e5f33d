/**
 * How soon is a failover there, and what do recovery points cost?
 *
 * 1. Seconds from the command to the first sectors that a guest reads, for the latest instant and for the oldest of 24 points, on a sparse
 *    disk of 100 GiB. The command is a process of its own, so its start is in it; it is shown beside.
 * 2. Applying a set of logs of random 4 KiB writes with 0 and with 24 points, against writing the same to a plain file and flushing it.
 *    Applied by the product's own code (ReplicaVm's parts) over real files; nothing is sent.
 *
 *   node bench/failover.ts [--mib N] [--points N] [--rounds N]       needs qemu-io
 */
import { mkdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { hostClock } from '../src/disk/host-clock.ts';
import { hostFiles } from '../src/disk/host-files.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import { createRawDisk } from '../src/disk/raw-disk.ts';
import { PageSet } from '../src/disk/page-set.ts';
import { LogWriter } from '../src/hrl/log-writer.ts';
import { UndoWriter } from '../src/hrl/undo-writer.ts';
import type { DiskRecord, InboxRecord } from '../src/model/records.ts';
import { applySet } from '../src/replication/apply.ts';
import { captureUndo } from '../src/replication/undo-capture.ts';
import type { ReplicationPorts } from '../src/replication/replication-ports.ts';
import { hostCompute } from '../src/resync/compare/host-compute.ts';
import { Pair, type Status } from '../test/rig/pair.ts';
import { mustRun, temporaryFolder } from '../test/rig/program.ts';

const { values } = parseArgs({ options: {
  mib: { type: 'string', default: '64' }, points: { type: 'string', default: '24' }, rounds: { type: 'string', default: '3' } } });
const POINTS = Number(values.points);
const DISK_BYTES = 100 * 2 ** 30;
const PAGE = 4096;

const cleanups: (() => unknown)[] = [];
const t = { after: (work: unknown) => cleanups.push(work as () => unknown) };
const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

type Served = Status & { disks: { uri: string }[] };

async function timed<T>(work: () => Promise<T>): Promise<[ms: number, result: T]> {
  const start = performance.now();
  const result = await work();
  return [performance.now() - start, result];
}

/** Part 1: a replica with points, each with some changed pages all over the disk. */
async function toFirstRead(): Promise<void> {
  const pair = await Pair.make(t as never, {
    sizes: [DISK_BYTES], frequencySec: 900, env: { UNDERSTUDY_POINT_INTERVAL_SEC: '0' }, enable: ['--recovery-history', String(POINTS)] });
  await pair.replicate();
  const [uri] = await pair.uris();
  for (let point = 0; point <= POINTS; point++) {
    const writes = Array.from({ length: 64 }, (_, at) => ['-c', `write -P ${point + 1} ${((at * 7919 + point * 104_729) % 100_000) * 2 ** 20} 64k`]);
    await mustRun('qemu-io', ['-f', 'raw', ...writes.flat(), uri!]);
    await pair.primary.json('sync-now', pair.vm);
  }
  const points = await pair.replica.json<{ id: string; kind: string }[]>('points', pair.vm);
  const kept = points.filter(({ kind }) => kind !== 'latest');
  if (kept.length !== POINTS) throw new Error(`${kept.length} points instead of ${POINTS}`);
  const [start] = await timed(() => pair.replica.json('fingerprint'));
  const [guest] = await timed(() => mustRun('qemu-io', ['-f', 'raw', '-r', '-c', 'read 0 64k', uri!]));
  console.log(`a command that does nothing: ${seconds(start)}; a guest that reads from an attached disk: ${seconds(guest)}`);
  for (const [name, id] of [['latest', 'latest'], [`oldest of ${POINTS} points`, kept[0]!.id]] as const) {
    const taken: number[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      const [ms] = await timed(async () => {
        const { disks } = await pair.replica.json<Served>('failover', pair.vm, '--test', '--point', id);
        await mustRun('qemu-io', ['-f', 'raw', '-r', '-c', 'read 0 64k', '-c', `read ${DISK_BYTES - 65_536} 64k`, disks[0]!.uri]);
      });
      taken.push(ms);
      await pair.replica.json('failover', 'cancel', pair.vm);
    }
    console.log(`${name.padEnd(20)} ${seconds(median(taken))} from the command to the guest's first read`);
  }
  await pair.kill();
}

/** Part 2: the same set of random writes to a plain file, applied without points, and applied with points. */
async function applying(): Promise<void> {
  const folder = await temporaryFolder(t as never, 'understudy-bench-');
  mkdirSync(join(folder, 'store'));
  const size = 4 * 2 ** 30;
  const count = (Number(values.mib) * 2 ** 20) / PAGE;
  const offsets = Array.from({ length: count }, (_, at) => ((at * 2_654_435_761) % (size / PAGE)) * PAGE);
  const compute = hostCompute();
  const logs = { files: hostFiles, compute };
  const rates = new Map<string, number[]>();
  const note = (name: string, ms: number) => rates.set(name, [...(rates.get(name) ?? []), (Number(values.mib) * 1000) / ms]);
  for (let round = 0; round < Number(values.rounds); round++) {
    const path = join(folder, 'store', `disk${round}.raw`);
    await (await createRawDisk(path, size)).close();
    const record: DiskRecord = { diskId: 'd0', path, format: 'raw', virtualSize: size, logicalSectorSize: 512, geometry: null };
    const data = Buffer.alloc(PAGE, round + 1);
    const logPath = join(folder, `${round}.hrl`);
    const log = await LogWriter.create(logs, logPath,
      { uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: null, createdAt: 1, diskSize: size });
    for (const offset of offsets) log.finished(await log.append([{ op: 'write', offset, data }], 2));
    const closed = await log.close();
    const set: InboxRecord = { vmId: 'v', epoch: 1, status: 'received', closedAt: 1,
      disks: [{ diskId: 'd0', uniqueId: closed.uniqueId, previousUniqueId: null, path: logPath, size: closed.size, digest: closed.digest,
        entries: closed.entries, diskSize: size }] };
    const ports = { files: hostFiles, clock: hostClock,
      openDisk: ({ path: at }: DiskRecord) => openDisk(at, { format: 'raw', readOnly: false }) } as unknown as ReplicationPorts;
    const stop = new AbortController().signal;
    // Once before, so that nobody pays for allocating the file.
    await applySet(ports, set, [record], stop);
    const plain = await open(path, 'r+');
    note('plain writing', (await timed(async () => {
      for (let at = 0; at < offsets.length; at += 64) await Promise.all(offsets.slice(at, at + 64).map((offset) => plain.write(data, 0, PAGE, offset)));
      await plain.datasync();
    }))[0]);
    await plain.close();
    note('apply, 0 points', (await timed(() => applySet(ports, set, [record], stop)))[0]);
    // A set costs the same with one point or 24: only the newest point's undo log grows. Here every page is touched for the first time.
    note('apply, 24 points', (await timed(async () => {
      const disk = await openDisk(path, { format: 'raw', readOnly: true, lock: false });
      const writer = await UndoWriter.open(logs, `${path}.1.hru`, { diskSize: size, epoch: 1, time: 1 }, 0, 2);
      await captureUndo(disk, (async function* ranges() {
        for (const offset of offsets) yield { offset, length: PAGE };
      })(), new PageSet(), writer, stop);
      await writer.finish();
      await writer.close();
      await disk.close();
      await applySet(ports, set, [record], stop);
    }))[0]);
  }
  const base = median(rates.get('plain writing')!);
  console.log(`\n${count} random writes of 4 KiB, flushed; median of ${values.rounds}; ${dirname(folder)}`);
  for (const [name, found] of rates) console.log(`${name.padEnd(20)} ${median(found).toFixed(0)} MiB/s (${(median(found) / base).toFixed(2)})`);
}

try {
  await toFirstRead();
  await applying();
} finally {
  for (const work of cleanups.reverse()) await work();
}
