/**
 * A real Linux guest with the real qemu-ga: a point that is application-consistent needs no journal, a standard one does; and its network card takes
 * the address that a failover would give it.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { hostClock, hostRandom } from '../../src/disk/host-clock.ts';
import { openAgentSocket } from '../../src/failover/guest-agent/agent-channel.ts';
import { giveAddresses } from '../../src/failover/guest-agent/guest-addresses.ts';
import { hostSockets } from '../../src/failover/guest-agent/host-sockets.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { GUEST_MAC } from '../rig/guest/machine.ts';
import { agentSkip } from '../rig/guest/prepare.ts';
import { inspectDisks } from '../rig/guest/verify.ts';
import { startWriter } from '../rig/guest/writer.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

const DISK_BYTES = 64 << 20;
/** Attempts at a freeze, on a machine that may be very busy. */
const TRIES = 10;
/** Of ext4's superblock, and what it says when a journal has yet to be replayed. */
const INCOMPATIBLE_AT = 1024 + 0x60;
const NEEDS_RECOVERY = 0x4;

interface Point { id: string; kind: string }
type Served = Status & { disks: { uri: string }[] };

async function needsRecovery(path: string): Promise<boolean> {
  const file = await open(path);
  const bytes = Buffer.alloc(4);
  await file.read(bytes, 0, 4, INCOMPATIBLE_AT);
  await file.close();
  return (bytes.readUInt32LE() & NEEDS_RECOVERY) !== 0;
}

/** As after a failover (src/failover/guest-control.ts), over the same agent. */
async function takesAddress(agent: string): Promise<void> {
  const open = (timeoutMs: number) => openAgentSocket({ sockets: hostSockets, clock: hostClock, random: hostRandom }, agent, timeoutMs);
  const { signal } = new AbortController();
  const given = { card: GUEST_MAC.toUpperCase(), address: '192.0.2.17', prefix: 24, gateway: '192.0.2.1', dns: ['192.0.2.53'] };
  await giveAddresses({ clock: hostClock, open, signal, macOf: (mac) => mac }, [given]);
  const channel = await open(10_000);
  try {
    const cards = await channel.call('guest-network-get-interfaces', null, 10_000) as {
      'hardware-address'?: string; 'ip-addresses'?: { 'ip-address': string; prefix: number }[] }[];
    const card = cards.find(({ 'hardware-address': mac }) => mac === GUEST_MAC);
    assert.deepEqual(card?.['ip-addresses']?.map(({ 'ip-address': address, prefix }) => `${address}/${prefix}`), ['192.0.2.17/24']);
  } finally {
    channel.close();
  }
  await assert.rejects(giveAddresses({ clock: hostClock, open, signal, macOf: (mac) => mac }, [{ ...given, address: '300.0.2.17' }]),
    { code: 'GUEST_ADDRESS_REFUSED' });
}

test('the guest writes records while its file systems are frozen for a point: at that point they are whole without their journals', {
  skip: agentSkip(),
}, async (t) => {
  const pair = await Pair.make(t, {
    sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900, env: { UNDERSTUDY_POINT_INTERVAL_SEC: '0' }, enable: ['--recovery-history', '24'] });
  const { primary, replica, vm, folder } = pair;
  await primary.json('vm', 'attach', vm);
  const uris = await pair.uris();
  const image = join(folder, 'ext4.raw');
  await makeExt4(image, DISK_BYTES);
  for (const uri of uris) await mustRun('nbdcopy', ['--flush', image, uri]);
  const agent = join(folder, 'qga.sock');
  const writer = await startWriter(uris, { agent });
  atEnd(t, () => writer.kill());
  await primary.json('start', vm);
  await pair.untilState('Replicating');

  const points = () => replica.json<Point[]>('points', vm);
  const cycle = async (): Promise<{ point: Point; least: number; most: number }> => {
    await writer.untilAcked(writer.acked() + 10);
    const least = writer.acked();
    await primary.json('sync-now', vm);
    return { point: (await points()).findLast(({ kind }) => kind !== 'latest')!, least, most: writer.acked() + 1 };
  };
  /** The disks at the point, copied out of a test failover. */
  const at = async (id: string): Promise<string[]> => {
    const served = await replica.json<Served>('failover', vm, '--test', '--point', id);
    const copies = served.disks.map((_, index) => join(folder, `copy${index}.raw`));
    for (const [index, { uri }] of served.disks.entries()) await mustRun('nbdcopy', [uri, copies[index]!]);
    await replica.json('failover', 'cancel', vm);
    return copies;
  };

  const standard = await cycle();
  assert.equal(standard.point.kind, 'standard');
  assert.deepEqual(await Promise.all((await at(standard.point.id)).map(needsRecovery)), [true, true], 'as after a power cut');

  await primary.json('set', vm, '--app-consistent-hours', '1', '--guest-agent', agent);
  let rested = await cycle();
  for (let tries = 1; rested.point.kind !== 'application-consistent' && tries < TRIES; tries++) rested = await cycle();
  const why = (await primary.json<{ applicationConsistentAttempt: unknown }>('status', vm)).applicationConsistentAttempt;
  assert.equal(rested.point.kind, 'application-consistent', JSON.stringify(why));
  const copies = await at(rested.point.id);
  assert.deepEqual(await Promise.all(copies.map(needsRecovery)), [false, false]);
  // Read only, so that no journal could be replayed: every finding is one of the disk as it lies.
  for (const copy of copies) await mustRun('e2fsck', ['-fn', copy]);
  const verdict = await inspectDisks(copies, { min: rested.least, max: rested.most });
  assert.deepEqual(verdict.problems, []);
  await takesAddress(agent);
  // The guest goes on: what it wrote after the instant is nowhere in the point.
  await writer.untilAcked(writer.acked() + 10);
  assert.ok(writer.acked() > verdict.records);
  await writer.stop();
});
