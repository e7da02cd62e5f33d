import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Descriptor } from './descriptor.ts';
import { hostClock } from './host-clock.ts';
import { type RequestRing, type RingRequest, IoUring, OPCODE } from './io-uring.ts';
import { READS_MAX, ReadRing } from './read-ring.ts';
import { atEnd } from '../../test/rig/at-end.ts';

const PAGE = 4096;
const BYTES = Buffer.from(Array.from({ length: 64 * PAGE }, (_, at) => (at * 31 + (at >> 12)) & 255));

async function file(t: Parameters<typeof atEnd>[0]): Promise<Descriptor> {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-read-ring-'));
  atEnd(t, () => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk');
  writeFileSync(path, BYTES);
  const opened = await Descriptor.open(path, 0);
  atEnd(t, () => opened.close());
  return opened;
}

/** Takes what it is told to and answers what it is told to, when it is told to. */
class ScriptedRing implements RequestRing {
  pushed: RingRequest[] = [];
  taken: RingRequest[] = [];
  /** Of the requests of one call. */
  takes = Infinity;
  #answers: { tag: number; result: number }[] = [];

  push(request: RingRequest): void {
    this.pushed.push(request);
  }

  submit(): number {
    const some = this.pushed.splice(0).slice(0, this.takes);
    this.taken.push(...some);
    return some.length;
  }

  answer(tag: number, result: number): void {
    this.#answers.push({ tag, result });
  }

  answers(visit: (tag: number, result: number) => void): void {
    for (const { tag, result } of this.#answers.splice(0)) visit(tag, result);
  }
}

function scripted(): { ring: ScriptedRing; reads: ReadRing; wake: () => void; isHeld: () => boolean } {
  const ring = new ScriptedRing();
  let wake = (): void => {};
  let held = true;
  const reads = new ReadRing({ clock: hostClock, ring, wakeFd: 99, addressOf: () => 0x1000, onWake: (told) => {
    wake = told;
    return { ref: () => { held = true; }, unref: () => { held = false; } };
  } });
  return { ring, reads, wake: () => wake(), isHeld: () => held };
}

const afterSubmit = () => new Promise<void>((resolve) => queueMicrotask(() => queueMicrotask(resolve)));
const readsOf = (ring: ScriptedRing) => ring.taken.filter(({ opcode }) => opcode === OPCODE.read);

test('what is read through the kernel\'s ring is what the file holds, many at once and in any order; a host without one says so', async (t) => {
  const reads = ReadRing.open(hostClock);
  if (reads === null) {
    assert.equal(IoUring.open(2), null);
    return;
  }
  const disk = await file(t);
  for (let round = 0; round < 20; round++) {
    const asked = Array.from({ length: READS_MAX }, (_, at) => ({ position: ((at * 37 + round) % 64) * PAGE, into: new Uint8Array(PAGE) }));
    const done = await Promise.all(asked.map(({ into, position }) => reads.read(disk, into, position)!));
    assert.ok(done.every((isDone) => isDone === true));
    for (const { into, position } of asked) assert.ok(BYTES.subarray(position, position + PAGE).equals(into), `at ${position}`);
  }
  const large = new Uint8Array(32 * PAGE);
  assert.equal(await reads.read(disk, large, 3 * PAGE), true);
  assert.ok(BYTES.subarray(3 * PAGE, 35 * PAGE).equals(large));
});

test('more than may be under way, too little and too much are left to the pool', async (t) => {
  const { ring, reads, wake } = scripted();
  const disk = await file(t);
  assert.equal(reads.read(disk, new Uint8Array(511), 0), null);
  assert.equal(reads.read(disk, new Uint8Array((128 << 10) + 1), 0), null);
  const all = Array.from({ length: READS_MAX }, () => reads.read(disk, new Uint8Array(PAGE), 0));
  assert.ok(all.every((read) => read !== null));
  assert.equal(reads.read(disk, new Uint8Array(PAGE), 0), null);
  await afterSubmit();
  for (const { tag } of readsOf(ring)) ring.answer(tag, PAGE);
  wake();
  assert.ok((await Promise.all(all)).every((isDone) => isDone === true));
  assert.notEqual(reads.read(disk, new Uint8Array(PAGE), 0), null);
  await afterSubmit();
  ring.answer(readsOf(ring).at(-1)!.tag, PAGE);
  wake();
});

test('an error and an early end are no success, and the next read has room', async (t) => {
  const { ring, reads, wake, isHeld } = scripted();
  const disk = await file(t);
  for (const result of [-5, -11, 0, 512]) {
    const read = reads.read(disk, new Uint8Array(PAGE), 0)!;
    await afterSubmit();
    assert.equal(isHeld(), true);
    ring.answer(readsOf(ring).at(-1)!.tag, result);
    wake();
    assert.equal(await read, false);
    assert.equal(isHeld(), false, 'an idle ring keeps no program alive');
  }
});

test('each read is followed by what wakes the loop, also when it fails', async (t) => {
  const { ring, reads, wake } = scripted();
  const disk = await file(t);
  const both = [reads.read(disk, new Uint8Array(PAGE), 0)!, reads.read(disk, new Uint8Array(PAGE), PAGE)!];
  await afterSubmit();
  assert.deepEqual(ring.taken.map(({ opcode, flags, fd }) => [opcode, flags, fd === 99]), [
    [OPCODE.read, 8, false], [OPCODE.write, 64, true], [OPCODE.read, 8, false], [OPCODE.write, 64, true]]);
  for (const { tag } of readsOf(ring)) ring.answer(tag, PAGE);
  wake();
  await Promise.all(both);
});

test('what the kernel does not take is left to the pool, and no more is asked of it', async (t) => {
  const { ring, reads, wake } = scripted();
  const disk = await file(t);
  ring.takes = 2;
  const [first, second] = [reads.read(disk, new Uint8Array(PAGE), 0)!, reads.read(disk, new Uint8Array(PAGE), 0)!];
  assert.equal(await second, false);
  ring.answer(readsOf(ring)[0]!.tag, PAGE);
  wake();
  assert.equal(await first, true);
  assert.equal(reads.read(disk, new Uint8Array(PAGE), 0), null);
});

test('a read that was taken without what wakes the loop is looked for', async (t) => {
  const { ring, reads } = scripted();
  const disk = await file(t);
  ring.takes = 1;
  const read = reads.read(disk, new Uint8Array(PAGE), 0)!;
  await afterSubmit();
  ring.answer(readsOf(ring)[0]!.tag, PAGE);
  assert.equal(await read, true);
});

test('a descriptor that is closed is refused before anything is asked, and one that is read from is not closed before the answer', async (t) => {
  const { ring, reads, wake } = scripted();
  const disk = await file(t);
  const read = reads.read(disk, new Uint8Array(PAGE), 0)!;
  await afterSubmit();
  let isClosed = false;
  const closing = disk.close().then(() => { isClosed = true; });
  assert.throws(() => reads.read(disk, new Uint8Array(PAGE), 0), { code: 'EBADF' });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isClosed, false);
  ring.answer(readsOf(ring)[0]!.tag, PAGE);
  wake();
  assert.equal(await read, true);
  await closing;
});

test('a descriptor with a ring reads the same, and says what is wrong as one without', async (t) => {
  const plain = await file(t);
  const reads = ReadRing.open(hostClock);
  const disk = await Descriptor.open(plain.path, 0, { ...(reads !== null && { readRing: reads }) });
  atEnd(t, () => disk.close());
  const into = new Uint8Array(PAGE);
  await disk.readFully(into, 5 * PAGE);
  assert.ok(BYTES.subarray(5 * PAGE, 6 * PAGE).equals(into));
  const refusal = await plain.readFully(into, 63 * PAGE + 512).catch((error: unknown) => error);
  await assert.rejects(disk.readFully(into, 63 * PAGE + 512), refusal as Error);
});
