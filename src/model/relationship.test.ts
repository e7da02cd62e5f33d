import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from './errors.ts';
import { decide, OPERATIONS, requireAllowed } from './relationship.ts';
import type { Operation, Situation } from './relationship.ts';
import { STATES } from './replication-state.ts';
import type { ReplicationState } from './replication-state.ts';

/*
 * The same rules once more, typed by hand from the manual and not from the code: for each state the operations that
 * are possible when everything else is as good as can be (baseline there, no merge, start time pending, primary
 * prepared, test failover running only for cancel), with the state they lead to. Whatever is not here must be refused.
 */
const ALLOWED = `
Disabled                     enable>ReadyForInitialReplication
ReadyForInitialReplication   start-initial>InitialReplicationInProgress stop-initial>ReadyForInitialReplication
                             set>= remove>Disabled
InitialReplicationInProgress stop-initial>ReadyForInitialReplication suspend>Suspended set>= remove>Disabled
WaitingForInitialReplication import>Replicating remove>Disabled
Replicating                  suspend>Suspended sync-now>= verify>= set>= prepare-failover>PreparedForFailover
                             test-failover>= planned-failover>FailedOverWaitingCompletion
                             failover>FailedOverWaitingCompletion cancel-failover>= remove>Disabled
Suspended                    resume>Replicating resynchronize>WaitingForStartResynchronize set>= test-failover>=
                             failover>FailedOverWaitingCompletion cancel-failover>= remove>Disabled
Error                        suspend>Suspended resume>Replicating resynchronize>WaitingForStartResynchronize
                             set>= test-failover>= failover>FailedOverWaitingCompletion cancel-failover>=
                             remove>Disabled
WaitingForStartResynchronize resume>= resynchronize>= cancel-resync>= set>= failover>FailedOverWaitingCompletion
                             cancel-failover>= remove>Disabled
Resynchronizing              suspend>ResynchronizeSuspended cancel-resync>WaitingForStartResynchronize set>=
                             failover>FailedOverWaitingCompletion cancel-failover>= remove>Disabled
ResynchronizeSuspended       resume>Resynchronizing resynchronize>WaitingForStartResynchronize
                             cancel-resync>WaitingForStartResynchronize set>=
                             failover>FailedOverWaitingCompletion cancel-failover>= remove>Disabled
PreparedForFailover          cancel-failover>Replicating remove>Disabled
FailedOverWaitingCompletion  cancel-failover>Replicating complete-failover>FailedOver reverse>= remove>Disabled
FailedOver                   reverse>= remove>Disabled
`;
const ON_PRIMARY =
  'enable start-initial stop-initial suspend resume resynchronize cancel-resync sync-now verify set prepare-failover'.split(
    ' ',
  );
const ON_REPLICA = 'import test-failover planned-failover failover complete-failover reverse'.split(' ');

const expected = new Map(
  ALLOWED.trim()
    .split(/\n(?! )/)
    .flatMap((line) => {
      const [state = '', ...cells] = line.split(/\s+/);
      return cells.map((cell): [string, string] => {
        const [operation = '', next = ''] = cell.split('>');
        return [`${state} ${operation}`, next === '=' ? state : next];
      });
    }),
);

const operations = Object.keys(OPERATIONS) as Operation[];

function best(state: ReplicationState, operation: Operation): Situation {
  return {
    vmName: 'web',
    state,
    side: ON_REPLICA.includes(operation) ? 'replica' : 'primary',
    hasBaseline: true,
    startPending: true,
    primaryPrepared: true,
    testFailoverRunning: operation === 'cancel-failover',
  };
}

test('both tables know the same states and operations', () => {
  assert.deepEqual([...new Set([...expected.keys()].map((key) => key.split(' ')[0]))].sort(), [...STATES].sort());
  assert.deepEqual([...new Set([...expected.keys()].map((key) => key.split(' ')[1]))].sort(), [...operations].sort());
});

for (const state of STATES) {
  test(`in ${state} exactly the operations of the manual are possible`, () => {
    for (const operation of operations) {
      const step = decide(best(state, operation), operation);
      const next = expected.get(`${state} ${operation}`);
      if (next === undefined) {
        assert.ok(step instanceof UnderstudyError, `${operation} must be refused`);
        assert.equal(step.code, 'INVALID_STATE');
        assert.equal(step.kind, 'state');
        assert.ok(
          step.message.startsWith(
            `VM 'web' is in state ${state}: operation '${OPERATIONS[operation].label}' is not possible`,
          ),
        );
        assert.match(step.remedy, /understudy .*web/, `${operation} in ${state} names a command`);
      } else {
        assert.ok(!(step instanceof UnderstudyError), `${operation} must be possible: ${String(step)}`);
        assert.equal(step.next, next, operation);
      }
    }
  });
}

test('every change of state has an event with both states and the reason', () => {
  for (const [key, next] of expected) {
    const [state, operation] = key.split(' ') as [ReplicationState, Operation];
    const step = requireAllowed(best(state, operation), operation, 'because I say so');
    if (state === next) continue;
    assert.ok(step.event !== null, key);
    assert.equal(step.event.vmName, 'web');
    assert.deepEqual({ ...step.event.data }, { from: state, to: next, reason: 'because I say so' }, key);
    assert.match(step.event.message, /because I say so/, key);
  }
});

