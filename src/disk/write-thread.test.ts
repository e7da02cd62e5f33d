import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { temporaryFolder } from '../../test/rig/program.ts';
import { Descriptor } from './descriptor.ts';
import { hostClock } from './host-clock.ts';
import { hostFiles } from './host-files.ts';
import { libc, portableLibc } from './libc.ts';
import { createRawDisk, openRawDisk } from './raw-disk.ts';
import { sharedFiles } from './shared-files.ts';
import { CALL_BYTES_MAX, SLOTS, SLOT_STATE, WriteRing } from './write-ring.ts';
import { JOB_BYTES_MAX, WriteThread, type Write } from './write-thread.ts';

const skip = libc().native ? false : 'koffi does not load here';

async function files(t: TestContext, count: number): Promise<{ folder: string; opened: Descriptor[] }> {
  const folder = await temporaryFolder(t);
  const opened: Descriptor[] = [];
  for (let index = 0; index < count; index++) opened.push(await hostFiles.open(join(folder, `${index}`), 'create'));
  // Not waited for: a job that a failed test has left keeps its file.
  atEnd(t, () => opened.forEach((file) => void file.close()));
  return { folder, opened };
}

/** The thread is asked until it has begun. */
async function begun(file: Descriptor): Promise<WriteThread> {
  const thread = new WriteThread(hostClock);
  while (thread.write([{ file, buffers: [Buffer.from('x')], position: 0 }]) === null) await hostClock.sleep(1);
  return thread;
}

