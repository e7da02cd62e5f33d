import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Budget } from './budget.ts';
import { RefusalLog } from './refusal-log.ts';

const signal = new AbortController().signal;
/** Lets every promise that can settle do so. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

test('asking beyond the rest waits until enough is given back, in order', async () => {
  const budget = new Budget(10);
  const order: string[] = [];
  const first = await budget.acquire(8, signal);
  const large = budget.acquire(9, signal).then((release) => { order.push('large'); return release; });
  const small = budget.acquire(1, signal).then((release) => { order.push('small'); return release; });
  await settle();
  assert.deepEqual(order, [], 'a small one does not overtake, else a large one might wait for ever');
  first();
  await Promise.all([large, small]);
  assert.deepEqual(order, ['large', 'small']);
});

test('asking for more than there is takes everything and still ends', async () => {
  const budget = new Budget(10);
  (await budget.acquire(1000, signal))();
  assert.equal(budget.free, 10);
});

test('who gives up waiting holds nothing and lets those behind pass', async () => {
  const budget = new Budget(10);
  const release = await budget.acquire(5, signal);
  const impatient = new AbortController();
  const large = budget.acquire(10, impatient.signal);
  const small = budget.acquire(5, signal);
  impatient.abort(new Error('enough'));
  await assert.rejects(large, /enough/);
  (await small)();
  release();
  release();
  assert.equal(budget.free, 10, 'giving back twice counts once');
});

test('whatever is taken, given back and aborted, nothing is lost and nothing is lent twice', async () => {
  const step = fc.record({ count: fc.integer({ min: 0, max: 12 }), action: fc.constantFrom('keep', 'return', 'abort') });
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
    const budget = new Budget(10);
    const held: (() => void)[] = [];
    const waiting: Promise<void>[] = [];
    const aborts: AbortController[] = [];
    for (const { count, action } of steps) {
      const abort = new AbortController();
      aborts.push(abort);
      waiting.push(budget.acquire(count, abort.signal).then((release) => { held.push(release); }, () => {}));
      await settle();
      if (action === 'abort') abort.abort(new Error('given up'));
      if (action === 'return') held.shift()?.();
      assert.ok(budget.free >= 0 && budget.free <= 10);
    }
    for (const abort of aborts) abort.abort(new Error('end'));
    await Promise.all(waiting);
    for (const release of held) release();
    assert.equal(budget.free, 10);
  }), { numRuns: 50 });
});

test('refusals of an address are told ever more rarely', () => {
  const log = new RefusalLog();
  const told = Array.from({ length: 1000 }, () => log.count('192.0.2.1')).filter((count) => count !== null);
  assert.deepEqual(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
});

test('the memory of refusals is bounded and keeps the address that knocks most recently', () => {
  const log = new RefusalLog();
  log.count('192.0.2.1');
  for (let n = 0; n < 255; n++) log.count(`address ${n}`);
  assert.equal(log.count('192.0.2.1'), 2);
  for (let n = 0; n < 256; n++) log.count(`other ${n}`);
  assert.equal(log.count('192.0.2.1'), 1);
});
