/**
 * All tests. `npm test` runs what every change must pass; `npm run test:long` the same with more rounds.
 *
 *   node scripts/run-tests.ts [--long] [GROUP…]     groups: house, unit, simulation, browser, system
 *
 * Every file is a process of its own, and three of them run side by side whatever their group is: many wait more than they
 * compute (for cycles, for servers that start, for a guest). Those that take longest begin first (scripts/test-order.ts), or one core would stand idle
 * at the end for as long as the last of them takes.
 */
import { globSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { buildConsole } from './build-console.ts';
import { LONGEST_FIRST } from './test-order.ts';

const SIDE_BY_SIDE = 3;

const GROUPS = {
  house: globSync('test/house/*.test.ts'),
  unit: globSync(['src/**/*.test.ts', 'test/{cli,peer,formats,golden,rules,rig}/**/*.test.ts']),
  simulation: globSync('test/simulation/*.test.ts'),
  browser: globSync('test/browser/*.test.ts'),
  system: globSync('test/{mutation,interop,system,crash,guest}/**/*.test.ts'),
};
type Group = keyof typeof GROUPS;

const long = process.argv.includes('--long');
const words = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const chosen = (Object.keys(GROUPS) as Group[]).filter((name) => words.length === 0 || words.includes(name));
const unknown = words.filter((word) => !(word in GROUPS));
const grouped = Object.values(GROUPS).flat();
const forgotten = globSync('{src,test,bench,scripts}/**/*.test.ts').filter((file) => !grouped.includes(file));
const gone = LONGEST_FIRST.filter((file) => !grouped.includes(file));
const complain = (what: string, names: string[]) => names.length > 0 && console.error(`${what}:\n  ${names.join('\n  ')}`);
complain('There are no such groups', unknown);
complain('These tests belong to no group and would never run', forgotten);
complain('scripts/test-order.ts names files that are no tests', gone);
let failed = unknown.length + forgotten.length + gone.length > 0;

const place = new Map(LONGEST_FIRST.map((file, index) => [file, index]));
const placeOf = (file: string) => place.get(file) ?? LONGEST_FIRST.length;
const files = chosen.flatMap((name) => GROUPS[name]).sort().sort((a, b) => placeOf(a) - placeOf(b));

const secondsOf = new Map<string, number>();
const failedFiles = new Set<string>();

/** What each group took in all, side by side with others; and the files that should stand at the top of the order. */
function conclude(startedAt: number): void {
  const seconds = (file: string) => secondsOf.get(file) ?? 0;
  const longest = files.toSorted((a, b) => seconds(b) - seconds(a)).slice(0, 25);
  console.log(`\n# longest files: ${longest.map((file) => `${file} ${Math.round(seconds(file))} s`).join(', ')}`);
  for (const name of chosen) {
    const sum = GROUPS[name].reduce((total, file) => total + seconds(file), 0);
    const bad = GROUPS[name].some((file) => failedFiles.has(file));
    console.log(`# ${name}: ${bad ? 'FAILED' : 'passed'}, ${GROUPS[name].length} files in ${Math.round(sum)} s, one after another`);
  }
  const missing = files.filter((file) => !secondsOf.has(file));
  complain('These tests did not run', missing);
  failed ||= failedFiles.size + missing.length > 0;
  console.log(`\n# all: ${failed ? 'FAILED' : 'passed'} in ${Math.round((performance.now() - startedAt) / 1000)} s`);
}

// Before two files of the browser find it old at the same time.
if (chosen.includes('browser')) buildConsole();
process.env.UNDERSTUDY_TEST_LONG = long ? '1' : '';
process.exitCode = 1;
const startedAt = performance.now();
const tests = run({
  files: files.map((file) => resolve(file)),
  concurrency: SIDE_BY_SIDE,
  // A test that hangs fails by name instead of holding everything up, and a file ends with its last test: what it left
  // running makes it fail (test/rig/at-end.ts).
  timeout: long ? 3_600_000 : 600_000,
  execArgv: ['--test-force-exit', '--disable-warning=ExperimentalWarning'],
  signal: AbortSignal.timeout(long ? 6 * 3_600_000 : 60 * 60_000),
});
const named = (file: string | undefined) => (file === undefined ? 'unknown' : relative(process.cwd(), file));
tests.on('test:fail', ({ file, todo }) => {
  if (todo === undefined) failedFiles.add(named(file));
});
tests.on('test:complete', ({ name, file, details }) => {
  if (name === file) secondsOf.set(named(file), details.duration_ms / 1000);
});
const report = tests.compose(new spec());
report.pipe(process.stdout);
report.once('end', () => {
  conclude(startedAt);
  process.exitCode = failed ? 1 : 0;
});
