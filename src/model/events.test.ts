import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ACTIVITY_EVENTS, EVENTS, makeEvent, STATE_EVENTS } from './events.ts';
import type { EventDefinition } from './events.ts';

const page = readFileSync(new URL('../../docs/operating/events.md', import.meta.url), 'utf8');
const [changes = '', activity = ''] = page.split('## What happens inside a state');

/** Rows of a table of the page, without the column of data. */
function rowsOf(section: string): string[] {
  return section
    .split('\n')
    .filter((line) => /^\| \w+ \| (Information|Warning|Error) \|/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, 4)
        .map((cell) => cell.trim())
        .join(' | '),
    )
    .sort();
}
function rowsFrom(definitions: Record<string, EventDefinition<never>>): string[] {
  return Object.values(definitions)
    .map(({ id, level, summary }) => `${id} | ${level} | ${summary}`)
    .sort();
}

test('the page of events lists exactly the events of the catalogue', () => {
  assert.deepEqual(rowsOf(changes), rowsFrom(STATE_EVENTS));
  assert.deepEqual(rowsOf(activity), rowsFrom(ACTIVITY_EVENTS));
});

test("an id means one event, and numbers are Hyper-V's", () => {
  const ids = Object.values(EVENTS).map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  assert.deepEqual(
    ids.filter((id) => typeof id === 'number').sort(),
    [29174, 29242, 29244, 32022, 32032, 32056, 32086, 32315, 33680],
  );
});

test('the start of a compare names VM, disks and blocks', () => {
  const data = {
    disks: [
      { path: '/a.raw', startBlock: 0, endBlock: 255, ranges: 1 },
      { path: '/b.raw', startBlock: 5, endBlock: 9, ranges: 3 },
    ],
  };
  assert.deepEqual(makeEvent(EVENTS.compareStarted, 'web', data), {
    id: 29242,
    level: 'Information',
    vmName: 'web',
    data,
    message: "Resynchronization of VM 'web' compares /a.raw: blocks 0 to 255; /b.raw: blocks 5 to 9 in 3 ranges.",
  });
});

test('the end of a compare names disks, blocks sent, time and result', () => {
  const event = makeEvent(EVENTS.compareFinished, 'web', {
    disks: [{ path: '/a.raw', blocksSent: 1 }],
    seconds: 65,
    result: 'success',
  });
  assert.equal(event.id, 29244);
  assert.equal(
    event.message,
    "Resynchronization of VM 'web' finished comparing after 65 seconds (success): /a.raw: 1 block sent.",
  );
});

test('a retry names its delay in words', () => {
  const event = makeEvent(EVENTS.willRetry, 'web', {
    reason: 'no route to host',
    code: 'PEER_NOT_REACHABLE',
    attempt: 4,
    delaySeconds: 480,
  });
  assert.match(event.message, /\(attempt 4\): no route to host\. It tries again in 8 minutes\.$/);
});

test("data is a copy: what happens later to the caller's object does not change the event", () => {
  const data = { reason: 'x' };
  const event = makeEvent(EVENTS.changeMapDistrusted, 'web', data);
  data.reason = 'y';
  assert.deepEqual(event.data, { reason: 'x' });
});

test('a change of settings names only what was given', () => {
  const event = makeEvent(EVENTS.settingsChanged, 'web', { changes: { frequencySec: 30, replica: undefined } });
  assert.equal(event.message, "Settings of VM 'web' changed: frequencySec = 30.");
});
