import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import ts from 'typescript';
import { MAY_IMPORT, PORT_FILES } from './layers.ts';

/** Lines aim at 120 columns; the ceiling is where a reader must scroll. */
const LIMITS = { fileLines: 500, testFileLines: 800, functionLines: 70, columns: 165 };

const sources = globSync(['src/**/*.ts', 'test/**/*.ts', 'bench/**/*.ts', 'scripts/**/*.ts', 'web/src/**/*.{ts,tsx}']).sort();
/** Where programs begin; everything else is imported by something. */
const ROOTS = ['src/main.ts', 'web/src/main.tsx'];
const isTest = (file: string) => file.startsWith('test/') || /\.(test|suite)\.ts$/.test(file);
const lines = (file: string) => readFileSync(file, 'utf8').split('\n');

test('every import under src/ follows the layer table', () => {
  const broken: string[] = [];
  for (const file of sources.filter((name) => /^src\/[a-z]+\//.test(name))) {
    const from = file.split('/')[1]!;
    for (const [, path] of readFileSync(file, 'utf8').matchAll(/(?:from|import) '((?:\.\.?\/)[^']+)'/g)) {
      const target = new URL(path!, `file:///${file}`).pathname.split('/');
      if (target[1] !== 'src') {
        if (!isTest(file)) broken.push(`${file} imports ${path}, outside of src/`);
        continue;
      }
      const to = target[2]!;
      if (to !== from && !MAY_IMPORT[from]?.includes(to)) broken.push(`${file}: ${from} may not import ${to}`);
    }
  }
  assert.deepEqual(broken, []);
});

test('files and lines keep their size limits', () => {
  const broken: string[] = [];
  for (const file of sources) {
    const text = lines(file);
    const limit = isTest(file) ? LIMITS.testFileLines : LIMITS.fileLines;
    if (text.length > limit) broken.push(`${file}: ${text.length} lines, at most ${limit}`);
    text.forEach((line, index) => {
      if (line.length > LIMITS.columns) broken.push(`${file}:${index + 1}: ${line.length} columns`);
    });
  }
  assert.deepEqual(broken, []);
});

test('functions keep their size limit', () => {
  const broken: string[] = [];
  for (const file of sources.filter((name) => !isTest(name))) {
    const tree = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ESNext, true);
    const visit = (node: ts.Node): void => {
      if ((ts.isFunctionLike(node) && 'body' in node && node.body !== undefined)) {
        const first = tree.getLineAndCharacterOfPosition(node.getStart()).line;
        const last = tree.getLineAndCharacterOfPosition(node.end).line;
        if (last - first + 1 > LIMITS.functionLines) broken.push(`${file}:${first + 1}: ${last - first + 1} lines`);
      }
      ts.forEachChild(node, visit);
    };
    visit(tree);
  }
  assert.deepEqual(broken, []);
});

test('what tests set up is undone by atEnd, last first (test/rig/at-end.ts)', () => {
  const hook = /\b(t|inner|context)[.]after\(/;
  const broken = sources.filter((file) => isTest(file) && !file.startsWith('test/rig/at-end') && hook.test(readFileSync(file, 'utf8')));
  assert.deepEqual(broken, []);
});

test('clocks, dice and timers are reached through ports only', () => {
  const banned = /\b(Date\.now|Math\.random|randomUUID|performance\.now|process\.hrtime)\b|\bnew Date\(\)|(?<![.\w])set(Timeout|Interval)\(/;
  const broken: string[] = [];
  for (const file of sources.filter((name) => name.startsWith('src/') && !isTest(name) && !PORT_FILES.includes(name))) {
    lines(file).forEach((line, index) => {
      const code = line.replace(/\/\/.*$/, '').replace(/^\s*\*.*$/, '');
      if (banned.test(code)) broken.push(`${file}:${index + 1}: ${line.trim()}`);
    });
  }
  assert.deepEqual(broken, []);
});

test('QEMU tools are started in one place, behind the function that decides whether they may open an image', () => {
  const starts = sources.filter((file) => file.startsWith('src/') && !isTest(file) &&
    /\b(spawn|exec|execFile|fork|spawnSync|execFileSync|execSync)\(\s*['"`]qemu/.test(readFileSync(file, 'utf8')));
  assert.deepEqual(starts, ['src/disk/images/qemu-tools.ts']);
});

test('no file has a name that says nothing', () => {
  const vague = sources.filter((file) => /(^|\/)(utils?|helpers?|common|types|misc)\.tsx?$/.test(file));
  assert.deepEqual(vague, []);
});

test('every file of src/ is reached from the program or from a test', () => {
  const imported = new Set<string>();
  for (const file of sources) {
    for (const [, path] of readFileSync(file, 'utf8').matchAll(/'((?:\.\.?\/)[^']+\.tsx?)'/g)) {
      imported.add(new URL(path!, `file:///${file}`).pathname.slice(1));
    }
  }
  const dead = sources.filter((file) => /^(web\/)?src\//.test(file) && !isTest(file) && !ROOTS.includes(file) && !imported.has(file));
  assert.deepEqual(dead, []);
});
