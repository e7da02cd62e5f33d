import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const run = (command: string, args: string[]) => {
  const done = spawnSync(`node_modules/.bin/${command}`, args, { encoding: 'utf8' });
  return { status: done.status, output: `${done.stdout}${done.stderr}` };
};

test('the type checker finds nothing', () => {
  for (const project of ['tsconfig.json', 'web/tsconfig.json']) {
    const { status, output } = run('tsc', ['-p', project]);
    assert.equal(status, 0, output);
  }
});

test('the linter finds nothing', () => {
  const { status, output } = run('eslint', ['--max-warnings', '0', 'src', 'test', 'bench', 'scripts', 'web/src']);
  assert.equal(status, 0, output);
});
