/** Planned and unplanned failover, reverse and home again, on real servers. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { formatsFor, type TestFormat } from '../rig/disk-formats.ts';
import type { Pair, Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';
import { guestWrites, replicatingPair } from './resync-rig.ts';

interface Served extends Status {
  mode: string;
  disks: { path: string; uri: string | null }[];
}

const sizes = [64 << 20, 16 << 20];
const show = (server: TestServer, pair: Pair): Promise<Served> => server.json<Served>('status', pair.vm);

async function writeAt(server: TestServer, pair: Pair, disk: number, at: string, byte: number): Promise<void> {
  const { uri } = (await show(server, pair)).disks[disk]!;
  await mustRun('qemu-io', ['-f', 'raw', uri!], { input: `write -P ${byte} ${at} 64k\nflush\nquit\n` });
}

async function reads(server: TestServer, pair: Pair, disk: number, at: string, byte: number): Promise<void> {
  const { uri } = (await show(server, pair)).disks[disk]!;
  const said = await mustRun('qemu-io', ['-f', 'raw', uri!], { input: `read -P ${byte} ${at} 64k\nquit\n` });
  assert.doesNotMatch(said, /Pattern verification failed/, `disk ${disk} at ${at} is not ${byte}`);
}

/** Both copies hold the same bytes; nobody may be writing. */
async function equalDisks(pair: Pair): Promise<void> {
  await pair.compare();
}

async function settled(server: TestServer, pair: Pair): Promise<void> {
  await server.until<Served>(['status', pair.vm], (status) => status.state === 'Replicating' && status.mode === 'Primary', 60_000);
  await server.json('sync-now', pair.vm);
}

const pairFor = (t: TestContext, format: TestFormat): Promise<Pair> => replicatingPair(t, { format, sizes });

for (const format of formatsFor('dear', 'vhd'))
test(`${format}: planned failover, reverse, planned failover home: nothing compared, nothing lost`, { timeout: 180_000 }, async (t) => {
  const pair = await pairFor(t, format);
  const { primary, replica, vm } = pair;
  await guestWrites(pair, 0, [{ at: '1M', length: '64k', byte: 1 }]);

  assert.equal((await primary.json<Status>('failover', vm, '--prepare')).state, 'PreparedForFailover');
  const locked = await primary.cli('vm', 'attach', vm, '--json');
  assert.equal(locked.status, 3, locked.stdout);
  const served = await replica.json<Served>('failover', vm, '--planned');
  assert.equal(served.state, 'FailedOverWaitingCompletion');
  await reads(replica, pair, 0, '1M', 1);
  await writeAt(replica, pair, 0, '2M', 2);

  const reversed = await replica.json<Served>('reverse', vm);
  assert.deepEqual([reversed.state, reversed.mode], ['Replicating', 'Primary']);
  await settled(replica, pair);
  const old = await show(primary, pair);
  assert.deepEqual([old.state, old.mode], ['Replicating', 'Replica']);
  await reads(replica, pair, 0, '1M', 1);
  await reads(replica, pair, 0, '2M', 2);
  await writeAt(replica, pair, 1, '3M', 3);
  await settled(replica, pair);
  await equalDisks(pair);

  await replica.json('failover', vm, '--prepare');
  await primary.json('failover', vm, '--planned');
  await primary.json('reverse', vm);
  await settled(primary, pair);
  for (const [disk, at, byte] of [[0, '1M', 1], [0, '2M', 2], [1, '3M', 3]] as const) await reads(primary, pair, disk, at, byte);
  await equalDisks(pair);
});

for (const format of formatsFor('dear'))
test(`${format}: unplanned failover, the old primary returns and stops, reverse compares what is known to differ`, { timeout: 180_000 }, async (t) => {
  const pair = await pairFor(t, format);
  const { primary, replica, vm } = pair;
  await guestWrites(pair, 0, [{ at: '1M', length: '64k', byte: 1 }]);
  await primary.json('sync-now', vm);
  await guestWrites(pair, 0, [{ at: '5M', length: '64k', byte: 5 }]);
  await primary.kill9();

  assert.equal((await replica.json<Served>('failover', vm)).state, 'FailedOverWaitingCompletion');
  await writeAt(replica, pair, 0, '9M', 9);
  await primary.start();
  const stopped = await primary.until<Status>(['status', vm], (status) => status.state === 'Error', 30_000);
  assert.match(stopped.healthDetails.join(' '), /has taken VM 'vm1' over.*understudy reverse vm1.*failover cancel vm1/);
  await replica.until<Status>(['status', vm], (status) => /old primary/.test(status.healthDetails.join(' ')), 30_000);
  for (const words of [['resume', vm], ['resume', vm, '--resynchronize'], ['vm', 'attach', vm]]) {
    assert.equal((await primary.cli(...words, '--json')).status, 3, words.join(' '));
  }

  const reversed = await replica.json<Served>('reverse', vm);
  assert.equal(reversed.mode, 'Primary');
  await settled(replica, pair);
  await reads(replica, pair, 0, '1M', 1);
  await reads(replica, pair, 0, '5M', 0);
  await reads(replica, pair, 0, '9M', 9);
  await equalDisks(pair);
  const events = await replica.json<{ id: string | number; data: { rung?: string } }[]>('events', vm, '--limit', '1000');
  assert.equal(events.findLast(({ id }) => id === 'ResynchronizationStarted')?.data.rung, 'suspect-regions');
});
