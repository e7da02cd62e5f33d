/**
 * `npm run demo`: the product at work on this machine alone, in less than two minutes on two idle cores. Two servers, a VM
 * with two
 * disks, real file systems, other people's programs as guest and as judge. Ends with 0 only if every claim it prints was checked.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mebibytes, proven, say, seconds, step } from './demo/narrator.ts';
import { completePath, makeFileSystem, mustBeClean, mustBeIdentical, randomWrites, SteadyWrites } from './demo/outside-programs.ts';
import { DISK_BYTES, TwoHosts, VM } from './demo/two-hosts.ts';
import { guestMissing } from '../test/rig/guest/prepare.ts';
import { verifyGuest } from '../test/rig/guest/verify.ts';
import { startWriter, type Writer } from '../test/rig/guest/writer.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** The file system is over the first part of a disk; programs that write raw bytes get what lies behind. */
const FILE_SYSTEM_BYTES = 128 << 20;
const RAW_WRITES_BYTES = 24 << 20;

interface Story {
  hosts: TwoHosts | null;
  guest: Writer | null;
}

async function main(story: Story): Promise<void> {
  completePath();
  const hosts = (story.hosts = await TwoHosts.make());
  await begin(hosts);
  await firstCopy(hosts);
  await deltasOnDemand(hosts);
  await startGuest(story, hosts);
  await deltasByThemselves(hosts, story.guest);
  await killUnderLoad(hosts, story.guest);
  await compare(hosts, story.guest);
}

async function begin(hosts: TwoHosts): Promise<void> {
  step('Two hosts, one virtual machine');
  say(`Two servers on loopback, "alpha" (primary) and "beta" (replica), each with its own data folder in ${hosts.folder}.`);
  say(`A VM "${VM}" with two disks of ${mebibytes(DISK_BYTES)}; each holds an ext4 file system with files on it.`);
  await makeFileSystem(hosts.disks[0]!, FILE_SYSTEM_BYTES, join(ROOT, 'src'));
  await makeFileSystem(hosts.disks[1]!, FILE_SYSTEM_BYTES, join(ROOT, 'test'));
  await hosts.pair(30);
  proven('Each host pinned the other’s fingerprint. The disks are served over NBD, to any hypervisor:');
  for (const uri of hosts.uris) say(`    ${uri.replace(hosts.folder, '…')}`);
}

async function firstCopy(hosts: TwoHosts): Promise<void> {
  step('Initial replication');
  await hosts.onPrimary('start', VM);
  const { state, health } = await hosts.untilStatus((status) => status.state === 'Replicating');
  proven(`state ${state}, health ${health}: beta has a copy of both disks`);
}

async function deltasOnDemand(hosts: TwoHosts): Promise<void> {
  step('A delta: what is written goes over, and nothing else');
  for (const [index, uri] of hosts.uris.entries()) {
    say(`fio writes ${mebibytes(RAW_WRITES_BYTES)} in random places of disk ${index + 1}, with flushes …`);
    await randomWrites(uri, FILE_SYSTEM_BYTES, RAW_WRITES_BYTES, hosts.folder);
  }
  const { logSequence, bytes, seconds } = await hosts.onPrimary<{ logSequence: number; bytes: number; seconds: number }>('sync-now', VM);
  proven(`log ${logSequence} of both disks, ${mebibytes(bytes)}, is applied on beta; it took ${seconds.toFixed(1)} s`);
  await identical(hosts);
}

async function startGuest(story: Story, hosts: TwoHosts): Promise<void> {
  step('A real guest starts on the disks');
  const missing = guestMissing();
  if (missing !== null) {
    say(`Left out, no guest can run here (${missing}).`);
    return;
  }
  say('QEMU boots a small Linux from the network disks (the first time its kernel is downloaded). It mounts both file systems and');
  say('writes numbered records, each one fsynced, in turn on one disk and on the other.');
  story.guest = await startWriter(hosts.uris);
  proven(`the guest runs; records on its disks so far: ${story.guest.acked()}`);
}

