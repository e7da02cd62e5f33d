import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Situation } from './relationship.ts';
import { onEvent } from './relationship-events.ts';
import type { RelationshipEvent } from './relationship-events.ts';
import { STATES } from './replication-state.ts';
import type { ReplicationState } from './replication-state.ts';

const reason = 'the reason';

/*
 * One line per event, one column per state in the order of STATES; independent of the code. `.` is ignored, `=` stays
 * in the state with a record, a letter names the next state. Every VM has a baseline.
 *   D Disabled  R ready  I in progress  W waiting for initial  N replicating  P prepared  O failed over, waiting  F failed over
 *   S suspended  E error  Q required  Y resynchronizing  Z resync suspended
 */
const LETTERS = 'DRIWNPOFSEQYZ';
const rows: readonly [cells: string, side: 'primary' | 'replica', event: RelationshipEvent][] = [
  //DRIWNPOFSEQYZ
  ['W............', 'replica', { kind: 'enabled-by-primary', reason }],
  ['.I...........', 'primary', { kind: 'initial-started', reason }],
  ['..NN.........', 'primary', { kind: 'initial-finished', reason }],
  ['..EEE........', 'primary', { kind: 'failed', code: 'X', reason }],
  ['..E.Q===QQ=QQ', 'primary', { kind: 'resync-required', trigger: 2, reason }],
  ['..=.Q===QQ=QQ', 'primary', { kind: 'resync-required', trigger: 4, reason }],
  ['..........Y..', 'primary', { kind: 'resync-started', rung: 'full-compare', reason }],
  ['...........Z.', 'primary', { kind: 'resync-failed', code: 'X', reason, resumable: true }],
  ['...........Q.', 'primary', { kind: 'resync-failed', code: 'X', reason, resumable: false }],
  ['...........N.', 'primary', { kind: 'resync-finished', reason }],
  ['.............', 'primary', { kind: 'primary-changed', state: 'Resynchronizing', reason }],
  ['.YYYYY..YYY.Y', 'replica', { kind: 'primary-changed', state: 'Resynchronizing', reason }],
  ['.........NNNN', 'replica', { kind: 'primary-changed', state: 'Replicating', reason }],
  ['.............', 'replica', { kind: 'primary-changed', state: 'Suspended', reason }],
  ['.EEEE.EEE.EEE', 'primary', { kind: 'peer-failed-over', reason }],
  ['.............', 'replica', { kind: 'peer-failed-over', reason }],
  ['.........N...', 'primary', { kind: 'peer-cancelled-failover', reason }],
  ['......NN.....', 'replica', { kind: 'reversed', becomes: 'primary', equal: true, reason }],
  ['......QQ.....', 'replica', { kind: 'reversed', becomes: 'primary', equal: false, reason }],
  ['.NNN=NNNNNNNN', 'primary', { kind: 'reversed', becomes: 'replica', equal: true, reason }],
  ['.QQQQQQQQQ=QQ', 'primary', { kind: 'reversed', becomes: 'replica', equal: false, reason }],
];

for (const [cells, side, event] of rows) {
  test(`${event.kind} on the ${side} moves each state as in the manual: ${cells}`, () => {
    const seen = STATES.map((state): string => {
      const step = onEvent({ vmName: 'web', state, side, hasBaseline: true }, event);
      if (step === null) return '.';
      assert.ok(step.event !== null, 'each step records an event');
      assert.match(step.event.message, /the reason/);
      assert.deepEqual(
        [step.event.data['from'], step.event.data['to'], step.event.data['reason']],
        [state, step.next, reason],
      );
      return step.next === state ? '=' : (LETTERS[STATES.indexOf(step.next)] ?? '?');
    });
    assert.equal(seen.join(''), cells);
  });
}

const at = (state: ReplicationState, more: Partial<Situation> = {}): Situation => ({
  vmName: 'web',
  state,
  side: 'primary',
  hasBaseline: true,
  ...more,
});

test('a trigger stops shipping and logging, and plans the start', () => {
  const step = onEvent(at('Replicating'), { kind: 'resync-required', trigger: 3, reason: 'ENOSPC' });
  assert.deepEqual(step?.effects, ['stop-shipping', 'stop-logging', 'plan-resync']);
  assert.deepEqual(step?.event?.data['trigger'], 3);
  assert.match(step?.event?.message ?? '', /a write to the tracking log failed.*trigger 3.*ENOSPC/);
});

test('a trigger during a resync drops the diff disk', () => {
  const step = onEvent(at('Resynchronizing'), { kind: 'resync-required', trigger: 2, reason: '51 %' });
  assert.equal(step?.effects[0], 'drop-diff');
});

test('a trigger without a baseline starts initial replication over, except when the log limit would be reached again', () => {
  const step = onEvent(at('InitialReplicationInProgress'), { kind: 'resync-required', trigger: 4, reason });
  assert.deepEqual(step?.effects, ['restart-initial']);
  const limit = onEvent(at('InitialReplicationInProgress'), { kind: 'resync-required', trigger: 2, reason });
  assert.deepEqual([limit?.next, limit?.event?.id], ['Error', 32086]);
  assert.equal(
    onEvent(at('Suspended', { hasBaseline: false }), { kind: 'resync-required', trigger: 4, reason })?.next,
    'Suspended',
  );
});

test('the primary that lost its resync to a failover comes back as required', () => {
  const step = onEvent(at('Error', { resyncRequired: true }), { kind: 'peer-cancelled-failover', reason });
  assert.equal(step?.next, 'WaitingForStartResynchronize');
});

test('a failed or paused initial replication is never followed by replicating without a baseline', () => {
  const step = onEvent(at('Error', { side: 'replica', hasBaseline: false }), {
    kind: 'primary-changed',
    state: 'Replicating',
    reason,
  });
  assert.equal(step, null);
});