/** The test does what the thread would do, when it says so. Time stands still but for what it says. */
function played() {
  let memory: SharedArrayBuffer | null = null;
  let listener: (what: unknown) => void = () => {};
  const ended: (() => void)[] = [];
  const wakes: (() => void)[] = [];
  const time = { now: 1000 };
  const clock = { monotonic: () => time.now, sleep: () => new Promise<void>((resolve) => wakes.push(resolve)) };
  const thread = new WriteThread(clock, libc(), (shared) => {
    memory = shared;
    return {
      on: (event, told) => {
        if (event === 'message') listener = told;
        else ended.push(() => told(null));
      },
      ref: () => {}, unref: () => {},
    };
  });
  const other = () => new WriteRing(libc(), memory!);
  let sequence = 0;
  return {
    thread, time, wakes,
    /** Its first job has made it begin. */
    ready: (file: Descriptor) => {
      assert.equal(thread.write(one(file, 0)), null);
      listener('ready');
    },
    /** The thread has come to this job, and hangs in it. */
    hang: (slot: number) => Atomics.store(new Int32Array(memory!), 2 + slot, SLOT_STATE.RUNNING),
    heal: (slot: number) => Atomics.store(new Int32Array(memory!), 2 + slot, SLOT_STATE.DONE),
    /** Does the next job, or passes over one that was taken back. */
    next: () => other().perform(sequence++) && listener('done'),
    stateOf: (slot: number) => other().stateOf(slot),
    end: () => ended.forEach((tell) => tell()),
    async later(ms: number): Promise<void> {
      time.now += ms;
      for (const wake of wakes.splice(0)) wake();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

const one = (file: Descriptor, position: number): Write[] => [{ file, buffers: [Buffer.alloc(1000, position)], position }];

test('what the thread writes is what was asked for: buffers of every size, over the ends of its calls, into two files', { skip }, async (t) => {
  const { folder, opened } = await files(t, 2);
  const thread = await begun(opened[0]!);
  const expected = [Buffer.alloc(6 << 20), Buffer.alloc(6 << 20)];
  const slab = randomBytes(2 << 20);
  for (const lengths of [[1], [63, 64, 65], [256, 257, 4096], Array<number>(40).fill(4096), [CALL_BYTES_MAX], [CALL_BYTES_MAX - 1, 2, CALL_BYTES_MAX], [1 << 20]]) {
    for (const position of [0, 8192, 12345, CALL_BYTES_MAX - 7]) {
      const writes = opened.map((file, index): Write => {
        let at = index * 777;
        const buffers = lengths.map((length) => slab.subarray(at, (at += length)));
        Buffer.concat(buffers).copy(expected[index]!, position + index * 4321);
        return { file, buffers, position: position + index * 4321 };
      });
      let done = thread.write(writes);
      // The thread may be resting on a busy machine.
      for (; done === null; done = thread.write(writes)) await hostClock.sleep(1);
      if (!(await done)) for (const { file, buffers, position: at } of writes) await file.write(buffers, at);
    }
  }
  for (const [index, bytes] of expected.entries()) {
    const found = await readFile(join(folder, `${index}`));
    assert.deepEqual(found, bytes.subarray(0, found.length));
    assert.ok(bytes.subarray(found.length).every((byte) => byte === 0));
  }
});

test('a failed write rejects with its errno and path, and what stands behind it is not written', { skip }, async (t) => {
  const { opened } = await files(t, 2);
  const thread = await begun(opened[1]!);
  const full = await Descriptor.open('/dev/full', constants.O_RDWR);
  atEnd(t, () => full.close());
  const writes: Write[] = [{ file: full, buffers: [Buffer.alloc(4096)], position: 0 }, { file: opened[0]!, buffers: [Buffer.alloc(10)], position: 0 }];
  let done = thread.write(writes);
  for (; done === null; done = thread.write(writes)) await hostClock.sleep(1);
  const failure = await done.then(() => null, (error: unknown) => error as NodeJS.ErrnoException);
  assert.equal(failure?.code, 'ENOSPC');
  assert.match(failure.message, /\/dev\/full/);
  assert.equal(await opened[0]!.size(), 0);
});

test('before the thread has begun, and without its calls, nothing is taken', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next } = played();
  ready(opened[0]!);
  const done = thread.write(one(opened[0]!, 0));
  next();
  assert.equal(await done, true);
  assert.equal(new WriteThread(hostClock, portableLibc).write(one(opened[0]!, 0)), null);
});

test('jobs that the thread has not begun in time are taken back, and nobody does them', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next, later, time } = played();
  ready(opened[0]!);
  const outcomes: string[] = [];
  const ask = (name: string, position: number) => {
    const done = thread.write(one(opened[0]!, position));
    assert.ok(done !== null);
    void done.then((isDone) => outcomes.push(`${name} ${isDone}`));
  };
  ask('not begun', 0);
  ask('behind', 1000);
  await later(10);
  assert.deepEqual(outcomes, []);
  assert.ok(thread.write(one(opened[0]!, 2000)) !== null, 'nothing is slow yet');
  await later(16);
  assert.deepEqual(outcomes, ['not begun false', 'behind false']);
  assert.equal(await opened[0]!.size(), 0);
  for (let passed = 0; passed < 3; passed++) next();
  assert.equal(await opened[0]!.size(), 0, 'a job that was taken back is not done');
  time.now += 1000;
  ask('after', 3000);
  next();
  await later(0);
  assert.deepEqual(outcomes.at(-1), 'after true');
  assert.equal(await opened[0]!.size(), 4000);
});

test('nobody waits behind a job that hangs, and that one ends when its file goes on', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next, hang, heal, later, stateOf } = played();
  ready(opened[0]!);
  const [hung, behind] = [thread.write(one(opened[0]!, 0))!, thread.write(one(opened[0]!, 1000))!];
  hang(0);
  await later(26);
  assert.equal(await behind, false);
  assert.equal(stateOf(0), SLOT_STATE.RUNNING);
  assert.equal(thread.write(one(opened[0]!, 2000)), null);
  await later(60_000);
  assert.equal(thread.write(one(opened[0]!, 2000)), null);
  heal(0);
  await later(0);
  assert.equal(await hung, true);
  assert.equal(thread.write(one(opened[0]!, 2000)), null, 'it rests');
  await later(4 * 61_000);
  next();
  next();
  const again = thread.write(one(opened[0]!, 2000));
  assert.ok(again !== null);
  next();
  assert.equal(await again, true);
  assert.equal(await opened[0]!.size(), 3000);
});