async function deltasByThemselves(hosts: TwoHosts, guest: Writer | null): Promise<void> {
  step('Deltas by themselves');
  const { lastAppliedEpoch } = await hosts.untilReplicaStatus(() => true);
  // Where nothing is written there is nothing to ship.
  if (guest === null) await randomWrites(hosts.uris[0]!, FILE_SYSTEM_BYTES, RAW_WRITES_BYTES, hosts.folder);
  say('Nobody asks for anything now. Every 30 seconds the log of all disks is closed at one instant, shipped and applied …');
  const at = seconds();
  const records = guest?.acked() ?? 0;
  const after = await hosts.untilReplicaStatus((status) => status.lastAppliedEpoch > lastAppliedEpoch);
  const waited = (seconds() - at).toFixed(0);
  proven(`nobody asked, and after ${waited} s (the rest of a cycle, and the way) log ${after.lastAppliedEpoch} is applied on beta`);
  if (guest !== null) say(`The guest did not notice: it has written ${guest.acked() - records} more records in the meantime.`);
}

async function killUnderLoad(hosts: TwoHosts, guest: Writer | null): Promise<void> {
  step('The primary server is killed under load');
  say('QEMU’s block layer writes to disk 2, flush after flush' + (guest === null ? ' …' : '; the guest goes on with its records …'));
  const load = new SteadyWrites(hosts.uris[1]!, FILE_SYSTEM_BYTES);
  await load.batch();
  await guest?.untilAcked(guest.acked() + 5);
  // Into the middle of the next batch.
  await new Promise((resolve) => setTimeout(resolve, 150));
  const died = seconds();
  await hosts.restartPrimary(() => say('kill -9 alpha. Its clients wait, as their reconnect-delay tells them.'));
  say(`alpha is started again and serves ${(seconds() - died).toFixed(1)} s after the kill.`);
  await guest?.untilAcked(guest.acked() + 5);
  // The batch that the kill interrupted, and one that began after it.
  await load.batch();
  await load.batch();
  const written = await load.stop();
  proven(`${mebibytes(written)} written through the kill, no I/O error`);
  if (guest !== null) proven(`the guest has ${guest.acked()} records and saw no I/O error`);
}

/** The end of the primary: what the replica holds is compared by others. */
async function compare(hosts: TwoHosts, guest: Writer | null): Promise<void> {
  step('Is the replica equal?');
  const acked = (await guest?.kill()) ?? 0;
  if (guest !== null) say(`The guest is killed, as in a power cut, after ${acked} records.`);
  await hosts.onPrimary('sync-now', VM);
  await identical(hosts);
  const { state, health } = await hosts.untilStatus(() => true);
  if (state !== 'Replicating' || health !== 'Normal') throw new Error(`the relationship is ${state}, ${health}`);
  proven(`state ${state}, health ${health}: the kill needed no resynchronization`);
  await hosts.primary.kill9();
  say('Now alpha is killed for good. Only beta’s disks are left.');
  if (guest === null) {
    for (const disk of hosts.replicas) await mustBeClean(disk);
    proven('e2fsck finds nothing on beta’s disks');
    return;
  }
  const { records, problems } = await verifyGuest(hosts.replicas, { min: acked, max: acked + 1 });
  if (problems.length > 0) throw new Error(`the guest that was booted from the replica found: ${problems.join('; ')}`);
  proven(`a guest booted from beta’s disks: records 1 to ${records}, none missing, on both disks; e2fsck finds nothing`);
}

async function identical(hosts: TwoHosts): Promise<void> {
  for (const [index, disk] of hosts.disks.entries()) await mustBeIdentical(disk, hosts.replicas[index]!);
  proven('qemu-img compare: both replica disks are identical to the primary’s, byte for byte');
}

const story: Story = { hosts: null, guest: null };
let stopped = false;

/** Whatever else still runs dies with this process. */
async function end(code: number): Promise<never> {
  await story.guest?.kill();
  await story.hosts?.clear();
  process.exit(code);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (stopped) return;
    stopped = true;
    console.log('\nStopped; what was made is removed.');
    void end(130);
  });
}
try {
  await main(story);
  console.log(`\nDone in ${seconds().toFixed(0)} s. Everything it made is removed again.`);
  await end(0);
} catch (error) {
  // What fails after Ctrl-C fails because of it.
  if (!stopped) {
    console.error(`\nThe demo failed: ${(error as Error).message}`);
    const log = story.hosts?.primary.log.slice(-3000) ?? '';
    if (log !== '') console.error(`What alpha said last:\n${log}`);
    await end(1);
  }
}
