/**
 * Each rule is broken on purpose, in a copy of the sources, and the test of the rule must notice: by an assertion, not because it could
 * not be loaded or hung. `npm test` breaks each rule once, `npm run test:long` in every way of the table, BREAKAGE=R7 one rule.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '../rig/program.ts';
import { BREAKAGES, type Breakage } from './breakages.ts';

const LONG = process.env['UNDERSTUDY_TEST_LONG'] === '1';
const ONLY = process.env['BREAKAGE'];
const ROOT = join(import.meta.dirname, '../..');
const RULES = ['P1', ...Array.from({ length: 15 }, (_, index) => `R${index + 1}`), 'R19', 'R21', 'R22', 'R23', 'R24', 'R25', 'R26', 'R27'];

const folder = mkdtempSync(join(tmpdir(), 'understudy-broken-'));
after(() => rmSync(folder, { recursive: true, force: true }));
for (const name of ['src', 'test', 'bin', 'package.json', 'tsconfig.json']) cpSync(join(ROOT, name), join(folder, name), { recursive: true });
symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));

test('every rule has a breakage for npm test, and each row finds its text exactly once', () => {
  assert.deepEqual([...new Set(BREAKAGES.filter(({ quick }) => quick).map(({ rule }) => rule))].sort(), [...RULES].sort());
  const stale = BREAKAGES.filter(({ file, from }) => readFileSync(join(ROOT, file), 'utf8').split(from).length !== 2);
  assert.deepEqual(stale.map(({ rule, what, file }) => `${rule} ${what}: its text is not in ${file} exactly once; break the new code in its place`), []);
});

test('unbroken, the copy passes', async () => {
  const { status, stdout } = await runTests(BREAKAGES[0]!.test);
  assert.equal(status, 0, stdout.slice(-4000));
});

for (const breakage of BREAKAGES) {
  const chosen = ONLY === undefined ? LONG || breakage.quick === true : breakage.rule === ONLY || breakage.what.includes(ONLY);
  if (!chosen) continue;
  test(`${breakage.rule} broken: ${breakage.what}`, async () => {
    const { status, stdout } = await broken(breakage, () => runTests(breakage.test, breakage.only));
    assert.notEqual(status, 0, `${breakage.test} does not notice`);
    // Or the product itself refuses what the test asks for.
    assert.match(stdout, /ERR_ASSERTION|AssertionError|UnderstudyError/, `it fails, and not by an assertion:\n${stdout.slice(-4000)}`);
    assert.doesNotMatch(stdout, /ERR_MODULE_NOT_FOUND|SyntaxError/, stdout.slice(-4000));
  });
}

async function broken<T>({ file, from, to }: Breakage, work: () => Promise<T>): Promise<T> {
  const path = join(folder, file);
  const whole = readFileSync(path, 'utf8');
  writeFileSync(path, whole.replace(from, () => to));
  try {
    return await work();
  } finally {
    writeFileSync(path, whole);
  }
}

/** Without the runner's own process: one process less, and what hangs is ended here. */
async function runTests(file: string, only = '.'): Promise<{ status: number | null; stdout: string }> {
  const words = ['--max-old-space-size=1024', '--test-reporter=spec', `--test-name-pattern=${only}`, '--disable-warning=ExperimentalWarning'];
  const { status, stdout, stderr } = await run(process.execPath, [...words, file],
    { cwd: folder, env: { NODE_TEST_CONTEXT: '', UNDERSTUDY_TEST_LONG: '' }, timeoutMs: 120_000 });
  return { status, stdout: stdout + stderr };
}
