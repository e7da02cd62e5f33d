/**
 * Promise 1 where two things fail at once, or something ends while guests write. Each was found by reading, and failed here first.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { TrackingRig } from './tracking-rig.ts';

const failure = () => Object.assign(new Error('the medium is bad'), { code: 'EIO' });

/** One disk operation that fails once, when told to. */
async function withFailing(kind: 'write' | 'zero', seen: { reads: number[] } = { reads: [] }): Promise<{ rig: TrackingRig; failNext: (then: () => void) => void }> {
  const rig = new TrackingRig();
  let failing: (() => void) | null = null;
  rig.asDisk = (disk) => ({
    ...disk, writeNow: () => false,
    [kind]: async (...args: [never, never]) => {
      const then = failing;
      failing = null;
      if (then === null) return (disk[kind] as (...args: unknown[]) => Promise<void>)(...args);
      then();
      throw failure();
    },
    read: (into: Uint8Array, offset: number) => {
      seen.reads.push(into.length);
      return disk.read(into, offset);
    },
  });
  await rig.open();
  await rig.during(rig.vm.begin({ keepMap: false }));
  return { rig, failNext: (then) => (failing = then) };
}

test('promise 1: a disk write fails and the log hangs: the guest has its error after the bounded wait', async () => {
  const { rig, failNext } = await withFailing('write');
  failNext(() => (rig.watch.stalls = [{ path: /\.hrl$/, operation: 'write' }]));
  const asked = rig.scheduler.now;
  const behind: Promise<void>[] = [];
  const failed = rig.write('d0', 0, 1);
  behind.push(rig.write('d0', 0, 2));
  await assert.rejects(rig.during(failed), { code: 'EIO' });
  await rig.during(Promise.all(behind));
  assert.ok(rig.scheduler.now - asked <= 2 * rig.boundedWaitMs + 100, `${rig.scheduler.now - asked} ms`);
  assert.equal(rig.losses[0]?.trigger, 3);
});

test('promise 1: what a failed zeroing left is read back in pieces of bounded size, and is in the log', async () => {
  const seen = { reads: [] as number[] };
  const { rig, failNext } = await withFailing('zero', seen);
  await rig.during(rig.write('d0', 600_000, 9, 4096));
  failNext(() => undefined);
  await assert.rejects(rig.during(rig.vm.disk('d0').zero(0, 1 << 20)), { code: 'EIO' });
  assert.ok(Math.max(...seen.reads) <= 256 << 10, `${Math.max(...seen.reads)} bytes at once: a zeroing may be 4 GiB long`);
  const closed = await rig.switchLog();
  assertSameBytes((await rig.replay([closed])).d0, rig.diskBytes('d0'));
  assert.deepEqual(rig.losses, []);
});

test('promise 1: replication is removed while a guest write waits for the map', async () => {
  const rig = await TrackingRig.begun();
  rig.watch.stalls = [{ path: /\.map/, operation: 'datasync' }];
  const written = rig.write('d0', 0, 1);
  const forgotten = rig.vm.forget(() => undefined);
  await rig.scheduler.pass(rig.boundedWaitMs + 100);
  await rig.during(written);
  rig.watch.stalls = [];
  await rig.during(rig.write('d0', 512, 2));
  void forgotten.catch(() => undefined);
});

test('promise 1: a disk that cannot be sealed while it is quiet ends nothing', async () => {
  const rig = new TrackingRig();
  let seals = true;
  rig.asDisk = (disk) => ({ ...disk, seal: () => (seals ? disk.seal() : Promise.reject(failure())) });
  await rig.open();
  await rig.during(rig.vm.begin({ keepMap: false }));
  seals = false;
  await rig.during(rig.write('d0', 0, 1));
  // An unhandled rejection here fails this test, and ended the server.
  await rig.scheduler.pass(5000);
  seals = true;
  await rig.during(rig.write('d0', 512, 2));
  await rig.scheduler.pass(5000);
  rig.crash('process');
  assert.equal(await rig.open(), null, 'it is sealed again once it can be');
});

test('R5: a log switch and a new chain of logs at once leave one chain', async () => {
  for (const first of ['switch', 'begin'] as const) {
    for (let delay = 0; delay < 12; delay++) {
      const rig = await TrackingRig.begun(delay + 1);
      await rig.during(rig.write('d0', 0, 1));
      const works = { switch: () => rig.vm.switchLog().then(() => undefined, () => undefined), begin: () => rig.vm.begin({ keepMap: true }) };
      const one = works[first]();
      await rig.scheduler.pass(delay);
      const other = works[first === 'switch' ? 'begin' : 'switch']();
      await rig.during(Promise.all([one, other]));
      await rig.during(rig.write('d0', 512, 3));
      const where = `${first} first, the other ${delay} ms later`;
      assert.deepEqual(rig.losses, [], where);
      const open = rig.epochs().filter(({ status }) => status === 'open');
      assert.equal(open.length, 1, where);
      assert.equal(open[0]!.epoch, rig.tracking.epoch, where);
      rig.crash('process');
      assert.equal(await rig.open(), null, where);
      const closed = await rig.switchLog();
      assert.ok((await rig.entries(closed.disks[0]!.path)).some(({ offset }) => offset === 512), `${where}: the write is in no log`);
    }
  }
});

test('promise 4: a crash at any point of removing replication leaves no chain with a gap', async () => {
  for (let point = 1; point <= 25; point++) {
    const rig = await TrackingRig.begun(point);
    await rig.during(rig.write('d0', 0, 1));
    rig.crashAfter(point);
    const forgotten = rig.vm.forget(() => undefined);
    const written = rig.write('d0', 4096, 2);
    await rig.ends(Promise.all([forgotten, written]), 5000);
    rig.crash('process');
    await rig.open();
    if (rig.record.tracking?.mode !== 'logging') continue;
    const closed = await rig.switchLog();
    assertSameBytes((await rig.replay([closed])).d0, rig.diskBytes('d0'), `crash after operation ${point}`);
  }
});

test('promise 1: while the log does not answer, writes that wait for their turn at it go on within the same bounded wait as the first', async () => {
  const rig = await TrackingRig.begun();
  rig.watch.stalls = [{ path: /\.hrl$/, operation: 'write' }];
  const writes: Promise<unknown>[] = [];
  for (let index = 0; index < 6; index++) {
    writes.push(rig.write('d0', index * 4096, index + 1));
    assert.equal(await rig.ends(writes[index]!, 10), false);
  }
  const appends = rig.watch.trace.filter((line) => /^write> .*\.hrl$/.test(line)).length;
  assert.ok(appends >= 1 && appends < 6, `${appends} writes of the log are under way`);
  assert.equal(await rig.ends(Promise.all(writes), rig.boundedWaitMs + 1000), true);
});

test('promise 1: what came while the log was busy becomes one write of it', async () => {
  const rig = await TrackingRig.begun();
  const before = rig.watch.trace.length;
  const writes: Promise<unknown>[] = [];
  for (let index = 0; index < 16; index++) {
    writes.push(rig.write('d0', index * 4096, index + 1));
    await Promise.resolve();
    await Promise.resolve();
    await Promise.resolve();
    await Promise.resolve();
  }
  await rig.during(Promise.all(writes));
  const appends = rig.watch.trace.slice(before).filter((line) => /^write> .*\.hrl$/.test(line)).length;
  assert.ok(appends >= 2 && appends <= 5, `${appends} writes of the log for 16 writes`);
});
