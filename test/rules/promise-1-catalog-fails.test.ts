/**
 * Promise 1 where the catalog cannot be written at the moment when something must be put on record: the guest goes on, nothing is
 * forgotten, and a restart believes no log with a gap and no map that lacks a bit.
 * Seen to fail: `loggingFailed` without `owe` (an unhandled rejection ends the server); `owe` that waits for no mark; no retry; `#record`
 * that leaves memory ahead of a catalog that failed at its commit.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { resume } from '../simulation/resync-rig.ts';
import { World } from '../simulation/world.ts';
import { DISK_IDS, REGION_BYTES, TrackingRig } from './tracking-rig.ts';
import type { Stall } from './watched-files.ts';

const FULL = new UnderstudyError('io', 'CATALOG_NOT_WRITABLE', 'database or disk is full', 'Make room.');

/** How the log fails, and whether the write lease fails with it. */
const ways: { name: string; begin: (rig: TrackingRig) => void; marked: boolean }[] = [
  { name: 'the log volume is full', begin: (rig) => (rig.volume.fault = { path: /\.hrl/, operation: 'write', errno: 'ENOSPC' }), marked: true },
  { name: 'the log hangs', begin: (rig) => (rig.watch.stalls = hanging(/\.hrl/)), marked: true },
  { name: 'the log hangs, and the lease too', begin: (rig) => (rig.watch.stalls = hanging(/\.hrl|lease$/)), marked: false },
];

function hanging(path: RegExp): Stall[] {
  return [{ path, operation: 'write' }, { path, operation: 'remove' }, { path, operation: 'datasync' }];
}

const between = (at: number, end: number): boolean => at >= 0 && at < end;

for (const { name, begin, marked } of ways) {
  test(`promise 1: the catalog cannot be written, and ${name}: the guest goes on, and all is on record later`, async () => {
    const rig = await TrackingRig.begun();
    await rig.during(rig.write('d0', 0, 1));
    rig.catalogFault = FULL;
    begin(rig);
    const asked = rig.scheduler.now;
    rig.watch.trace.length = 0;
    await rig.during(Promise.all(DISK_IDS.map((diskId) => rig.write(diskId, REGION_BYTES, 2))));
    assert.ok(rig.scheduler.now - asked <= 2 * rig.boundedWaitMs + 600, `the guest waited ${rig.scheduler.now - asked} ms`);
    assert.equal(rig.tracking.mode, 'logging', 'the catalog could be written');
    assert.equal(rig.vm.logging, false);
    const { watch } = rig;
    const written = watch.find(/^write> \/disks/);
    if (marked) assert.ok(between(watch.find(/^(remove\. .*\.index|datasync\. .*lease)$/), written), 'the guest went on before a restart would find the loss');
    else assert.ok(rig.scheduler.now - asked >= rig.boundedWaitMs + 500, 'a lease still covered the write');
    assert.deepEqual([rig.vm.owed?.loss?.trigger, rig.vm.owed?.failure], [3, FULL]);
    const again = rig.scheduler.now;
    await rig.during(rig.write('d1', 9 * REGION_BYTES, 3));
    assert.ok(rig.scheduler.now - again < 100, 'the next write waits again');
    await assert.rejects(rig.switchLog(), { code: 'NOT_TRACKING' });

    rig.catalogFault = null;
    rig.watch.stalls = [];
    rig.volume.fault = null;
    await rig.scheduler.pass(20_000);
    assert.deepEqual(rig.losses.map(({ trigger }) => trigger), [3], 'on record once');
    assert.equal(rig.tracking.mode, 'map-only');
    assert.equal(rig.vm.owed, null);
    assert.deepEqual(rig.suspectRegions('d1'), [1, 9]);
  });

  test(`promise 4: … ${name}, and the process dies before that: no log is believed`, async () => {
    for (let point = 0; point <= 12; point++) {
      const rig = await TrackingRig.begun(point + 1);
      await rig.during(rig.write('d0', 0, 1));
      rig.catalogFault = FULL;
      begin(rig);
      if (point > 0) rig.crashAfter(point);
      const written = Promise.all(DISK_IDS.map((diskId) => rig.write(diskId, REGION_BYTES, 2)));
      await rig.ends(written, point === 0 ? 600_000 : 8000);
      rig.crash('process');
      rig.volume.fault = null;
      rig.catalogFault = null;
      const loss = await rig.open();
      if (point === 0) assert.notEqual(loss, null, 'a log with a gap is believed');
      if (loss !== null) {
        assert.equal(rig.tracking.mode, 'map-only');
        continue;
      }
      const closed = await rig.switchLog();
      const replayed = await rig.replay([closed]);
      for (const diskId of DISK_IDS) assertSameBytes(replayed[diskId]!, rig.diskBytes(diskId), `crash after operation ${point}: ${diskId}`);
    }
  });
}

