/**
 * R26: a resize is a record at an epoch boundary: the map grows first; the replica grows its disk and goes on without resync.
 * Seen to fail: in resize.ts, the map resized after the disk; the disk grown before `growTo` is on record; the size recorded without
 * the switch; the undoing of the map left out; in tracked-vm.ts, the lease not covered; in change-map.ts, the bits not taken over and
 * `orSize` ignored; in apply.ts, the check for a smaller disk left out; in replica-vm.ts, the growth before `applying` is on record.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openLog } from '../../src/hrl/log-reader.ts';
import { MemoryFiles } from '../../src/hrl/memory-files.ts';
import { defectOf } from '../../src/replication/apply.ts';
import { shrunkDisk } from '../../src/replication/replica-resize.ts';
import type { EpochRecord, InboxRecord, RelationshipRecord } from '../../src/model/records.ts';
import { World, DISK_BYTES as WORLD_BYTES } from '../simulation/world.ts';
import { ReplicaRig } from './replica-rig.ts';
import { DISK_BYTES, REGION_BYTES, TrackingRig, VM_ID } from './tracking-rig.ts';

const LARGER = 2 * DISK_BYTES;
const sizeOf = (rig: TrackingRig) => rig.diskBytes('d0').length;
const onRecord = (rig: TrackingRig) => rig.record.disks[0]!;
const sizesOf = (epoch: EpochRecord) => epoch.disks.map(({ diskSize }) => diskSize);

test('R26: map, then disk, then the size, in the transaction that opens the next epoch', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.watch.trace.length = 0;
  await rig.during(rig.vm.grow('d0', LARGER));
  const at = (line: RegExp) => {
    const found = rig.watch.find(line);
    assert.notEqual(found, -1, `${line} in ${rig.watch.trace.join('\n')}`);
    return found;
  };
  assert.ok(at(/syncFolder\. .*vms/) < at(/truncate> \/disks\/d0/), 'the map is durable before the disk grows');
  assert.ok(at(/datasync\. \/disks\/d0/) < at(/catalog epoch 2 open/), 'the disk is durable before the size is on record');
  assert.deepEqual(rig.epochs().map(sizesOf), [[DISK_BYTES, DISK_BYTES], [LARGER, DISK_BYTES], [LARGER, DISK_BYTES]]);
  assert.deepEqual(rig.epochs().map(({ status }) => status), ['closed', 'closed', 'open']);
  assert.deepEqual([onRecord(rig).virtualSize, onRecord(rig).growTo], [LARGER, undefined]);
  assert.equal(rig.catalog.events({}).filter(({ id }) => id === 'DiskResized').length, 1);
});

test('R26: what is written meanwhile and to the new part is in the logs, and its regions are suspect', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const rig = await TrackingRig.begun(seed);
    const growing = rig.vm.grow('d0', LARGER);
    const writes = Array.from({ length: 12 }, (_, index) => rig.write('d0', index * 2 * REGION_BYTES, index + 1));
    await rig.during(Promise.all([growing, ...writes]));
    await rig.during(rig.write('d0', LARGER - 512, 99));
    await rig.switchLog();
    const replayed = new Uint8Array(LARGER);
    await rig.during(replay(rig, replayed));
    assert.ok(Buffer.compare(replayed, rig.diskBytes('d0')) === 0, `seed ${seed}: the logs say another disk`);
    const suspects = rig.suspectRegions('d0');
    for (const region of [0, 10, 22, LARGER / REGION_BYTES - 1]) assert.ok(suspects.includes(region), `seed ${seed}: region ${region}`);
    rig.crash('process');
    assert.equal(await rig.open(), null);
    for (const region of [0, 10, 22, LARGER / REGION_BYTES - 1]) assert.ok(rig.suspectRegions('d0').includes(region), `seed ${seed}: ${region} reopened`);
  }
});

async function replay(rig: TrackingRig, disk: Uint8Array): Promise<void> {
  for (const { status, disks } of rig.epochs()) {
    const { path, diskSize } = disks[0]!;
    if (status !== 'closed') continue;
    const reader = await openLog(rig.volume.mount({ alive: true }), path, { diskSize: diskSize! });
    for await (const entry of reader.entries()) await reader.readData(entry, disk.subarray(entry.offset, entry.offset + entry.length), 0);
    await reader.close();
  }
}

test('R26: a crash at any point of it ends with one size everywhere', async () => {
  const seen = new Set<string>();
  for (let point = 1; point <= 70; point++) {
    for (const kind of ['process', 'machine'] as const) {
      const rig = await TrackingRig.begun(point);
      await rig.during(rig.write('d0', 3 * REGION_BYTES, 7));
      // Long enough for the disks to be sealed where they are.
      await rig.scheduler.pass(1000);
      rig.crashAfter(point);
      await rig.ends(rig.vm.grow('d0', LARGER), 5000);
      rig.crash(kind);
      const where = `${kind} crash after operation ${point}`;
      const loss = await rig.open();
      assert.equal(loss?.trigger ?? null, kind === 'process' ? null : 4, `${where}: ${loss?.reason}`);
      const size = sizeOf(rig);
      seen.add(`${kind} ${size}`);
      assert.deepEqual([onRecord(rig).virtualSize, onRecord(rig).growTo], [size, undefined], where);
      assert.equal(rig.vm.disk('d0').map!.diskSize, size, where);
      assert.equal(rig.tracking.mapTrusted, true, where);
      assert.ok(rig.suspectRegions('d0').includes(3), where);
      const sizes = rig.epochs().map((epoch) => epoch.disks[0]!.diskSize!);
      assert.deepEqual(sizes, sizes.toSorted((a, b) => a - b), where);
      if (kind === 'process') assert.equal(sizes.at(-1), size, where);
      await rig.during(rig.vm.grow('d0', LARGER));
      await rig.during(rig.write('d0', LARGER - 512, 1));
      assert.equal(sizeOf(rig), LARGER, where);
    }
  }
  assert.deepEqual([...seen].sort(), [`machine ${DISK_BYTES}`, `machine ${LARGER}`, `process ${DISK_BYTES}`, `process ${LARGER}`]);
});

test('R26: when map or disk cannot grow, everything is as before', async () => {
  for (const what of ['map', 'disk'] as const) {
    const rig = new TrackingRig();
    if (what === 'disk') rig.asDisk = (disk) => Object.assign(disk, { grow: () => Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })) });
    await rig.open();
    await rig.during(rig.vm.begin({ keepMap: false }));
    await rig.during(rig.write('d0', 5 * REGION_BYTES, 7));
    if (what === 'map') rig.volume.fault = { path: /\.map\.new$/, operation: 'write', errno: 'ENOSPC' };
    await assert.rejects(rig.during(rig.vm.grow('d0', LARGER)), { code: 'ENOSPC' }, what);
    rig.volume.fault = null;
    assert.deepEqual([onRecord(rig).virtualSize, onRecord(rig).growTo, sizeOf(rig)], [DISK_BYTES, undefined, DISK_BYTES], what);
    assert.equal(rig.vm.disk('d0').map!.diskSize, DISK_BYTES, what);
    assert.deepEqual(rig.epochs().map(({ epoch }) => epoch), [1], what);
    await rig.during(rig.write('d0', 9 * REGION_BYTES, 7));
    rig.crash('process');
    assert.equal(await rig.open(), null, what);
    assert.deepEqual(rig.suspectRegions('d0'), [5, 9], what);
  }
});

test('R26: a disk that somebody else has grown is refused with both sizes and the way to do it', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.vm.close());
  rig.volume.edit('/disks/d0.raw', new Uint8Array(512), LARGER - 512);
  await assert.rejects(rig.open(), (error: Error & { code: string; remedy: string }) => {
    assert.equal(error.code, 'DISK_SIZE_CHANGED');
    assert.match(error.message, new RegExp(`has ${LARGER} bytes, it was added with ${DISK_BYTES}`));
    assert.match(error.remedy, /understudy vm resize NAME --disk '\/disks\/d0\.raw' --size/);
    return true;
  });
});

test('R26: a set of logs of a smaller disk is refused with both sizes', async () => {
  const disk = { diskId: 'd0', path: '/store/d0.raw', format: 'raw', virtualSize: LARGER, logicalSectorSize: 512, geometry: null };
  const log = { diskId: 'd0', uniqueId: '', previousUniqueId: null, path: '', size: 0, digest: '', entries: 0 };
  const set = (diskSize: number): InboxRecord => ({ vmId: VM_ID, epoch: 4, status: 'received', closedAt: 0, disks: [{ ...log, diskSize }] });
  const reason = `the log of epoch 4 is of a disk of ${DISK_BYTES} bytes, replica disk /store/d0.raw has ${LARGER}`;
  assert.equal(shrunkDisk(set(DISK_BYTES), [disk]), reason);
  // Before its logs are opened: here are none.
  const relationship = { lastAppliedLogs: {} } as unknown as RelationshipRecord;
  assert.deepEqual(await defectOf({ files: new MemoryFiles() }, set(DISK_BYTES), relationship, [disk]), { reason, again: false, code: 'DISK_SIZE_MISMATCH' });
  assert.equal(shrunkDisk(set(LARGER), [disk]), null);
  assert.equal(shrunkDisk(set(2 * LARGER), [disk]), null);
});

test('R26: the replica grows and goes on without resync, also when it crashes meanwhile', async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const world = new World(seed);
    await world.begin();
    await world.scheduler.pass(70_000);
    world.stopGuest();
    const larger = WORLD_BYTES + 96 * 1024;
    await world.during(world.tracked!.grow('d1', larger));
    await world.during(world.tracked!.disk('d1').write(new Uint8Array(4096).fill(seed), larger - 4096));
    const crash = world.dice.pick(['none', 'process', 'machine'] as const);
    if (crash !== 'none') {
      await world.scheduler.pass(world.dice.between(0, 40_000));
      world.replica.crash(crash);
      await world.scheduler.pass(1000);
    }
    await world.catchUp();
    const record = world.replica.relationships.vm(VM_ID).disks[1]!;
    assert.equal(record.virtualSize, larger, `seed ${seed}`);
    assert.equal(world.replicaDisks()[1]!.length, larger, `seed ${seed}`);
    const required = world.primary.catalog.events({ limit: 1000 }).filter(({ id }) => id === 'ResynchronizationRequired');
    assert.deepEqual(required, [], `seed ${seed}: ${world.story()}`);
  }
});

for (const kind of ['process', 'machine'] as const) {
  test(`R26: the replica grows, and a ${kind} crash right then does not look like the work of somebody else`, async () => {
    const { world, watch, ...rig } = await quietReplica();
    const larger = WORLD_BYTES + 96 * 1024;
    const from = watch.trace.length;
    let crashed = false;
    watch.done = () => {
      if (crashed || watch.find(/^(truncate|write)\. \/store/, from) < 0) return;
      crashed = true;
      world.replica.life.alive = false;
    };
    await world.during(world.tracked!.grow('d1', larger));
    await rig.until(() => crashed);
    watch.done = () => {};
    world.replica.crash(kind);
    await world.restart(world.replica);
    await world.catchUp();
    assert.equal(world.replicaDisks()[1]!.length, larger);
    const required = world.primary.catalog.events({ limit: 1000 }).filter(({ id }) => id === 'ResynchronizationRequired');
    assert.deepEqual(required, [], world.story());
  });
}

/** Everything is applied, and nobody writes. */
async function quietReplica() {
  const rig = await ReplicaRig.replicating();
  rig.world.stopGuest();
  await rig.world.catchUp();
  return { world: rig.world, watch: rig.watch, until: (condition: () => boolean) => rig.until(condition) };
}
