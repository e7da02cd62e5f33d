import assert from 'node:assert/strict';
import { test } from 'node:test';
import { everySecond } from './every-second.ts';

/** A clock that is moved by hand. */
function handClock() {
  const sleeping = new Set<() => void>();
  let slept = 0;
  const clock = {
    now: () => 0, monotonic: () => 0,
    sleep: (ms: number, signal?: AbortSignal) => new Promise<void>((resolve, reject) => {
      assert.equal(ms, 1000);
      slept++;
      sleeping.add(resolve);
      signal?.addEventListener('abort', () => {
        sleeping.delete(resolve);
        reject(signal.reason as Error);
      });
    }),
  };
  const second = async () => {
    const due = [...sleeping];
    sleeping.clear();
    for (const wake of due) wake();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { ports: { clock }, second, sleeping, slept: () => slept };
}

test('all looks of a host share one timer, which ends with the last of them', async () => {
  const { ports, second, sleeping, slept } = handClock();
  const seen = [0, 0];
  const stops = seen.map((_, index) => everySecond(ports, () => { seen[index]!++; }));
  assert.equal(sleeping.size, 1);
  await second();
  await second();
  assert.deepEqual([seen, sleeping.size, slept()], [[2, 2], 1, 3]);
  stops[0]!();
  stops[0]!();
  await second();
  assert.deepEqual([seen, sleeping.size], [[2, 3], 1]);
  stops[1]!();
  assert.equal(sleeping.size, 0);
  const again = everySecond(ports, () => { seen[0]!++; });
  assert.equal(sleeping.size, 1);
  await second();
  assert.deepEqual(seen, [3, 3]);
  again();
  await second();
  assert.deepEqual([seen, sleeping.size], [[3, 3], 0]);
});

test('a look may end itself and others while all are looked at', async () => {
  const { ports, second, sleeping } = handClock();
  const seen: string[] = [];
  const stopA = everySecond(ports, () => {
    seen.push('a');
    stopA();
    stopB();
  });
  const stopB = everySecond(ports, () => seen.push('b'));
  await second();
  assert.deepEqual([seen, sleeping.size], [['a'], 0]);
});
