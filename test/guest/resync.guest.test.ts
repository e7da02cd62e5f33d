import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { guestSkip } from '../rig/guest/prepare.ts';
import { inspectDisks, verifyGuest } from '../rig/guest/verify.ts';
import { startWriter } from '../rig/guest/writer.ts';
import { Pair } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

const DISK_BYTES = 128 << 20;

test('a real guest writes on through resynchronizations, one of every region and one of suspect regions: replication goes on, the ' +
  'replica boots with every record, its file systems are clean, and the disks are equal', { skip: guestSkip() }, async (t) => {
  const pair = await Pair.make(t, { sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900, enable: ['--auto-resync', 'off'] });
  const replica = pair.disks.map((_, index) => pair.replicaPath(index));
  await pair.primary.json('vm', 'attach', pair.vm);
  const uris = await pair.uris();
  const image = join(pair.folder, 'ext4.raw');
  await makeExt4(image, DISK_BYTES);
  for (const uri of uris) await mustRun('nbdcopy', ['--flush', image, uri]);
  const writer = await startWriter(uris);
  atEnd(t, () => writer.kill());
  await pair.primary.json('start', pair.vm);
  await pair.untilState('Replicating');

  const resynchronized = async (rung: string): Promise<void> => {
    const before = writer.acked();
    await pair.untilState('Resynchronizing');
    const { rung: taken } = await pair.primary.until<{ rung: string; phase: string }>(['resync', 'status', pair.vm],
      ({ phase }) => phase !== 'characteristics' && phase !== 'required');
    assert.equal(taken, rung);
    // Alive while it compares, and after it.
    await writer.untilAcked(before + 20);
    await pair.untilState('Replicating', 180_000);
    await writer.untilAcked(writer.acked() + 10);
    const min = writer.acked();
    await pair.primary.json('sync-now', pair.vm);
    assert.deepEqual((await inspectDisks(replica, { min, max: writer.acked() + 1 })).problems, []);
  };

  await t.test('asked for by the user: everything is compared', async () => {
    await pair.primary.json('set', pair.vm, '--disk-rate', '1M');
    await pair.primary.json('suspend', pair.vm);
    await writer.untilAcked(writer.acked() + 20);
    await pair.primary.json('resume', pair.vm, '--resynchronize');
    await resynchronized('full-compare');
  });
  await t.test('the logs outgrew their limit: what was written is compared', async () => {
    await pair.primary.json('set', pair.vm, '--log-limit', '0.01');
    await pair.untilState('WaitingForStartResynchronize');
    await writer.untilAcked(writer.acked() + 20);
    await pair.primary.json('set', pair.vm, '--log-limit', '50');
    await pair.primary.json('resume', pair.vm);
    await resynchronized('suspect-regions');
  });
  await t.test('after the guest was killed the disks are equal', async () => {
    const acked = await writer.kill();
    assert.deepEqual(writer.errors(), []);
    await pair.primary.json('sync-now', pair.vm);
    assert.deepEqual((await verifyGuest(replica, { min: acked, max: acked + 1 })).problems, []);
    await pair.compare();
  });
});
