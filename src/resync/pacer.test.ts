import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../model/ports.ts';
import { Pacer, type GuestWork } from './pacer.ts';

const MIB = 1 << 20;
const AT_REST: GuestWork = { requests: 0, openOperations: 0 };

/** A clock that jumps to where a sleep ends. */
function jumpingClock() {
  const clock = { time: 0, slept: [] as number[] };
  const port: Clock = {
    now: () => clock.time, monotonic: () => clock.time,
    sleep: async (ms, signal) => {
      signal?.throwIfAborted();
      clock.slept.push(ms);
      clock.time += ms;
    },
  };
  return { clock, port };
}

async function make(share: { diskBytesPerSec: number | null; linkBytesPerSec: number | null }, guest: GuestWork = AT_REST) {
  const { clock, port } = jumpingClock();
  return { clock, pacer: new Pacer({ clock: port, processors: 4 }, () => share, guest, new AbortController().signal) };
}

test('without a share and with a guest at rest nothing waits', async () => {
  const { clock, pacer } = await make({ diskBytesPerSec: null, linkBytesPerSec: null });
  for (let count = 0; count < 100; count++) {
    await pacer.read(MIB);
    await pacer.sent(MIB);
  }
  assert.deepEqual(clock.slept, []);
});

test('reading keeps to its bytes per second, in steps of any size', async () => {
  for (const step of [4096, MIB, 7 * MIB]) {
    const { clock, pacer } = await make({ diskBytesPerSec: 10 * MIB, linkBytesPerSec: null });
    for (let done = 0; done < 50 * MIB; done += step) await pacer.read(step);
    assert.ok(Math.abs(clock.time - 5000) < 1000, `${clock.time} ms for 5 s in steps of ${step}`);
  }
});

test('sending keeps to its own, and neither counts for the other', async () => {
  const { clock, pacer } = await make({ diskBytesPerSec: null, linkBytesPerSec: MIB });
  for (let done = 0; done < 3; done++) await pacer.sent(MIB);
  await pacer.read(100 * MIB);
  assert.equal(clock.time, 3000);
});

test('time in which nothing was read is not saved up', async () => {
  const { clock, pacer } = await make({ diskBytesPerSec: MIB, linkBytesPerSec: null });
  clock.time = 100_000;
  await pacer.read(MIB);
  assert.equal(clock.time, 101_000);
});

test('while the guest has requests under way it yields 4 ms for each MiB, and stops yielding 50 ms after them', async () => {
  const guest = { requests: 1, openOperations: 1 };
  const { clock, pacer } = await make({ diskBytesPerSec: null, linkBytesPerSec: null }, guest);
  await pacer.read(10 * MIB);
  guest.openOperations = 0;
  await pacer.read(MIB);
  assert.deepEqual(clock.slept, [40, 4]);
  assert.equal(pacer.isGuestAtWork, true);
  clock.time = 94;
  assert.equal(pacer.isGuestAtWork, false);
  await pacer.read(100 * MIB);
  assert.deepEqual(clock.slept, [40, 4]);
});

test('on two processors it yields twice as long', async () => {
  const { clock, port } = jumpingClock();
  const guest = { requests: 1, openOperations: 1 };
  const pacer = new Pacer({ clock: port, processors: 2 }, () => ({ diskBytesPerSec: null, linkBytesPerSec: null }), guest, new AbortController().signal);
  await pacer.read(10 * MIB);
  assert.deepEqual(clock.slept, [80]);
  assert.equal(pacer.readRate, 125 * MIB);
});

test('what may be read in a second is told: the user\'s limit, and what a guest at work leaves', async () => {
  const guest = { requests: 1, openOperations: 0 };
  const share: { diskBytesPerSec: number | null; linkBytesPerSec: number | null } = { diskBytesPerSec: null, linkBytesPerSec: null };
  const { clock, pacer } = await make(share, guest);
  assert.equal(pacer.readRate, null);
  guest.requests++;
  assert.equal(pacer.readRate, 250 * MIB);
  share.diskBytesPerSec = MIB;
  assert.equal(pacer.readRate, MIB);
  clock.time = 50;
  assert.equal(pacer.readRate, MIB);
  share.diskBytesPerSec = 1000 * MIB;
  assert.equal(pacer.readRate, 1000 * MIB);
});

test('requests that come and are answered between two looks are work, too; those before the first one are not', async () => {
  const guest = { requests: 7, openOperations: 0 };
  const { clock, pacer } = await make({ diskBytesPerSec: null, linkBytesPerSec: null }, guest);
  await pacer.read(100 * MIB);
  assert.equal(clock.time, 0);
  guest.requests++;
  await pacer.read(MIB);
  assert.equal(clock.time, 4);
});

test('a limit that is changed counts at once, also for a wait that has begun', async () => {
  const { clock, port } = jumpingClock();
  const share: { diskBytesPerSec: number | null; linkBytesPerSec: number | null } = { diskBytesPerSec: MIB / 1000, linkBytesPerSec: null };
  const pacer = new Pacer({ clock: port, processors: 4 }, () => share, AT_REST, new AbortController().signal);
  const waits = pacer.read(MIB);
  share.diskBytesPerSec = null;
  await waits;
  assert.ok(clock.time <= 1000, `${clock.time} ms of 1000 s`);
  share.linkBytesPerSec = MIB;
  await pacer.sent(2 * MIB);
  assert.ok(clock.time >= 2000, `${clock.time} ms for two MiB at one a second`);
});

test('a wait ends with the signal', async () => {
  const stop = new AbortController();
  const { port } = jumpingClock();
  const pacer = new Pacer({ clock: port, processors: 4 }, () => ({ diskBytesPerSec: 1, linkBytesPerSec: null }), AT_REST, stop.signal);
  stop.abort(new Error('cancelled'));
  await assert.rejects(async () => pacer.read(MIB), /cancelled/);
});

test('a limit that is lowered lets nothing that waits through sooner', async () => {
  const { clock, port } = jumpingClock();
  const share: { diskBytesPerSec: number | null; linkBytesPerSec: number | null } = { diskBytesPerSec: null, linkBytesPerSec: MIB };
  const pacer = new Pacer({ clock: port, processors: 4 }, () => share, AT_REST, new AbortController().signal);
  const waits = Promise.all([pacer.sent(4 * MIB), pacer.sent(4 * MIB)]);
  share.linkBytesPerSec = MIB / 16;
  await waits;
  assert.ok(clock.time >= 100_000, `8 MiB passed after ${clock.time} ms, at 64 KiB/s`);
  const before = clock.time;
  await pacer.sent(MIB);
  assert.ok(clock.time - before >= 15_000, `the next MiB took ${clock.time - before} ms`);
});
