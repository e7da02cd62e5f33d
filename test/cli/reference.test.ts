/**
 * docs/operating/cli.md says what the program does. `UPDATE_DOCS=1 node --test test/cli/reference.test.ts` writes
 * it anew.
 */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { commandReference, fieldTable } from './reference.ts';

const PATH = join(import.meta.dirname, '../../docs/operating/cli.md');
const PARTS = { commands: commandReference, fields: fieldTable };

for (const [name, make] of Object.entries(PARTS)) {
  test(`the part "${name}" of docs/operating/cli.md is what the program says of itself`, () => {
    const text = readFileSync(PATH, 'utf8');
    const [begin, end] = [`<!-- ${name}: made by test/cli/reference.ts -->\n`, `<!-- end of ${name} -->\n`];
    const [before, rest] = text.split(begin);
    const [part, after] = (rest ?? '').split(end);
    assert.ok(rest !== undefined && after !== undefined, `${PATH} lacks the marks of ${name}`);
    if (process.env['UPDATE_DOCS'] !== undefined) {
      writeFileSync(PATH, `${before}${begin}\n${make()}\n${end}${after}`);
      return;
    }
    assert.equal(part, `\n${make()}\n`);
  });
}
