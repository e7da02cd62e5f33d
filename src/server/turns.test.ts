import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { libc, portableLibc, type Libc } from '../disk/libc.ts';
import { takeTurns } from './turns.ts';

function recording(): { native: Libc; asked: Map<number, number> } {
  const asked = new Map<number, number>();
  return { asked, native: { ...portableLibc, native: true, setSlice: (ns, thread = 0) => asked.set(thread, ns).size > 0 } };
}

test('the threads of V8 take long turns, the server short ones, and nobody else is asked', (t) => {
  const tasks = mkdtempSync(join(tmpdir(), 'understudy-turns-'));
  atEnd(t, () => rmSync(tasks, { recursive: true }));
  for (const [thread, name] of [['10', 'MainThread'], ['11', 'V8Worker'], ['12', 'libuv-worker'], ['13', 'V8Worker']] as const) {
    mkdirSync(join(tasks, thread));
    writeFileSync(join(tasks, thread, 'comm'), `${name}\n`);
  }
  mkdirSync(join(tasks, '14')); // It has just ended.
  const { native, asked } = recording();
  takeTurns(native, tasks);
  assert.deepEqual([...asked], [[11, 100_000_000], [13, 100_000_000], [0, 300_000]]);
});

test('this Node still gives them the name that they are known by', { skip: libc().native ? false : 'not a Linux whose calls are known' }, () => {
  const { native, asked } = recording();
  takeTurns(native);
  const threads = [...asked.keys()].filter((thread) => thread !== 0);
  assert.ok(threads.length > 0, `threads: ${readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim()).join(', ')}`);
});

test('a host without such calls is left alone', () => {
  takeTurns({ ...portableLibc, setSlice: () => assert.fail('asked') }, '/nowhere');
});
