import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matches } from './wildcard.ts';

const rows: readonly [pattern: string, text: string, expected: boolean][] = [
  ['*', '', true],
  ['web*', 'WEB-1', true],
  ['web?', 'web1', true],
  ['web?', 'web', false],
  ['w[a-e]b', 'wEb', true],
  ['w[a-d]b', 'web', false],
  ['a.b', 'axb', false],
  ['a(b', 'a(b', true],
  ['[', '[', true],
  ['web-1', 'web-1', true],
  ['[z-a]', 'b', false],
  ['x*', 'x\ny', true],
];
for (const [pattern, text, expected] of rows) {
  test(`${JSON.stringify(pattern)} ${expected ? 'matches' : 'does not match'} ${JSON.stringify(text)}`, () =>
    assert.equal(matches(pattern, text), expected));
}
