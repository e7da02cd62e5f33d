/**
 * How fast are logs shipped and applied? Random 4 KiB writes over a part of a disk, so that pages are written more than once: the set is sent to a
 * second server and applied there (TLS on loopback). And the same log applied by the product's code to a file, against replaying its
 * entries one by one.
 *
 *   node bench/shipping.ts [--mib 1024] [--rounds 3]       needs fio
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { hostClock } from '../src/disk/host-clock.ts';
import { hostFiles } from '../src/disk/host-files.ts';
import { openDisk } from '../src/disk/open-disk.ts';
import { createRawDisk } from '../src/disk/raw-disk.ts';
import { openLog } from '../src/hrl/log-reader.ts';
import { LogWriter } from '../src/hrl/log-writer.ts';
import type { DiskRecord, InboxRecord } from '../src/model/records.ts';
import { applySet } from '../src/replication/apply.ts';
import type { ReplicationPorts } from '../src/replication/replication-ports.ts';
import { hostCompute } from '../src/resync/compare/host-compute.ts';
import { Pair } from '../test/rig/pair.ts';
import { mustRun, temporaryFolder } from '../test/rig/program.ts';
import { UNDERSTUDY } from '../test/rig/server.ts';
import { processorSeconds } from './processor-time.ts';
import { median, record, spread } from './record.ts';

const { values } = parseArgs({ options: { mib: { type: 'string', default: '1024' }, rounds: { type: 'string', default: '3' } } });
const [MIB, ROUNDS] = [Number(values.mib), Number(values.rounds)];
const PAGE = 4096;
const cleanups: (() => unknown)[] = [];
const t = { after: (work: unknown) => cleanups.push(work as () => unknown) };

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Seconds, and processor time of this program. */
async function costOf(work: () => Promise<unknown>): Promise<{ seconds: number; processor: number }> {
  const before = process.cpuUsage();
  const seconds = await secondsOf(work);
  const { user, system } = process.cpuUsage(before);
  return { seconds, processor: (user + system) / 1e6 };
}

async function shipped(): Promise<void> {
  const pair = await Pair.make(t, { sizes: [64 * 2 ** 30], frequencySec: 900 });
  await pair.replicate();
  const [uri] = await pair.uris();
  const [rates, processor] = [[] as number[], [] as number[]];
  const used = () => processorSeconds(pair.primary.pid) + processorSeconds(pair.replica.pid);
  for (let round = 0; round < ROUNDS; round++) {
    await mustRun('fio', ['--name=x', '--ioengine=nbd', `--uri=${uri}`, `--size=${MIB / 2}m`, `--io_size=${MIB}m`, '--rw=randwrite', '--bs=4k',
      '--iodepth=16', '--norandommap', `--randseed=${round + 1}`, '--buffer_compress_percentage=50', '--refill_buffers'], { cwd: pair.folder });
    const syncNow = ['--data', pair.primary.data, 'sync-now', pair.vm, '--json'];
    const before = used();
    const seconds = await secondsOf(() => mustRun(UNDERSTUDY, syncNow, { timeoutMs: 3_600_000 }));
    rates.push(MIB / seconds);
    processor.push(((used() - before) / MIB) * 1000);
  }
  await pair.compare();
  await pair.kill();
  record({
    question: 'Shipping and applying a set of logs', command: `node bench/shipping.ts --mib ${MIB}`,
    notes: [`${MIB} MiB of random 4 KiB writes over ${MIB / 2} MiB, half compressible`,
      'from `sync-now` to applied: closed, sent over TLS on loopback, checked, applied, flushed'],
    columns: ['MiB/s', 'processor time of both, ms a MiB'], rows: [[spread(rates, 0), spread(processor, 1)]],
  });
}

async function applied(): Promise<void> {
  const folder = await temporaryFolder(t, 'understudy-bench-');
  const size = (MIB / 2) * 2 ** 20;
  const path = join(folder, 'log.hrl');
  const log = await LogWriter.create({ files: hostFiles, compute: hostCompute() }, path,
    { uniqueId: '00112233-4455-6677-8899-aabbccddeeff', previousUniqueId: null, createdAt: 1, diskSize: size });
  let state = 1;
  for (let left = (MIB * 2 ** 20) / PAGE; left > 0; left -= 16) {
    const records = Array.from({ length: 16 }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return { op: 'write' as const, offset: (state % (size / PAGE)) * PAGE, data: Buffer.alloc(PAGE, state >>> 24) };
    });
    const first = await log.append(records, 2);
    for (const [index] of records.entries()) log.finished(first + index);
  }
  const closed = await log.close();
  const disk = async (name: string): Promise<DiskRecord> => {
    await (await createRawDisk(join(folder, name), size)).close();
    return { diskId: 'd0', path: join(folder, name), format: 'raw', virtualSize: size, logicalSectorSize: 512, geometry: null };
  };
  const [ours, oneByOne] = [await disk('applied.raw'), await disk('replayed.raw')];
  const set: InboxRecord = { vmId: 'v', epoch: 1, status: 'received', closedAt: 1, disks: [{ diskId: 'd0', uniqueId: closed.uniqueId,
    previousUniqueId: null, path, size: closed.size, digest: closed.digest, entries: closed.entries, diskSize: size }] };
  const open = ({ path: at }: DiskRecord) => openDisk(at, { format: 'raw', readOnly: false });
  const ports = { files: hostFiles, clock: hostClock, openDisk: open } as unknown as ReplicationPorts;
  const replay = async () => {
    const [reader, target] = [await openLog(hostFiles, path, { diskSize: size }), await open(oneByOne)];
    for await (const entry of reader.entries()) {
      const data = new Uint8Array(entry.length);
      await reader.readData(entry, data);
      await target.write(data, entry.offset);
    }
    await target.flush();
    await target.close();
    await reader.close();
  };
  const rates = { ours: [] as number[], replay: [] as number[], cheaper: [] as number[] };
  for (let round = 0; round <= ROUNDS; round++) {
    const [a, b] = [await costOf(() => applySet(ports, set, [ours], new AbortController().signal)), await costOf(replay)];
    // The first round allocates the files.
    if (round === 0) continue;
    rates.ours.push(MIB / a.seconds);
    rates.replay.push(MIB / b.seconds);
    rates.cheaper.push(b.processor / a.processor);
  }
  await mustRun('cmp', [ours.path, oneByOne.path]);
  record({
    question: 'Applying a log, against replaying its entries one by one', command: `node bench/shipping.ts --mib ${MIB}`,
    columns: ['applied, MiB/s', 'one by one, MiB/s', 'ratio', 'one by one, processor time to applied'],
    rows: [[spread(rates.ours, 0), spread(rates.replay, 0), (median(rates.ours) / median(rates.replay)).toFixed(2), spread(rates.cheaper)]],
  });
}

try {
  await applied();
  await shipped();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
