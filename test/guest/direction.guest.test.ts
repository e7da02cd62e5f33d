/** A real guest loses its primary, goes on at the replica, and comes home, with every record that was acknowledged before a planned move. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { guestSkip } from '../rig/guest/prepare.ts';
import { inspectDisks } from '../rig/guest/verify.ts';
import { startWriter, type Writer } from '../rig/guest/writer.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';

const DISK_BYTES = 128 << 20;

interface Served extends Status {
  mode: string;
  disks: { uri: string | null }[];
}

const served = async (server: TestServer, pair: Pair): Promise<string[]> =>
  (await server.json<Served>('status', pair.vm)).disks.map(({ uri }) => uri!);

/** The guest writes at least so many more records on these disks, then is shut down; the last acknowledged record. */
async function goesOn(writer: Writer, records: number): Promise<number> {
  await writer.untilAcked(writer.startedAt + records);
  return writer.stop();
}

async function inSync(server: TestServer, pair: Pair): Promise<void> {
  await server.until<Served>(['status', pair.vm], ({ state, mode }) => state === 'Replicating' && mode === 'Primary', 120_000);
  await server.json('sync-now', pair.vm);
}

test('a real guest: primary killed mid-write, unplanned failover, reverse at rung 1, planned failover home', { skip: guestSkip() }, async (t) => {
  const pair = await Pair.make(t, { sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900 });
  const { primary, replica, vm } = pair;
  await primary.json('vm', 'attach', vm);
  const uris = await pair.uris();
  const image = join(pair.folder, 'ext4.raw');
  await makeExt4(image, DISK_BYTES);
  for (const uri of uris) await mustRun('nbdcopy', ['--flush', image, uri]);
  const writer = await startWriter(uris);
  atEnd(t, () => writer.kill());
  await primary.json('start', vm);
  await pair.untilState('Replicating');
  await writer.untilAcked(writer.acked() + 10);
  const synced = writer.acked();
  await primary.json('sync-now', vm);
  await writer.untilAcked(writer.acked() + 5);
  await primary.kill9();
  const lost = await writer.kill();

  await replica.json('failover', vm);
  const heir = await startWriter(await served(replica, pair));
  atEnd(t, () => heir.kill());
  t.diagnostic(`replicated at least ${synced}, acknowledged ${lost}, the replica goes on after ${heir.startedAt}`);
  assert.ok(heir.startedAt >= synced && heir.startedAt <= lost + 1);
  const onReplica = await goesOn(heir, 20);

  await primary.start();
  await primary.until<Status>(['status', vm], ({ state }) => state === 'Error', 60_000);
  await replica.json('reverse', vm);
  await inSync(replica, pair);
  const events = await replica.json<{ id: string | number; data: { rung?: string } }[]>('events', vm, '--limit', '1000');
  assert.equal(events.findLast(({ id }) => id === 'ResynchronizationStarted')?.data.rung, 'suspect-regions');
  const again = await startWriter(await served(replica, pair));
  atEnd(t, () => again.kill());
  assert.equal(again.startedAt, onReplica, 'nothing that was acknowledged is lost by a reversal');
  const beforeHome = await goesOn(again, 10);

  await replica.json('failover', vm, '--prepare');
  await primary.json('failover', vm, '--planned');
  const home = await startWriter(await served(primary, pair));
  atEnd(t, () => home.kill());
  assert.equal(home.startedAt, beforeHome, 'a planned failover loses nothing');
  const last = await goesOn(home, 10);
  await primary.json('reverse', vm);
  await inSync(primary, pair);
  const replicas = pair.disks.map((_, index) => pair.replicaPath(index));
  assert.deepEqual((await inspectDisks(replicas, { min: last, max: last })).problems, []);
  await pair.compare();
});
