/**
 * R5: a log switch is one record for all disks of the VM. New writes go to the new logs at once; the old ones count as
 * closed when
 * their writes have finished on disk. A crash half-way completes or undoes the set.
 * Seen to fail: in tracked-vm.ts `#switchNow`, `await this.clock.sleep(1)` between the disks' `setLog`; the epochs put by two
 * transactions around it; in epoch-logs.ts `closeEpoch`, `allFinished` left out.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { History } from '../simulation/history.ts';
import { DISK_IDS, TrackingRig } from './tracking-rig.ts';

/** A guest that writes to one disk after the other: a set that is no instant shows as a later write without an earlier one. */
async function guest(rig: TrackingRig, history: History, writes: number): Promise<void> {
  for (let count = 0; count < writes; count++) {
    const disk = count % 2;
    const offset = rig.dice.between(0, 40) * 512;
    const { data, answered } = history.ask(disk, offset, 512, rig.scheduler.now, false);
    await rig.vm.disk(DISK_IDS[disk]!).write(data, offset);
    answered(rig.scheduler.now);
  }
}

test('R5: every set of logs ends at one instant of all disks', async () => {
  for (let seed = 1; seed <= 15; seed++) {
    const rig = await TrackingRig.begun(seed);
    const history = new History(2);
    const guests = Promise.all([guest(rig, history, 40), guest(rig, history, 40), guest(rig, history, 40)]);
    const closed = [];
    for (let round = 0; round < 4; round++) {
      await rig.scheduler.pass(rig.dice.between(1, 40));
      closed.push(await rig.switchLog());
      const disks = await rig.replay(closed);
      assert.equal(history.contradiction(DISK_IDS.map((diskId) => disks[diskId]!)), null, `seed ${seed} round ${round}`);
    }
    await rig.during(guests);
  }
});

test('R5: both disks are in one catalog record, made before any write goes to the new logs', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.watch.trace.length = 0;
  const switched = rig.vm.switchLog();
  const writing = (async () => {
    for (let count = 0; count < 30; count++) await rig.write(DISK_IDS[count % 2]!, count * 512, 2);
  })();
  await rig.during(Promise.all([switched, writing]));
  const { watch } = rig;
  const ended = watch.find('catalog epoch 1 closing');
  const begun = watch.find('catalog epoch 2 open');
  assert.equal(begun, ended + 1, 'something came between the two halves of the switch');
  for (const diskId of DISK_IDS) {
    // The header and index header of a new log are written when it is made; what comes after the instant is guest data.
    const between = watch.trace.slice(ended).findIndex((line) => line === `write> /logs/vm.${diskId}.2.hrl`);
    assert.ok(between >= 0);
    const toOld = watch.trace.slice(ended).filter((line) => line === `write> /logs/vm.${diskId}.1.hrl.index`);
    assert.deepEqual(toOld, [], `a guest write went to the old log of ${diskId} after the instant`);
  }
  assert.equal(rig.catalog.epochs.get(rig.record.vmId, 2)!.disks.length, 2);
});

test('R5: the old set is not closed before its last write has finished on disk', async () => {
  const rig = await TrackingRig.begun();
  rig.watch.stalls = [{ path: /d1\.raw$/, operation: 'write' }];
  const late = rig.write('d1', 0, 1);
  await rig.scheduler.pass(50);
  const switched = rig.vm.switchLog();
  assert.equal(await rig.ends(switched, 10_000), false);
  assert.deepEqual(rig.epochs().map(({ status }) => status), ['closing', 'open']);
  // Meanwhile the guest goes on, into the new log.
  await rig.during(rig.write('d0', 0, 2));
  assert.equal(rig.vm.disk('d0').log!.recordCount, 1);
  void late;
});

test('R5: a crash at any point of a switch completes or undoes the set', async () => {
  for (let point = 1; point <= 40; point++) {
    const rig = await TrackingRig.begun(point);
    for (const diskId of DISK_IDS) await rig.during(rig.write(diskId, 0, 1));
    rig.crashAfter(point);
    rig.vm.switchLog().catch(() => undefined);
    for (const diskId of DISK_IDS) rig.write(diskId, 512, 2).catch(() => undefined);
    await rig.scheduler.pass(200);
    rig.crash('process');
    assert.equal(await rig.open(), null, `crash after operation ${point}`);
    const open = rig.epochs().filter(({ status }) => status === 'open');
    assert.equal(open.length, 1, `crash after operation ${point}`);
    assert.equal(open[0]!.disks.length, 2);
    await rig.switchLog();
    const sets = rig.epochs().filter(({ status }) => status === 'closed');
    // One chain, without a gap: each log names the one before it.
    for (const [index, diskId] of DISK_IDS.entries()) {
      let previous: string | null = null;
      for (const { disks } of sets) {
        assert.equal(disks[index]!.previousUniqueId, previous, `crash after operation ${point}`);
        previous = disks[index]!.uniqueId;
      }
      assert.equal(Buffer.compare((await rig.replay(sets))[diskId]!, rig.diskBytes(diskId)), 0, `crash after operation ${point}`);
    }
    const strangers = rig.volume.paths().filter((path) => path.endsWith('.hrl') && !rig.epochs().some(({ disks }) => disks.some((disk) => disk.path === path)));
    assert.deepEqual(strangers, [], `crash after operation ${point}: log files that nobody knows`);
  }
});
