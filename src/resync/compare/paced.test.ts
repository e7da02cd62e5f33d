import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../../disk/memory-disk.ts';
import type { Clock } from '../../model/ports.ts';
import { FRAME, decodePace, encodeId, encodePace, paceOf } from './frames.ts';
import { PacedLine } from './paced-line.ts';
import { PAGE, SMALL, runPair, startPair } from './pair.suite.ts';

const MIB = 1 << 20;
type Paced = Pick<Clock, 'monotonic' | 'sleep'>;

/** A clock that jumps to where a sleep ends, some turns of the event loop later: the other side comes on meanwhile. */
function jumpingClock() {
  const state = { time: 0 };
  const clock: Paced = {
    monotonic: () => state.time,
    sleep: async (ms, signal) => {
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      state.time += ms;
    },
  };
  return { state, clock };
}

async function disksOf(leaves: number): Promise<{ source: MemoryDisk; target: MemoryDisk }> {
  const size = leaves * SMALL.leafBytes;
  const [source, target] = [new MemoryDisk(size), new MemoryDisk(size)];
  for (const disk of [source, target]) {
    for (let at = 0; at < size; at += SMALL.leafBytes) await disk.write(Buffer.alloc(PAGE, 1), at);
  }
  return { source, target };
}

test('the target reads no faster than its source says that it does, and tells nobody of it where there is no limit', async () => {
  for (const rate of [MIB, 10 * MIB, null]) {
    const { state, clock } = jumpingClock();
    const { source: { equal }, near } = await runPair({
      ...(await disksOf(1024)), sourceOptions: { readRate: () => rate }, targetOptions: { clock },
    });
    assert.ok(equal);
    assert.equal(near.seen.get(FRAME.pace), undefined);
    const [least, most] = rate === null ? [0, 0] : [(31 * MIB * 1000) / rate, (32 * MIB * 1000) / rate];
    assert.ok(state.time >= least && state.time <= most, `32 MiB in ${state.time} ms at ${rate}`);
  }
});

test('a limit that is lifted is told at once, and what waits by the old one goes on', async () => {
  const { state, clock } = jumpingClock();
  let rate: number | null = 64 * 1024;
  const { near } = await runPair({
    ...(await disksOf(512)),
    sourceOptions: {
      readRate: () => rate,
      onProgress: ({ scannedBytes }) => {
        if (scannedBytes >= 4 * MIB) rate = null;
      },
    },
    targetOptions: { clock },
  });
  assert.equal(near.seen.get(FRAME.pace), 1);
  assert.ok(state.time <= 60_000, `${state.time} ms, at the first limit 256 s`);
});

test('a source that ends leaves nobody behind who waits for its pace', async () => {
  const waiting = Promise.withResolvers<void>();
  const clock: Paced = {
    monotonic: () => 0,
    sleep: (_ms, signal) => new Promise((_resolve, reject) => {
      signal!.addEventListener('abort', () => reject(signal!.reason as Error), { once: true });
      waiting.resolve();
    }),
  };
  const stop = new AbortController();
  const { outcome } = startPair({
    ...(await disksOf(256)), sourceOptions: { readRate: () => 64 * 1024, signal: stop.signal }, targetOptions: { clock },
  });
  await waiting.promise;
  stop.abort(new Error('cancelled'));
  const { target } = await outcome;
  assert.equal(target.status, 'rejected');
});

test('a pace travels as it is, and one that nobody can have set is refused', () => {
  const decoded = (rate: number | null) => decodePace(Buffer.concat(encodePace(paceOf(rate))));
  assert.deepEqual([decoded(null), decoded(65_536), decoded(250.6 * MIB)], [null, 65_536, Math.round(250.6 * MIB)]);
  assert.throws(() => decodePace(Buffer.concat(encodeId(1))), /a pace of 1 bytes/);
});

test('what passes within two milliseconds is not waited for', () => {
  const line = new PacedLine({ monotonic: () => 0, sleep: () => assert.fail('waited') }, () => 1000 * MIB, new AbortController().signal);
  assert.equal(line.pass(MIB), undefined);
});
