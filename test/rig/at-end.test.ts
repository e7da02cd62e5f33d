import assert from 'node:assert/strict';
import { test } from 'node:test';
import { atEnd } from './at-end.ts';

class FakeTest {
  readonly hooks: (() => unknown)[] = [];
  after(hook?: unknown): void {
    this.hooks.push(hook as () => unknown);
  }
}

test('what was set up last is undone first, one after the other, with one hook', async () => {
  const t = new FakeTest();
  const order: string[] = [];
  atEnd(t, () => order.push('folder'));
  atEnd(t, async () => {
    await new Promise(setImmediate);
    order.push('server');
  });
  assert.equal(t.hooks.length, 1);
  await t.hooks[0]!();
  assert.deepEqual(order, ['server', 'folder']);
});

test('everything is undone whatever fails, and the first failure is told', async () => {
  const t = new FakeTest();
  const order: string[] = [];
  atEnd(t, () => order.push('folder'));
  atEnd(t, () => Promise.reject(new Error('second')));
  atEnd(t, () => {
    throw new Error('first');
  });
  await assert.rejects(async () => t.hooks[0]!(), /first/);
  assert.deepEqual(order, ['folder']);
});
