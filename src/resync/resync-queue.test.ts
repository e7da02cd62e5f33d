import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { ResyncQueue } from './resync-queue.ts';

const never = new AbortController().signal;

/** Enters and notes its turn; `left` ends it. */
function entering(queue: ResyncQueue, vmId: string, priority: number, order: string[], signal = never) {
  const entry = { leave: () => {}, failed: null as unknown };
  void queue.enter(vmId, priority, signal).then((leave) => {
    order.push(vmId);
    entry.leave = leave;
  }, (error: unknown) => (entry.failed = error));
  return entry;
}

test('one at a time by default; then the smaller priority, then who came first', async () => {
  const queue = new ResyncQueue(() => 1);
  const order: string[] = [];
  const first = entering(queue, 'first', 50, order);
  const late = entering(queue, 'late', 50, order);
  const later = entering(queue, 'later', 50, order);
  const urgent = entering(queue, 'urgent', 1, order);
  await turn();
  assert.deepEqual([queue.running, queue.waiting], [['first'], ['urgent', 'late', 'later']]);
  for (const entry of [first, urgent, late, later]) {
    entry.leave();
    await turn();
  }
  assert.deepEqual(order, ['first', 'urgent', 'late', 'later']);
  assert.deepEqual([queue.running, queue.waiting], [[], []]);
});

test('as many at once as the limit says at that moment', async () => {
  let limit = 2;
  const queue = new ResyncQueue(() => limit);
  const order: string[] = [];
  const entries = ['a', 'b', 'c', 'd'].map((vmId) => entering(queue, vmId, 0, order));
  await turn();
  assert.deepEqual(order, ['a', 'b']);
  limit = 1;
  entries[0]!.leave();
  await turn();
  assert.deepEqual(queue.running, ['b']);
  entries[1]!.leave();
  await turn();
  assert.deepEqual([queue.running, queue.waiting], [['c'], ['d']]);
});

test('two that end together let in two, never the same one twice', async () => {
  const queue = new ResyncQueue(() => 2);
  const order: string[] = [];
  const entries = ['a', 'b', 'c', 'd', 'e'].map((vmId) => entering(queue, vmId, 0, order));
  await turn();
  entries[0]!.leave();
  entries[1]!.leave();
  await turn();
  assert.deepEqual([order, queue.waiting], [['a', 'b', 'c', 'd'], ['e']]);
});

test('who gives up waiting leaves the queue with his reason, and is not let in', async () => {
  const queue = new ResyncQueue(() => 1);
  const order: string[] = [];
  const first = entering(queue, 'first', 0, order);
  const given = new AbortController();
  const second = entering(queue, 'second', 0, order, given.signal);
  entering(queue, 'third', 0, order);
  await turn();
  const reason = new Error('paused');
  given.abort(reason);
  await turn();
  assert.equal(second.failed, reason);
  assert.deepEqual(queue.waiting, ['third']);
  first.leave();
  await turn();
  assert.deepEqual(order, ['first', 'third']);
  await assert.rejects(queue.enter('second', 0, given.signal), reason);
});
