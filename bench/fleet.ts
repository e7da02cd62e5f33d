/**
 * What does a fleet of quiet VMs cost? So many protected VMs with two disks each, cycles of 30 s, nobody writing: processor time and
 * memory of both servers over two minutes, and cycles missed. Every VM must be replicating with its replica applied, at the
 * start and at the end.
 *
 *   node bench/fleet.ts [--vms N] [--seconds N]
 */
import { readFileSync } from 'node:fs';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { callHost } from '../src/cli/client.ts';
import { temporaryFolder } from '../test/rig/program.ts';
import { TestServer } from '../test/rig/server.ts';
import { processorSeconds } from './processor-time.ts';
import { record } from './record.ts';

const { values } = parseArgs({ options: { vms: { type: 'string', default: '500' }, seconds: { type: 'string', default: '120' } } });
const [VMS, SECONDS] = [Number(values.vms), Number(values.seconds)];
const DISK_BYTES = 16 << 20;

const cleanups: (() => unknown)[] = [];
const signal = new AbortController().signal;

const memoryMib = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);

async function protect(primary: TestServer, replica: TestServer, folder: string, fingerprint: string, index: number): Promise<void> {
  const name = `vm${index}`;
  const disks: string[] = [];
  for (const disk of ['a', 'b']) {
    const path = join(folder, `${name}-${disk}.raw`);
    await writeFile(path, `${name} ${disk}`);
    await truncate(path, DISK_BYTES);
    disks.push(path);
  }
  await callHost(primary.data, 'vm.add', { name, disks }, { signal });
  await callHost(primary.data, 'vm.attach', { name }, { signal });
  await callHost(primary.data, 'enable', {
    name, replica: `127.0.0.1:${replica.peerPort}`, fingerprint, settings: { frequencySec: 30 },
  }, { signal });
  await callHost(primary.data, 'start', { name }, { signal });
}

async function untilAllReplicate(primary: TestServer): Promise<void> {
  for (;;) {
    const all = await callHost(primary.data, 'status', {}, { signal }) as { state: string }[];
    if (all.length === VMS && all.every(({ state }) => state === 'Replicating')) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

try {
  const folder = await temporaryFolder({ after: (work: unknown) => cleanups.push(work as () => unknown) });
  await mkdir(join(folder, 'disks'));
  const [primary, replica] = [new TestServer('primary', join(folder, 'primary')), new TestServer('replica', join(folder, 'replica'))];
  cleanups.push(() => Promise.all([primary.kill9(), replica.kill9()]));
  await Promise.all([primary.start(), replica.start()]);
  const ours = await callHost(primary.data, 'fingerprint', {}, { signal });
  const theirs = await callHost(replica.data, 'fingerprint', {}, { signal });
  await callHost(replica.data, 'authorize', { fingerprint: ours.fingerprint, storage: join(folder, 'store') }, { signal });
  for (let index = 0; index < VMS; index++) await protect(primary, replica, join(folder, 'disks'), theirs.fingerprint, index);
  await untilAllReplicate(primary);

  const before = [processorSeconds(primary.pid), processorSeconds(replica.pid)];
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  await untilAllReplicate(primary);
  const all = await callHost(primary.data, 'health', {}, { signal });
  const health = Array.isArray(all) ? all : [all];
  const missed = health.reduce((sum, { statistics }) => sum + statistics.missedReplications, 0);
  record({
    question: 'A fleet of quiet VMs', command: `node bench/fleet.ts --vms ${VMS} --seconds ${SECONDS}`,
    notes: [`${VMS} VMs × 2 disks, cycles of 30 s, over ${SECONDS} s`, `cycles missed: ${missed}`],
    columns: ['server', '% of one core', 'memory, MiB'],
    rows: [primary, replica].map((server, index) =>
      [server.name, (100 * (processorSeconds(server.pid) - before[index]!) / SECONDS).toFixed(1), memoryMib(server.pid)]),
  });
  if (missed > 0) process.exitCode = 1;
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
