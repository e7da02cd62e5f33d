import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { makeExt4 } from '../rig/guest/disk-image.ts';
import { guestSkip } from '../rig/guest/prepare.ts';
import { inspectDisks, verifyGuest } from '../rig/guest/verify.ts';
import { startWriter } from '../rig/guest/writer.ts';
import { temporaryFolder } from '../rig/program.ts';

test('the rig tells a killed guest’s disks from disks that were copied at two different moments', { skip: guestSkip() }, async (t) => {
  const folder = await temporaryFolder(t);
  const live = [join(folder, 'live0.raw'), join(folder, 'live1.raw')];
  const mixed = [join(folder, 'mixed0.raw'), join(folder, 'mixed1.raw')];
  for (const path of live) await makeExt4(path, 64 << 20);
  const writer = await startWriter(live);
  atEnd(t, () => writer.kill());
  await writer.untilAcked(10);
  await copyFile(live[0]!, mixed[0]!);
  await writer.untilAcked(writer.acked() + 20);
  await copyFile(live[1]!, mixed[1]!);
  const acked = await writer.kill();
  const [real, mixture] = [await verifyGuest(live, { min: acked, max: acked + 1 }), await verifyGuest(mixed)];
  assert.deepEqual(real.problems, []);
  assert.equal(mixture.ok, false);
  // Without a guest the same is found, of both.
  assert.deepEqual(await inspectDisks(live, { min: acked, max: acked + 1 }), real);
  assert.equal((await inspectDisks(mixed)).ok, false);
  t.diagnostic(`${acked} records; of the mixture: ${mixture.problems[0]}`);
});
