/**
 * All tests. `npm test` runs what every change must pass; `npm run test:long` the same with more rounds. Groups run one
 * after another, and two files of a group side by side: most of them wait more than they compute.
 *
 *   node scripts/run-tests.ts [--long] [GROUP…]     groups: house, unit, simulation, browser, system
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { buildConsole } from './build-console.ts';

const long = process.argv.includes('--long');
const chosen = process.argv.slice(2).filter((word) => !word.startsWith('--'));

interface Group {
  name: string;
  files: string[];
  concurrency: number;
}

const systemFiles = globSync('test/{mutation,interop,system,crash,guest}/**/*.test.ts');

const groups: Group[] = [
  { name: 'house', files: globSync('test/house/*.test.ts'), concurrency: 2 },
  { name: 'unit', files: globSync(['src/**/*.test.ts', 'test/{cli,peer,formats,golden,rules,rig}/**/*.test.ts']), concurrency: 2 },
  { name: 'simulation', files: globSync('test/simulation/*.test.ts'), concurrency: 2 },
  { name: 'browser', files: globSync('test/browser/*.test.ts'), concurrency: 2 },
  { name: 'system', files: systemFiles, concurrency: 2 },
];

const forgotten = globSync('{src,test,bench,scripts}/**/*.test.ts').filter((file) =>
  !groups.some(({ files }) => files.includes(file)));
if (forgotten.length > 0) console.error(`These tests belong to no group and would never run:\n  ${forgotten.join('\n  ')}`);
let failed = forgotten.length > 0;
const startedAt = performance.now();
for (const { name, files, concurrency } of groups) {
  if (files.length === 0 || (chosen.length > 0 && !chosen.includes(name))) continue;
  const began = performance.now();
  // Before two files of the group find it old at the same time.
  if (name === 'browser') buildConsole();
  console.log(`\n# ${name}: ${files.length} files`);
  const { status, error } = spawnSync(process.execPath, [
    '--test', `--test-concurrency=${concurrency}`, '--test-reporter=spec',
    // A test that hangs fails by name instead of holding everything up, and a file ends with its last test: what it left
    // running makes it fail (test/rig/at-end.ts).
    `--test-timeout=${long ? 3_600_000 : 600_000}`, '--test-force-exit', '--disable-warning=ExperimentalWarning', ...files.sort(),
  ], { stdio: 'inherit', timeout: long ? 3 * 3_600_000 : 30 * 60_000, env: { ...process.env, UNDERSTUDY_TEST_LONG: long ? '1' : '' } });
  if (error !== undefined) console.error(`# ${name}: stopped: ${error.message}`);
  console.log(`# ${name}: ${status === 0 ? 'passed' : 'FAILED'} in ${Math.round((performance.now() - began) / 1000)} s`);
  failed ||= status !== 0;
}
console.log(`\n# all: ${failed ? 'FAILED' : 'passed'} in ${Math.round((performance.now() - startedAt) / 1000)} s`);
process.exitCode = failed ? 1 : 0;
