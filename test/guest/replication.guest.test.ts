import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { guestSkip } from '../rig/guest/prepare.ts';
import { inspectDisks, type Expected } from '../rig/guest/verify.ts';
import { startWriter, type Writer } from '../rig/guest/writer.ts';
import { formatsFor } from '../rig/disk-formats.ts';
import { Pair } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

const ROUNDS = process.env.UNDERSTUDY_TEST_LONG === '1' ? 12 : 3;
const DISK_BYTES = 128 << 20;

for (const format of formatsFor('dear', 'vhdx')) test(`${format}: ` +
  'a real Linux guest writes fsynced records across two disks while deltas ship: after every applied log the replica holds a ' +
  'consistent prefix and clean file systems, through kill -9 of both servers, and the guest boots from it and goes on', {
  skip: guestSkip(),
}, async (t) => {
  // The long interval: logs are applied when this test asks for it, so it knows between which records each instant lies.
  const pair = await Pair.make(t, { format, sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900 });
  const replica = pair.disks.map((_, index) => pair.replicaPath(index));
  await pair.primary.json('vm', 'attach', pair.vm);
  const uris = await pair.uris();
  await fileSystems(pair, uris);
  const writer = await startWriter(uris);
  atEnd(t, () => writer.kill());
  await pair.primary.json('start', pair.vm);
  await pair.untilState('Replicating');

  for (let round = 0; round < ROUNDS; round++) {
    await t.test(`round ${round}${interruption(round)}`, async (t) => {
      if (round % 3 === 1) await restart(pair.primary);
      if (round % 3 === 2) await restart(pair.replica);
      // The guest is alive: what it goes on to write after the interruption is part of this round's log.
      await writer.untilAcked(writer.acked() + 10);
      const min = writer.acked();
      await pair.primary.json('sync-now', pair.vm);
      await agrees(t, replica, { min, max: writer.acked() + 1 });
    });
  }
  await t.test('the last log after the guest was killed', async (t) => {
    const acked = await writer.kill();
    assert.deepEqual(writer.errors(), []);
    await pair.primary.json('sync-now', pair.vm);
    await agrees(t, replica, { min: acked, max: acked + 1 });
    await pair.compare();
    await nothingHappened(pair);
  });
  await t.test('the guest goes on from the replica', () => goesOn(pair, replica, writer));
});

const interruption = (round: number): string => ['', ', the primary server killed', ', the replica server killed'][round % 3]!;

/** File systems made elsewhere and copied in through NBD by a program that is not ours. */
async function fileSystems(pair: Pair, uris: string[]): Promise<void> {
  const image = join(pair.folder, 'ext4.raw');
  await makeExt4(image, DISK_BYTES);
  for (const uri of uris) await mustRun('nbdcopy', ['--flush', image, uri]);
}

async function restart(server: Pair['primary']): Promise<void> {
  await server.kill9();
  await server.start();
}

async function agrees(t: TestContext, replica: string[], expected: Expected): Promise<void> {
  const verdict = await inspectDisks(replica, expected);
  t.diagnostic(`${verdict.records} records, expected ${expected.min}..${expected.max}`);
  assert.deepEqual(verdict.problems, []);
}

async function nothingHappened(pair: Pair): Promise<void> {
  const { state, health } = await pair.status();
  assert.deepEqual({ state, health }, { state: 'Replicating', health: 'Normal' });
  const events = await pair.primary.json<{ id: string | number }[]>('events', pair.vm, '--limit', '1000');
  assert.ok(!events.some(({ id }) => id === 'ResynchronizationRequired'), 'a resync was required');
}

/** The primary host is gone; a guest boots from the replica's disks themselves, finds all records and writes more. */
async function goesOn(pair: Pair, replica: string[], dead: Writer): Promise<void> {
  await pair.kill();
  const heir = await startWriter(replica);
  assert.ok(heir.startedAt >= dead.acked() && heir.startedAt <= dead.acked() + 1, `${heir.startedAt} after ${dead.acked()}`);
  await heir.untilAcked(heir.startedAt + 20);
  const last = await heir.stop();
  assert.deepEqual((await inspectDisks(replica, { min: last, max: last })).problems, []);
}
