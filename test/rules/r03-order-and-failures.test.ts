/**
 * R3: overlapping writes have one order in log and disk. A failed disk write is EIO to the guest and is read back and
 * logged. After
 * a failed flush the logs are no longer believed, and it is never repeated as if it had worked.
 * Seen to fail: in tracked-disk.ts `#start`, `blockers` not counted; `#logWhatIsThere` not called; its `loggingFailed` left out;
 * `loggingFailed` in `flush` left out; in tracked-vm.ts `close`, the disk flushed past its tracking.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnderstudyError } from '../../src/model/errors.ts';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { DISK_BYTES, TrackingRig } from './tracking-rig.ts';

/** Any operations, in units of so many bytes, some of them with a pause behind them. */
const operations = (unitBytes: number, unitMax: number, lengths: fc.Arbitrary<number>) => fc.array(fc.record({
  offset: fc.nat(unitMax).map((unit) => unit * unitBytes), length: lengths.map((units) => units * unitBytes), zero: fc.boolean(),
  pauseMs: fc.constantFrom(0, 0, 0, 1, 3),
}), { minLength: 2, maxLength: 30 });

async function replaysToTheDisk(arbitrary: ReturnType<typeof operations>): Promise<void> {
  await fc.assert(fc.asyncProperty(arbitrary, fc.nat(), async (list, seed) => {
    const rig = await TrackingRig.begun(seed);
    const under: Promise<void>[] = [];
    for (const [index, { offset, length, zero, pauseMs }] of list.entries()) {
      under.push(zero ? rig.vm.disk('d0').zero(offset, length) : rig.write('d0', offset, index + 1, length));
      if (pauseMs > 0) await rig.scheduler.pass(pauseMs);
    }
    await rig.during(Promise.all(under));
    const closed = await rig.switchLog();
    assert.ok(Buffer.compare((await rig.replay([closed])).d0!, rig.diskBytes('d0')) === 0);
  }), { numRuns: 40 });
}

test('R3: whatever overlaps, the log replayed in its order makes the disk', () =>
  replaysToTheDisk(operations(512, 24, fc.integer({ min: 1, max: 12 }))));

test('R3: the same where some writes are done at once and others, started before them, are still under way', () =>
  replaysToTheDisk(operations(4096, 40, fc.constantFrom(1, 1, 2, 16, 17, 20))));

/** A disk whose next write fails after half of it has reached the file. */
function halfWritten(rig: TrackingRig, readable: boolean): void {
  let broken = false;
  rig.asDisk = (disk) => ({
    ...disk,
    writeNow: () => false,
    async write(from, offset) {
      if (disk.location.endsWith('d1.raw')) return await disk.write(from, offset);
      await disk.write(from.subarray(0, from.length / 2), offset);
      broken = true;
      throw Object.assign(new Error('EIO: the medium'), { code: 'EIO' });
    },
    async read(into, offset) {
      if (broken && !readable) throw Object.assign(new Error('EIO: unreadable'), { code: 'EIO' });
      await disk.read(into, offset);
    },
  });
}

async function begunWith(prepare: (rig: TrackingRig) => void): Promise<TrackingRig> {
  const rig = new TrackingRig();
  prepare(rig);
  await rig.open();
  await rig.during(rig.vm.begin({ keepMap: false }));
  return rig;
}

test('R3: a failed disk write is an error to the guest, and the log says what the disk holds', async () => {
  const rig = await begunWith((one) => halfWritten(one, true));
  await assert.rejects(rig.during(rig.write('d0', 0, 5, 4096)), { code: 'EIO' });
  assert.deepEqual(rig.losses, []);
  const closed = await rig.switchLog();
  const disk = rig.diskBytes('d0');
  assert.equal(disk[0], 5);
  assert.equal(disk[4095], 0);
  assertSameBytes((await rig.replay([closed])).d0, disk);
});

test('R3: a write that failed and cannot be read back ends the logs, with its region suspect', async () => {
  const rig = await begunWith((one) => halfWritten(one, false));
  await assert.rejects(rig.during(rig.write('d0', 0, 5, 4096)), { code: 'EIO' });
  assert.equal(rig.losses[0]?.trigger, 3);
  assert.match(rig.losses[0].reason, /could not be read back.*unreadable/);
  assert.deepEqual(rig.suspectRegions('d0'), [0]);
});

test('R3: a failed flush fails the guest, ends the logs, and keeps every bit since the last good one', async () => {
  const rig = await TrackingRig.begun();
  for (const region of [1, 5, 9]) await rig.during(rig.write('d0', region * 32768, 1));
  rig.volume.fault = { path: /d0\.raw$/, operation: 'datasync', errno: 'EIO' };
  await assert.rejects(rig.during(rig.vm.disk('d0').flush()), { code: 'EIO' });
  rig.volume.fault = null;
  assert.equal(rig.losses[0]?.trigger, 3);
  assert.equal(rig.tracking.mode, 'map-only');
  // Not as if it had worked: the epoch is applied, a later flush succeeds, and still no bit drops.
  await rig.during(rig.vm.disk('d0').flush());
  await rig.during(rig.vm.release(1));
  assert.deepEqual(rig.suspectRegions('d0'), [1, 5, 9]);
});

test('R3: a flush that fails in the clean stop is not lost over the next start', async () => {
  const rig = await TrackingRig.begun();
  await rig.during(rig.write('d0', 0, 1));
  rig.volume.fault = { path: /d0\.raw$/, operation: 'datasync', errno: 'EIO' };
  await assert.rejects(rig.during(rig.vm.close()), { code: 'EIO' });
  rig.volume.fault = null;
  rig.crash('process');
  await rig.open();
  assert.equal(rig.losses[0]?.trigger, 3, 'the logs are believed although the disk may not hold what they say');
  assert.equal(rig.tracking.mode, 'map-only');
});

test('R3: a write outside of the disk is the caller\'s bug and never reaches log or disk', async () => {
  const rig = await TrackingRig.begun();
  const outside = rig.write('d0', DISK_BYTES - 256, 1);
  await assert.rejects(rig.during(outside), (error) => error instanceof RangeError || error instanceof UnderstudyError);
});
