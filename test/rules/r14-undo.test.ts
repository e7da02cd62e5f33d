/**
 * R14 with recovery points: undo data complete, digested and durable, never rewritten on restart → base written → base flushed →
 * "applied" committed → inbox log deleted. And: the points go, not the replica.
 * Seen to fail: the rows of test/mutation/failover-breakages.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkInstants, instantsOf } from '../simulation/instants.ts';
import { ReplicaRig } from './replica-rig.ts';

const isUndo = (line: string): boolean => /\.hru$/.test(line);

test('R14: the undo of a set is written, synced and on record before the set writes to any disk', async () => {
  const rig = await ReplicaRig.replicating(1, { history: 3 });
  await rig.untilPoints(2);
  await rig.until(() => rig.applied >= 9);
  const { trace } = rig.watch;
  const disks = rig.world.replica.relationships.vm(rig.world.relationship.vmId).disks.map(({ path }) => path);
  let sets = 0;
  for (let epoch = rig.points()[0]!.epoch + 1; epoch <= 8; epoch++) {
    const begun = trace.findIndex((line) => line.startsWith(`catalog applied=${epoch - 1} applying=${epoch}`));
    const committed = trace.findIndex((line) => line.startsWith(`catalog applied=${epoch} applying=none`));
    const during = trace.slice(begun, committed);
    const recorded = during.findIndex((line) => line.startsWith('catalog point ') && line.endsWith(` undone=${epoch}`));
    const firstWrite = during.findIndex((line) => disks.some((path) => line === `write> ${path}`));
    assert.ok(recorded > 0 && firstWrite > recorded, `epoch ${epoch}: written at ${firstWrite}, undo on record at ${recorded}`);
    const undo = during.slice(0, recorded).filter(isUndo);
    for (const [index, line] of undo.entries()) {
      if (!line.startsWith('write. ')) continue;
      const path = line.slice(7);
      assert.ok(undo.slice(index).includes(`datasync. ${path}`), `epoch ${epoch}: ${path} was not synced before the record`);
    }
    assert.ok(!during.slice(recorded).some((line) => isUndo(line) && line.startsWith('write')), `epoch ${epoch}: undo written after the record`);
    sets++;
  }
  assert.ok(sets >= 2);
  await rig.endsEqual();
});

test('R14: what is on record is never written again, whatever crashes; every point is what it was when it was made', async () => {
  const rig = await ReplicaRig.replicating(2, { history: 4 });
  const { world } = rig;
  await rig.untilPoints(1);
  const first = new Map<string, string>();
  for (let round = 0; round < 25; round++) {
    await world.scheduler.pass(world.dice.between(1, 18_000));
    if (world.replicaRecord.applying !== null || round % 4 === 0) {
      if (round % 3 === 0) await world.powerLoss(world.replica);
      else world.replica.crash('process');
      await checkInstants(world);
      await world.restart(world.replica);
    }
    for (const { id, disks } of await instantsOf(world)) {
      if (id === 'latest') continue;
      const now = disks.map((disk) => Buffer.from(disk).toString('base64')).join();
      if (first.has(id)) assert.equal(now === first.get(id), true, `${id} has changed`);
      else first.set(id, now);
    }
  }
  assert.ok(first.size >= 3, `only ${first.size} points were seen`);
  await rig.endsEqual();
});

test('without points nothing is kept and nothing is looked at', async () => {
  const rig = await ReplicaRig.replicating();
  await rig.until(() => rig.applied >= 6);
  assert.deepEqual(rig.points(), []);
  assert.ok(!rig.watch.trace.some(isUndo));
});

test('no more points are kept than the setting says; a smaller setting and 0 take effect; the files go too', async () => {
  const rig = await ReplicaRig.replicating(3, { history: 3 });
  await rig.untilPoints(3);
  const newest = rig.points()[2]!.epoch;
  await rig.until(() => rig.points().at(-1)!.epoch > newest);
  await rig.until(() => rig.points().length === 3);
  const change = async (recoveryHistory: number) => {
    const { settings } = rig.world.relationship;
    rig.world.primary.relationships.update(rig.world.relationship.vmId, { settings: { ...settings, recoveryHistory } });
    rig.world.primary.primaries.get(rig.world.relationship.vmId)!.settingsChanged();
    await rig.until(() => rig.points().length <= recoveryHistory);
  };
  await change(1);
  await checkInstants(rig.world);
  await change(0);
  await rig.world.scheduler.pass(200_000);
  assert.deepEqual(rig.points(), []);
  assert.ok(!rig.world.replica.volume.paths().some(isUndo));
  await rig.endsEqual();
});

test('a setting that becomes 0 while undo is being written: the point stays gone, and its files too', async () => {
  const rig = await ReplicaRig.replicating(6, { history: 2 });
  const { world } = rig;
  const { vmId } = world.relationship;
  const set = (recoveryHistory: number) => {
    for (const { relationships } of [world.primary, world.replica]) {
      relationships.update(vmId, { settings: { ...relationships.get(vmId).settings, recoveryHistory } });
    }
  };
  for (let round = 0; round < 6; round++) {
    await rig.untilPoints(1);
    const { length } = rig.watch.trace;
    await rig.until(() => rig.watch.trace.slice(length).some((line) => isUndo(line) && line.startsWith('write> ')));
    set(0);
    await world.during(rig.replica.historyChanged());
    const gone = rig.watch.trace.length;
    await rig.until(() => world.replicaRecord.applying === null);
    await world.scheduler.pass(100);
    assert.deepEqual(rig.points(), []);
    assert.deepEqual(world.replica.volume.paths().filter(isUndo), []);
    assert.deepEqual(rig.watch.trace.slice(gone).filter((line) => line.startsWith('catalog point ')), []);
    set(2);
  }
  await rig.endsEqual();
});

test('no room for undo: the points go, with an event, and the replica goes on', async () => {
  const rig = await ReplicaRig.replicating(4, { history: 3 });
  await rig.untilPoints(2);
  rig.world.replica.volume.fault = { path: /\.hru$/, operation: 'write', errno: 'ENOSPC' };
  const before = rig.applied;
  await rig.until(() => rig.applied >= before + 3);
  assert.ok(rig.events().includes('RecoveryPointsLost'));
  assert.equal(rig.world.replicaRecord.error, null);
  assert.deepEqual(rig.points().filter(({ epoch }) => epoch <= before), []);
  rig.world.replica.volume.fault = null;
  await rig.untilPoints(1);
  await rig.endsEqual();
  await checkInstants(rig.world);
});

test('an undo log that cannot be written for another reason, or has gone, costs the points and not the replica', async () => {
  for (const fault of ['EIO', 'gone'] as const) {
    const rig = await ReplicaRig.replicating(5, { history: 3 });
    await rig.untilPoints(2);
    await rig.until(() => rig.points().at(-1)!.disks.every(({ end }) => end > 0));
    if (fault === 'EIO') rig.world.replica.volume.fault = { path: /\.hru$/, operation: 'datasync', errno: 'EIO' };
    else for (const { path } of rig.points().at(-1)!.disks) await rig.lose(path);
    const before = rig.applied;
    await rig.until(() => rig.applied >= before + 2);
    assert.ok(rig.events().includes('RecoveryPointsLost'), fault);
    rig.world.replica.volume.fault = null;
    await rig.endsEqual();
  }
});
