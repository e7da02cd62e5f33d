import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { test } from 'node:test';
import { settleAll } from './settle-all.ts';

test('it resolves when the last part has, also without any', async () => {
  await settleAll([]);
  const last = Promise.withResolvers<void>();
  let settled = false;
  const all = settleAll([Promise.resolve(1), last.promise]).then(() => (settled = true));
  await setImmediate();
  assert.equal(settled, false);
  last.resolve();
  await all;
});

for (const others of [0, 1]) {
  test(`a failure is reported when ${others === 0 ? 'it is all there is' : 'the other part has ended too'}: the first in order, not in time`, async () => {
    const first = Promise.withResolvers<void>();
    const parts = [first.promise, ...(others === 0 ? [] : [Promise.reject(new Error('second'))])];
    let failed: unknown = null;
    const all = settleAll(parts).catch((error: unknown) => (failed = error));
    await setImmediate();
    assert.equal(failed, null);
    first.reject(new Error('first'));
    await all;
    assert.equal((failed as unknown as Error).message, 'first');
  });
}
