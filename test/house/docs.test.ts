/** The documentation is part of the product: its links lead somewhere, and its runbook knows every error code and no other. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';

const CODE = /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/;
/** Look like codes and are none: environment variables, names of libc's and Node's. */
const NOT_CODES = new Set([
  'UNDERSTUDY_DATA', 'UNDERSTUDY_BOOT_ID_FILE', 'UNDERSTUDY_HOST_ID_FILE', 'UNDERSTUDY_LOG_LEVEL', 'UNDERSTUDY_POINT_INTERVAL_SEC',
  'NO_COLOR', 'SEEK_DATA', 'SEEK_HOLE',
  'HPE_HEADER_OVERFLOW', 'ERR_HTTP_REQUEST_TIMEOUT',
]);
const RUNBOOK = 'docs/operating/errors.md';

const read = (file: string) => readFileSync(file, 'utf8');
const pages = globSync(['*.md', 'docs/**/*.md', 'test/golden/**/*.md']).sort();
const withoutFences = (text: string) => text.replace(/^```[^]*?^```/gm, '').replace(/`[^`\n]*`/g, '');

/**
 * Any string of several words in capitals is a code; one word alone only where a code is meant: `code: 'X'`, or beside a
 * kind.
 */
function codesIn(file: string): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteral(node) && CODE.test(node.text) && !NOT_CODES.has(node.text)) {
      if (node.text.includes('_') || isMeantAsCode(node)) found.push(node.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, read(file), ts.ScriptTarget.ESNext, true));
  return found;
}

function isMeantAsCode(node: ts.StringLiteral): boolean {
  const { parent } = node;
  // Errno names are the system's, not ours.
  if (/^E[A-Z0-9]+$/.test(node.text)) return false;
  if (ts.isPropertyAssignment(parent)) return parent.name.getText() === 'code';
  return ts.isNewExpression(parent) && parent.expression.getText() === 'UnderstudyError' && parent.arguments?.[1] === node;
}

/** Codes that are not spelled out in src/: the launcher's own, and Commander's complaints, which failure.ts spells our way. */
function codesFromElsewhere(): string[] {
  const complaints = globSync('node_modules/commander/lib/*.js')
    .flatMap((file) => [...read(file).matchAll(/'commander\.([a-zA-Z]+)'/g)].map(([, name]) => name!))
    .map((name) => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase());
  const launcher = [...read('bin/understudy').matchAll(/understudy: ([A-Z_]+):/g)].map(([, code]) => code!);
  return [...complaints, ...launcher];
}

function documentedCodes(): string[] {
  return read(RUNBOOK).split('\n').filter((line) => line.startsWith('| `'))
    .flatMap((line) => [...line.split(/(?<!\\)\|/)[1]!.matchAll(/`([^`]+)`/g)].map(([, code]) => code!));
}

test('the runbook has every error code once, and none that does not exist', () => {
  const sources = globSync(['src/**/*.ts', 'web/src/**/*.{ts,tsx}']).filter((file) => !/\.(test|suite)\.ts$/.test(file));
  const inCode = new Map<string, string>();
  for (const file of sources) for (const code of codesIn(file)) inCode.set(code, file);
  const documented = documentedCodes();
  const known = new Set([...inCode.keys(), ...codesFromElsewhere()]);
  assert.ok(inCode.size > 100, `only ${inCode.size} codes were found in src/`);
  assert.deepEqual({
    missing: [...inCode].filter(([code]) => !documented.includes(code)).map(([code, file]) => `${code} (${file})`).sort(),
    unknown: documented.filter((code) => !known.has(code)),
    twice: documented.filter((code, index) => documented.indexOf(code) !== index),
  }, { missing: [], unknown: [], twice: [] });
});

test('every relative link of a page leads to a file, and to a heading where it names one', () => {
  const broken: string[] = [];
  let links = 0;
  for (const page of pages) {
    for (const [, link] of withoutFences(read(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link!)) continue;
      links++;
      const [path, anchor] = link!.split('#');
      const target = path === '' ? page : join(dirname(page), path!);
      if (!existsSync(target)) broken.push(`${page}: ${link}`);
      else if (anchor !== undefined && !anchorsOf(target).includes(anchor)) broken.push(`${page}: ${link}, no such heading`);
    }
  }
  assert.ok(links > 20, `only ${links} links were found`);
  assert.deepEqual(broken, []);
});

function anchorsOf(page: string): string[] {
  return read(page).split('\n').filter((line) => /^#+ /.test(line))
    .map((line) => line.replace(/^#+ /, '').toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'));
}

test('files and folders that pages name in src/, test/, docs/, scripts/ and bench/ exist', () => {
  const missing: string[] = [];
  for (const page of pages) {
    for (const [, path] of read(page).matchAll(/`((?:src|test|docs|scripts|bench|web|deploy)\/[\w./-]*)`/g)) {
      if (!existsSync(path!)) missing.push(`${page}: ${path}`);
    }
  }
  assert.deepEqual(missing, []);
});

test('no page names a line of the code, which the next change moves', () => {
  const byLine = pages.filter((page) => /\.ts:\d+|#L\d+/.test(read(page)));
  assert.deepEqual(byLine, []);
});