test('a slow job sends those after it to the pool, for four times as long as it took', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next, time } = played();
  ready(opened[0]!);
  const slow = thread.write(one(opened[0]!, 0));
  time.now += 40;
  assert.equal(thread.write(one(opened[0]!, 0)), null, 'while it is slow');
  next();
  assert.equal(await slow, true);
  time.now += 159;
  assert.equal(thread.write(one(opened[0]!, 0)), null);
  time.now += 2;
  const rested = thread.write(one(opened[0]!, 0));
  assert.ok(rested !== null);
  next();
  await rested;
});

test('a descriptor is not closed under a job', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next } = played();
  ready(opened[0]!);
  const done = thread.write(one(opened[0]!, 0));
  let closed = false;
  const closing = opened[0]!.close().then(() => (closed = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(closed, false);
  assert.throws(() => thread.write(one(opened[0]!, 0)), { code: 'EBADF' });
  next();
  await Promise.all([done, closing]);
});

test('too many jobs, and one that is too long, are for the pool', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, next } = played();
  ready(opened[0]!);
  const long = Buffer.alloc(JOB_BYTES_MAX + 1);
  assert.equal(thread.write([{ file: opened[0]!, buffers: [long], position: 0 }]), null);
  assert.equal(thread.write([{ file: opened[0]!, buffers: Array<Buffer>(5000).fill(long.subarray(0, 300)), position: 0 }]), null, 'more vectors than a slot holds');
  const taken = Array.from({ length: SLOTS }, (_, index) => thread.write(one(opened[0]!, index)));
  assert.ok(taken.every((done) => done !== null));
  assert.equal(thread.write(one(opened[0]!, 0)), null);
  for (let index = 0; index < SLOTS; index++) next();
  assert.ok((await Promise.all(taken)).every((isDone) => isDone));
  const again = thread.write(one(opened[0]!, 0));
  assert.ok(again !== null, 'slots are used again');
  next();
  await again;
});

test('when the thread has ended, what it had not begun is taken back and nothing more is taken', { skip }, async (t) => {
  const { opened } = await files(t, 1);
  const { thread, ready, end, stateOf } = played();
  ready(opened[0]!);
  const waiting = thread.write(one(opened[0]!, 0));
  end();
  assert.equal(await waiting, false);
  assert.equal(stateOf(0), SLOT_STATE.TAKEN_BACK);
  assert.equal(thread.write(one(opened[0]!, 0)), null);
});

test('two files are written together by the thread, and side by side by the pool when it cannot', { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  const { thread, ready, next, end } = played();
  const { opened } = await files(t, 1);
  const shared = sharedFiles(hostFiles, thread);
  const [first, second] = [await shared.open(join(folder, 'a'), 'create'), await shared.open(join(folder, 'b'), 'create')];
  const write = (text: string) => first.writeTogether!([Buffer.from(text)], 0, { file: second, buffers: [Buffer.from(`${text}!`)], position: 0 });
  const found = async () => [await readFile(join(folder, 'a'), 'utf8'), await readFile(join(folder, 'b'), 'utf8')];
  await write('pool');
  assert.deepEqual(await found(), ['pool', 'pool!']);
  ready(opened[0]!);
  const done = write('here');
  next();
  await done;
  assert.deepEqual(await found(), ['here', 'here!']);
  const back = write('back');
  end();
  await back;
  assert.deepEqual(await found(), ['back', 'back!']);
  await Promise.all([first.close(), second.close()]);
});

test('a large write to a raw disk goes through the thread', { skip }, async (t) => {
  const folder = await temporaryFolder(t);
  await (await createRawDisk(join(folder, 'disk'), 4 << 20)).close();
  const { thread, ready, next } = played();
  const disk = await openRawDisk(join(folder, 'disk'), { readOnly: false, lock: false, writeThread: thread });
  await disk.write(Buffer.alloc(1 << 20, 1), 0);
  ready((await files(t, 1)).opened[0]!);
  const done = disk.write(Buffer.alloc(1 << 20, 2), 1 << 20);
  next();
  await done;
  await disk.write(Buffer.alloc(4096, 3), 2 << 20);
  const found = await readFile(join(folder, 'disk'));
  assert.deepEqual([0, 1 << 20, (2 << 20) - 1, 2 << 20].map((at) => found[at]), [1, 2, 2, 3]);
  await disk.close();
});