test('promise 1: what failed is on record with a clean stop too, and only then', async () => {
  for (const works of [true, false]) {
    const rig = await TrackingRig.begun();
    rig.catalogFault = FULL;
    rig.volume.fault = { path: /\.hrl/, operation: 'write', errno: 'ENOSPC' };
    await rig.during(rig.write('d0', 0, 1));
    rig.volume.fault = null;
    if (works) rig.catalogFault = null;
    const closing = rig.during(rig.vm.close());
    if (works) await closing;
    else await assert.rejects(closing, FULL);
    assert.equal(rig.tracking.running, !works);
    rig.catalogFault = null;
    rig.life.alive = false;
    const loss = await rig.open();
    assert.deepEqual(rig.losses.map(({ trigger }) => trigger), [3]);
    assert.equal(loss?.trigger, works ? undefined : 3);
    assert.equal(rig.tracking.mode, 'map-only');
    assert.equal(rig.tracking.mapTrusted, true, 'the map knows what differs');
  }
});

test('promise 1: the logs fill the volume of the disk and of the catalog: they make room, and the guest sees no error', async () => {
  const rig = new TrackingRig();
  let full = true;
  rig.asDisk = (disk) => ({
    ...disk, location: '/disks/d0.raw', writeNow: () => false,
    write: async (data: Uint8Array, offset: number) => {
      if (full) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      await disk.write(data, offset);
    },
  });
  await rig.open();
  await rig.during(rig.vm.begin({ keepMap: false }));
  rig.catalogFault = FULL;
  rig.watch.trace.length = 0;
  rig.watch.done = () => {
    if (rig.watch.find(/^remove\. .*\.hrl$/) >= 0) full = false;
  };
  await rig.during(rig.write('d0', 0, 7));
  assert.equal(rig.vm.owed?.loss?.trigger, 3);
});

for (const kind of ['process', 'machine'] as const) {
  test(`R10: the change map fails, the catalog too, and then the ${kind}: the map is not believed`, async () => {
    const rig = await TrackingRig.begun();
    rig.catalogFault = FULL;
    rig.volume.fault = { path: /\.map/, operation: 'write', errno: 'EIO' };
    await rig.during(rig.write('d0', 0, 1));
    assert.equal(rig.vm.suspects(), null);
    assert.equal(rig.vm.logging, true, 'the log is whole');
    rig.volume.fault = null;
    rig.crash(kind);
    rig.catalogFault = null;
    assert.equal((await rig.open())?.trigger, 4);
    assert.equal(rig.tracking.mapTrusted, false);
  });
}

test('promise 1: a log switch that cannot be recorded changes nothing', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.catalogFault = FULL;
  const files = rig.watch.openFiles.length;
  await assert.rejects(rig.switchLog(), FULL);
  assert.equal(rig.vm.epoch(), 1);
  assert.equal(rig.watch.openFiles.length, files, 'the new logs stay open');
  await rig.during(rig.write('d0', 512, 2));
  rig.catalogFault = null;
  const closed = await rig.switchLog();
  assert.equal(closed.epoch, 1);
  assertSameBytes((await rig.replay([closed])).d0, rig.diskBytes('d0'));
  assert.deepEqual(rig.losses, []);
});

test('promise 1: replication goes on by itself when its catalog can be written again, with the loss on record', async () => {
  const world = new World(21);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000));
  world.primary.catalogFault = FULL;
  await world.scheduler.pass(180_000);
  world.primary.volume.fault = { path: /\.hrl$/, operation: 'write', errno: 'ENOSPC' };
  await world.scheduler.pass(180_000);
  assert.equal(world.relationship.state, 'Replicating', 'the catalog could be written');
  assert.equal(world.tracked!.owed?.loss?.trigger, 3);
  world.primary.volume.fault = null;
  world.primary.catalogFault = null;
  assert.ok(await world.scheduler.until(() => world.relationship.required?.trigger === 3, 60_000), world.relationship.state);
  world.stopGuest();
  resume(world);
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.relationship.state);
});
