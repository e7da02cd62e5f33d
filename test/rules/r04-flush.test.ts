/**
 * R4: a FLUSH makes the disk durable, and does not wait for the log.
 * Seen to fail: in tracked-disk.ts `flush`, `await this.#log?.persistFinished()` put before the disk's flush; the disk's
 * flush left out.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { TrackingRig } from './tracking-rig.ts';

test('R4: what was answered before a flush survives a machine crash', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const rig = await TrackingRig.begun(seed);
    await rig.during(rig.write('d0', 4096, 7, 4096));
    await rig.during(rig.vm.disk('d0').flush());
    rig.crash('machine');
    assertSameBytes(rig.diskBytes('d0').subarray(4096, 8192), new Uint8Array(4096).fill(7), `seed ${seed}`);
  }
});

test('R4: a flush asks nothing of the log, and is answered while the log hangs', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.watch.stalls = [{ path: /\.hrl/, operation: 'write' }];
  const hanging = rig.write('d0', 4096, 2);
  assert.equal(await rig.ends(hanging, 50), false);
  rig.watch.trace.length = 0;
  assert.ok(await rig.ends(rig.vm.disk('d0').flush(), 50));
  assert.ok(rig.watch.find('datasync. /disks/d0.raw') >= 0);
  assert.equal(rig.watch.find(/\.hrl/), -1);
});
