import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inOrder } from './failover-order.ts';

const names = (...given: Parameters<typeof inOrder>) => inOrder(...given).map(({ name }) => name);

test('the order as given, and each VM behind those that it waits for', () => {
  assert.deepEqual(names(['web', 'app', 'db'], []), ['web', 'app', 'db']);
  assert.deepEqual(names(['web', 'app', 'db'], ['web=app', 'app=db']), ['db', 'app', 'web']);
  assert.deepEqual(names(['web', 'mail', 'db', 'ldap'], ['web=db,ldap']), ['mail', 'db', 'ldap', 'web']);
  assert.deepEqual(inOrder(['a=b', 'c'], ['a=b=c']), [{ name: 'c', after: [] }, { name: 'a=b', after: ['c'] }]);
});

for (const [what, given, why] of [
  ['a circle', [['a', 'b'], ['a=b', 'b=a']], /circle: a, b/],
  ['a VM that is not among them', [['a'], ['a=x']], /'x', which is not another one/],
  ['a VM that waits for itself', [['a'], ['a=a']], /'a', which is not another one/],
  ['a rule without a VM', [['a'], ['b']], /--after b names no VM/],
  ['a VM that is named twice', [['a', 'a'], []], /'a' is named twice/],
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(() => inOrder(...(given as unknown as Parameters<typeof inOrder>)), { code: 'FAILOVER_ORDER_INVALID', message: why });
  });
}
