/**
 * R10: when a bit cannot be made durable within the bounded wait the guest goes on, the map is marked distrusted (in the
 * catalog and
 * on the replica), and the next repair is a full compare.
 * Seen to fail: in tracked-disk.ts `#awaitMarks`, `mapFailed` left out; the wait without its bound; in report.ts the
 * relationship's
 * own `mapTrusted` reported; in tracked-vm.ts `begin`, a map that has failed kept; in `repaired`, the trust recorded whatever the maps say.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from '../simulation/world.ts';
import { REGION_BYTES, TrackingRig } from './tracking-rig.ts';

const errnos = { 'does not answer': null, 'has no space': 'ENOSPC', 'is broken': 'EIO' } as const;
for (const [what, errno] of Object.entries(errnos)) {
  for (const operation of ['write', 'datasync'] as const) {
    test(`R10: the guest goes on when the map's volume ${what} (${operation}), and the catalog says that the map is not believed`, async () => {
      const rig = await TrackingRig.begun();
      if (errno === null) rig.watch.stalls = [{ path: /\.map/, operation }];
      else rig.volume.fault = { path: /\.map/, operation, errno };
      const asked = rig.scheduler.now;
      await rig.during(rig.write('d0', 0, 1));
      assert.ok(rig.scheduler.now - asked < rig.boundedWaitMs + 50, `the guest waited ${rig.scheduler.now - asked} ms`);
      assert.equal(rig.tracking.mapTrusted, false);
      assert.equal(rig.vm.suspects(), null);
      const { watch } = rig;
      const recorded = watch.find('catalog mode=logging mapTrusted=false');
      assert.ok(recorded >= 0 && recorded < watch.find('write> /disks/d0.raw'), 'the write reached the disk first');
      // The next one does not wait again.
      const again = rig.scheduler.now;
      await rig.during(rig.write('d0', REGION_BYTES * 5, 1));
      assert.ok(rig.scheduler.now - again < 50);
    });
  }
}

test('R10: writes that wait for the map side by side, or behind those, go on together', async () => {
  const rig = await TrackingRig.begun();
  rig.watch.stalls = [{ path: /\.map/, operation: 'datasync' }];
  const [asked, under] = [rig.scheduler.now, [] as Promise<void>[]];
  for (let region = 0; region < 5; region++) {
    under.push(rig.write('d0', region * REGION_BYTES, 1));
    await rig.scheduler.pass(20);
  }
  await rig.during(Promise.all(under));
  assert.ok(rig.scheduler.now - asked < rig.boundedWaitMs + 100, `the guest waited ${rig.scheduler.now - asked} ms`);
});

test('R10: a distrusted map stays so over a machine crash', async () => {
  const rig = await TrackingRig.begun();
  rig.volume.fault = { path: /\.map/, operation: 'write', errno: 'EIO' };
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = null;
  rig.crash('machine');
  assert.equal((await rig.open())?.trigger, 4);
  assert.equal(rig.tracking.mapTrusted, false);
  assert.equal(rig.vm.suspects(), null);
});

test('R10: after the resync that follows, the map names what was written since', async () => {
  const rig = await TrackingRig.begun();
  rig.volume.fault = { path: /\.map/, operation: 'write', errno: 'EIO' };
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = null;
  rig.vm.stopLogging({ trigger: 3, reason: 'a test' });
  await rig.during(rig.vm.begin({ keepMap: true }));
  await rig.during(rig.write('d0', REGION_BYTES * 7, 1));
  await rig.during(rig.vm.repaired());
  await rig.during(rig.write('d0', REGION_BYTES * 9, 1));
  assert.notEqual(rig.vm.suspects(), null, 'the map of before is still the one that failed');
  assert.deepEqual(rig.vm.suspects()!.get('d0')!.map(({ offset }) => offset / REGION_BYTES), [7, 9]);
});

test('R10: a map that fails in the middle of a resync is not believed after it', async () => {
  const rig = await TrackingRig.begun();
  rig.vm.stopLogging({ trigger: 3, reason: 'a test' });
  await rig.during(rig.vm.begin({ keepMap: true }));
  rig.volume.fault = { path: /\.map/, operation: 'write', errno: 'EIO' };
  await rig.during(rig.write('d0', 3 * REGION_BYTES, 1));
  rig.volume.fault = null;
  await rig.during(rig.vm.repaired());
  // What is written from here on leaves no bit: a loss that came now must not be repaired by the map.
  await rig.during(rig.write('d0', 5 * REGION_BYTES, 1));
  assert.equal(rig.tracking.mapTrusted, false);
  assert.equal(rig.vm.suspects(), null);
});

test('R10: the replica hears of it, and the next resync compares everything', async () => {
  const world = new World(5);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000));
  world.primary.volume.fault = { path: /\.map/, operation: 'datasync', errno: 'EIO' };
  await world.scheduler.pass(120_000);
  assert.equal(world.primary.relationships.vm(world.relationship.vmId).tracking!.mapTrusted, false);
  assert.equal(world.replicaRecord.mapTrusted, false);
  world.primary.volume.fault = null;
  // Trigger 3 would do with the suspect regions, were the map believed.
  world.primary.volume.fault = { path: /\.hrl$/, operation: 'write', errno: 'ENOSPC' };
  await world.scheduler.pass(60_000);
  assert.equal(world.relationship.required?.trigger, 3);
  assert.equal(world.relationship.required.rung, 'full-compare');
});
