/**
 * Promise 1: guest I/O never fails because of replication, and waits for it at most a bounded moment; then trigger 3.
 * Seen to fail: in tracked-disk.ts `#watch` never started; the rejection handler of `#append` without `loggingFailed`;
 * `stopLogging`
 * leaving its pending operations; in write-lease.ts `#bounded` waiting for the write alone; in tracked-vm.ts `stopLogging`,
 * the record
 * put after the disks have gone on; `LogWriter.distrust` not called (the restart then believes the log).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { World } from '../simulation/world.ts';
import type { Operation } from './watched-files.ts';
import { DISK_IDS, REGION_BYTES, TrackingRig } from './tracking-rig.ts';

/** Ways in which the volume of the tracking logs lets us down. */
const ways: { name: string; path: RegExp; operation: Operation; errno: string | null }[] = [
  { name: 'is full', path: /\.hrl/, operation: 'write', errno: 'ENOSPC' },
  { name: 'is broken', path: /\.hrl$/, operation: 'write', errno: 'EIO' },
  { name: 'hangs', path: /\.hrl/, operation: 'write', errno: null },
  { name: 'hangs for the index alone', path: /\.hrl\.index$/, operation: 'write', errno: null },
];

for (const { name, path, operation, errno } of ways) {
  test(`promise 1: the guest goes on when the log volume ${name}, and trigger 3 is on record first`, async () => {
    const rig = await TrackingRig.begun();
    await rig.during(rig.write('d0', 0, 1));
    rig.watch.trace.length = 0;
    if (errno === null) rig.watch.stalls = [{ path, operation }, { path, operation: 'remove' }];
    else rig.volume.fault = { path, operation: operation as 'write', errno };
    const asked = rig.scheduler.now;
    const writes = DISK_IDS.flatMap((diskId) => [1, 2, 3].map((region) => rig.write(diskId, region * REGION_BYTES, 2)));
    await rig.during(Promise.all(writes));
    const bound = errno === null ? rig.boundedWaitMs + 100 : 100;
    assert.ok(rig.scheduler.now - asked < bound, `the guest waited ${rig.scheduler.now - asked} ms`);
    assert.deepEqual(rig.losses.map(({ trigger }) => trigger), [3]);
    assert.equal(rig.tracking.mode, 'map-only');
    const { watch } = rig;
    const recorded = watch.find(/^catalog mode=map-only/);
    assert.ok(recorded >= 0 && recorded < watch.find(/^write> \/disks/), 'an unlogged write reached a disk before that was on record');
    // From then on nothing waits, and the map goes on.
    const again = rig.scheduler.now;
    await rig.during(rig.write('d0', 9 * REGION_BYTES, 3));
    assert.ok(rig.scheduler.now - again < 100);
    assert.deepEqual(rig.suspectRegions('d0'), [0, 1, 2, 3, 9]);
  });
}

test('promise 1: after the log was given up a restart does not believe it', async () => {
  const rig = await TrackingRig.begun();
  rig.volume.fault = { path: /\.hrl$/, operation: 'write', errno: 'ENOSPC' };
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = null;
  await rig.during(rig.write('d0', 4096, 2));
  rig.crash('process');
  await rig.open();
  assert.equal(rig.tracking.mode, 'map-only');
  assert.equal(rig.vm.disk('d0').log, null);
  await rig.during(rig.write('d0', 8192, 3));
});

test('promise 1: a log volume that is full at a switch costs nothing but the switch', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = { path: /\.2\.hrl/, operation: 'write', errno: 'ENOSPC' };
  await assert.rejects(rig.switchLog(), { code: 'LOG_WRITE_FAILED' });
  await rig.during(rig.write('d0', 512, 2));
  assert.deepEqual(rig.losses, []);
  rig.volume.fault = null;
  const closed = await rig.switchLog();
  assert.equal(closed.epoch, 1);
  assertSameBytes((await rig.replay([closed])).d0, rig.diskBytes('d0'));
});

test('promise 1: the record of who writes may hang too; nothing is proven then, and the guest goes on', async () => {
  const rig = await TrackingRig.begun();
  await rig.scheduler.pass(5000);
  rig.watch.stalls = [{ path: /lease$/, operation: 'write' }];
  const asked = rig.scheduler.now;
  await rig.during(rig.write('d0', 0, 1));
  assert.ok(rig.scheduler.now - asked < rig.boundedWaitMs + 100);
  const again = rig.scheduler.now;
  await rig.during(rig.write('d0', 512, 1));
  assert.ok(rig.scheduler.now - again < 100);
  rig.crash('process');
  assert.equal((await rig.open())?.trigger, 1);
});

test('promise 1: everything hanging at once is one bounded wait for each of map and log, not one for each write', async () => {
  const rig = await TrackingRig.begun();
  await rig.scheduler.pass(5000);
  rig.watch.stalls = [/lease$/, /\.map/, /\.hrl/].map((path) => ({ path, operation: 'write' as const }));
  const asked = rig.scheduler.now;
  await rig.during(Promise.all(Array.from({ length: 20 }, (_, index) => rig.write('d0', index * REGION_BYTES, 1))));
  assert.ok(rig.scheduler.now - asked <= 2 * rig.boundedWaitMs + 100, `${rig.scheduler.now - asked} ms`);
  assert.equal(rig.losses[0]?.trigger, 3);
  assert.equal(rig.tracking.mapTrusted, false);
});

test('promise 1: no file stays open after the logs were given up and the disks were closed', async () => {
  const rig = await TrackingRig.begun();
  rig.volume.fault = { path: /\.hrl$/, operation: 'write', errno: 'ENOSPC' };
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = null;
  await rig.during(rig.vm.close());
  await rig.scheduler.pass(1000);
  assert.deepEqual([...rig.watch.openFiles], []);
});

test('promise 1: a dead link, and a replica that is gone for good, never show to the guest', async () => {
  const world = new World(11);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000));
  world.network.cut = true;
  world.replica.crash('machine');
  world.stopGuest();
  await world.scheduler.pass(100);
  for (let minute = 0; minute < 10; minute++) {
    await world.scheduler.pass(60_000);
    const asked = world.scheduler.now;
    await world.during(world.tracked!.disk('d0').write(new Uint8Array(512).fill(1), 512 * minute));
    assert.ok(world.scheduler.now - asked < 100);
  }
});