test('an operation on the wrong side is refused and names the right host', () => {
  for (const operation of operations) {
    for (const side of ['primary', 'replica'] as const) {
      const wrong = (side === 'primary' ? ON_REPLICA : ON_PRIMARY).includes(operation);
      const step = decide({ ...best('Replicating', operation), side, otherHost: 'b.example:7443' }, operation);
      assert.equal(step instanceof UnderstudyError && step.code === 'WRONG_SIDE', wrong, `${operation} on the ${side}`);
      if (wrong) assert.match(`${String(step)}`, /b\.example:7443/);
    }
  }
});

test('a VM without replication refuses by state on any side, naming the VM', () => {
  for (const side of ['primary', 'replica'] as const) {
    const step = decide({ vmName: 'web', state: 'Disabled', side }, 'suspend');
    assert.ok(step instanceof UnderstudyError);
    assert.equal(step.code, 'INVALID_STATE');
    assert.match(step.message, /VM 'web' is in state Disabled/);
    assert.match(step.remedy, /understudy enable web/);
  }
});

const primary = (state: ReplicationState, more: Partial<Situation> = {}): Situation => ({
  vmName: 'RESYNC VM',
  state,
  side: 'primary',
  ...more,
});
const replica = (state: ReplicationState, more: Partial<Situation> = {}): Situation => ({
  ...primary(state, more),
  side: 'replica',
});

const refusedRows: readonly [name: string, situation: Situation, operation: Operation, why: RegExp, remedy: RegExp][] =
  [
    [
      'a healthy VM is not resynchronized before it is suspended',
      primary('Replicating', { hasBaseline: true }),
      'resynchronize',
      /Replicating/,
      /understudy suspend 'RESYNC VM'.*understudy resume 'RESYNC VM' --resynchronize/,
    ],
    [
      'without a baseline there is nothing to resynchronize',
      primary('Suspended'),
      'resynchronize',
      /initial replication has not finished/,
      /understudy resume/,
    ],
    [
      'without a baseline there is nothing to fail over to',
      replica('Error'),
      'failover',
      /no baseline/,
      /understudy resume/,
    ],
    [
      'one test failover at a time',
      replica('Replicating', { hasBaseline: true, testFailoverRunning: true }),
      'test-failover',
      /running already/,
      /failover cancel/,
    ],
    [
      'cancel without a failover is refused',
      replica('Replicating', { hasBaseline: true }),
      'cancel-failover',
      /no failover/,
      /failover/,
    ],
    [
      'a planned failover needs its preparation',
      replica('Replicating', { hasBaseline: true }),
      'planned-failover',
      /not prepared/,
      /--prepare/,
    ],
    [
      'a merge cannot be cancelled',
      primary('Resynchronizing', { hasBaseline: true, merging: true }),
      'cancel-resync',
      /merged/,
      /Wait until the merge/,
    ],
    [
      'a merge cannot be paused',
      primary('Resynchronizing', { hasBaseline: true, merging: true }),
      'suspend',
      /merged/,
      /Wait/,
    ],
    [
      'there is no schedule to cancel',
      primary('WaitingForStartResynchronize', { hasBaseline: true }),
      'cancel-resync',
      /no resynchronization is running or scheduled/,
      /understudy resume/,
    ],
    [
      'a test failover waits for the resync',
      replica('Resynchronizing', { hasBaseline: true }),
      'test-failover',
      /Resynchronizing/,
      /unplanned failover is possible/,
    ],
    [
      'a finished initial replication cannot be stopped',
      primary('Suspended', { hasBaseline: true }),
      'stop-initial',
      /finished/,
      /resume/,
    ],
  ];
for (const [name, situation, operation, why, remedy] of refusedRows) {
  test(name, () => {
    const step = decide(situation, operation);
    assert.ok(step instanceof UnderstudyError);
    assert.match(step.message, why);
    assert.match(step.remedy, remedy);
  });
}

test('resume goes on with initial replication when the baseline is missing', () => {
  assert.equal(requireAllowed(primary('Suspended'), 'resume').next, 'InitialReplicationInProgress');
  assert.equal(requireAllowed(primary('Error', { hasBaseline: true }), 'resume').next, 'Replicating');
});

test('a start time is set, not started', () => {
  const startAt = '2031-05-04T20:00:00.000Z';
  const initial = requireAllowed(primary('ReadyForInitialReplication', { startAt }), 'start-initial');
  assert.deepEqual(
    [initial.next, initial.effects, initial.event?.id],
    ['ReadyForInitialReplication', ['set-start-time'], 'InitialReplicationScheduled'],
  );
  for (const operation of ['resume', 'resynchronize'] as const) {
    const step = requireAllowed(primary('WaitingForStartResynchronize', { hasBaseline: true, startAt }), operation);
    assert.deepEqual(
      [step.next, step.effects, step.event?.data['at']],
      ['WaitingForStartResynchronize', ['set-start-time'], startAt],
    );
  }
});

test('resynchronize drops the progress of a paused one, plain resume keeps it', () => {
  const paused = primary('ResynchronizeSuspended', { hasBaseline: true });
  assert.deepEqual(requireAllowed(paused, 'resynchronize').effects, ['drop-diff', 'queue-resync']);
  assert.deepEqual(requireAllowed(paused, 'resume').effects, ['queue-resync']);
});

test('a cancelled failover that had cancelled a resync leads back to required', () => {
  const step = requireAllowed(
    replica('FailedOverWaitingCompletion', { hasBaseline: true, resyncRequired: true }),
    'cancel-failover',
  );
  assert.equal(step.next, 'WaitingForStartResynchronize');
});
