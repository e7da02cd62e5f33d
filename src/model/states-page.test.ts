import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { UnderstudyError } from './errors.ts';
import { decide, OPERATIONS } from './relationship.ts';
import type { Operation } from './relationship.ts';
import { REPLICATION_STATES, STATES } from './replication-state.ts';
import type { ReplicationState, Side } from './replication-state.ts';
import { RESYNC_TRIGGERS } from './resync-trigger.ts';

const page = readFileSync(new URL('../../docs/operating/states.md', import.meta.url), 'utf8');
const tables = page
  .split(/\n\n/)
  .filter((block) => block.startsWith('| '))
  .map((block) =>
    block
      .trim()
      .split('\n')
      .map((line) =>
        line
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim()),
      ),
  );
const [numbers = [], primary = [], replica = [], triggers = []] = tables;

test('the page has the states with both numbers', () => {
  assert.deepEqual(
    numbers.slice(2).map((row) => row.slice(0, 3)),
    STATES.map((state) => [state, String(REPLICATION_STATES[state].powershell), String(REPLICATION_STATES[state].wmi)]),
  );
});

test('the page has the triggers', () => {
  assert.deepEqual(
    triggers.slice(2),
    Object.entries(RESYNC_TRIGGERS).map(([number, { side, because }]) => [number, side, because]),
  );
});

/** Notes such as (2) name conditions; here all of them hold as in "Suspended after a good start". */
function compareTable(table: string[][], side: Side): void {
  const [head = [], , ...rows] = table;
  const operations = head
    .slice(1)
    .map((label) => Object.keys(OPERATIONS).find((name) => OPERATIONS[name as Operation].label === label) as Operation);
  assert.deepEqual(
    operations.toSorted(),
    Object.keys(OPERATIONS)
      .filter((name) => ['both', side].includes(OPERATIONS[name as Operation].side))
      .toSorted(),
  );
  for (const [state = '', ...cells] of rows) {
    operations.forEach((operation, column) => {
      const cell = (cells[column] ?? '').replace(/ ?\(\d\)$/, '');
      const step = decide(
        {
          vmName: 'web',
          state: state as ReplicationState,
          side,
          hasBaseline: true,
          startPending: true,
          primaryPrepared: true,
          testFailoverRunning: operation === 'cancel-failover' && side === 'replica',
        },
        operation,
      );
      const said = step instanceof UnderstudyError ? '' : step.next === state ? '=' : step.next;
      assert.equal(said, cell, `${state} ${operation}`);
    });
  }
}

test('the page says of the primary what the code does', () => compareTable(primary, 'primary'));
test('the page says of the replica what the code does', () => compareTable(replica, 'replica'));
