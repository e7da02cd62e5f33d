/** The longest of the house tests has a file of its own, so that the others run beside it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { check } from './static-checks.ts';

test('the linter finds nothing', () => {
  const { status, output } = check('eslint', ['--max-warnings', '0', 'src', 'test', 'bench', 'scripts', 'web/src']);
  assert.equal(status, 0, output);
});
