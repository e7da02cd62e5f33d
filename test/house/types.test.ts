import assert from 'node:assert/strict';
import { test } from 'node:test';
import { check } from './static-checks.ts';

test('the type checker finds nothing', () => {
  for (const project of ['tsconfig.json', 'web/tsconfig.json']) {
    const { status, output } = check('tsc', ['-p', project]);
    assert.equal(status, 0, output);
  }
});
