import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RelationshipRecord, VmRecord } from '../model/records.ts';
import type { AnsweredVm } from './messages.ts';
import { takeAnswer } from './report.ts';
import type { ReplicationPorts } from './replication-ports.ts';

const VM_ID = '11111111-2222-4333-8444-555555555555';

const relationship = {
  vmId: VM_ID, state: 'Replicating', initial: null, baselineId: 'base-1', lastAppliedEpoch: 5, lastAppliedTime: 500, remoteState: 'Replicating',
} as unknown as RelationshipRecord;

const answer: AnsweredVm = {
  vmId: VM_ID, known: true, baselineId: 'base-1', state: 'Replicating', receivedEpoch: 7, appliedEpoch: 6, appliedTime: 600, inboxBytes: 10,
  wantedAgain: null, lost: null, failure: null,
};

function take(changedAnswer: Partial<AnsweredVm>, changed: Partial<RelationshipRecord> = {}, epoch = 8) {
  const updates: Partial<RelationshipRecord>[] = [];
  const current = { ...relationship, ...changed };
  const relationships = {
    get: () => current, vm: () => ({ tracking: { epoch } }) as VmRecord,
    update: (_vmId: string, change: Partial<RelationshipRecord>) => updates.push(change),
  };
  const news = takeAnswer({ relationships } as unknown as ReplicationPorts, VM_ID, current, { ...answer, ...changedAnswer });
  return { news, updates };
}

/** Who is older than the other remembers. */
const table: [string, Partial<AnsweredVm>, Partial<RelationshipRecord>, { trigger: number; reason: RegExp } | null][] = [
  ['a replica that is behind', {}, {}, null],
  ['a replica that has everything', { receivedEpoch: 8, appliedEpoch: 8 }, {}, null],
  ['a replica that has not moved', { appliedEpoch: 5, appliedTime: 500 }, {}, null],
  ['a replica host that does not know the VM', { known: false, baselineId: null, appliedEpoch: 0 }, {}, { trigger: 7, reason: /no longer knows/ }],
  ['another baseline', { baselineId: 'base-0' }, {}, { trigger: 7, reason: /of baseline base-0, the primary of base-1/ }],
  ['no baseline', { baselineId: null }, {}, { trigger: 7, reason: /of baseline none/ }],
  ['a replica that has more than there is here', { receivedEpoch: 9 }, {}, { trigger: 5, reason: /has epoch 9, the primary is at 8/ }],
  ['a replica that has applied less than before', { appliedEpoch: 4 }, {}, { trigger: 7, reason: /is at epoch 4, it had applied 5/ }],
  ['a replica that has lost a log', { lost: { trigger: 6, reason: 'epoch 6 rots' } }, {}, { trigger: 6, reason: /rots/ }],
  ['a replica that was changed behind our back', { lost: { trigger: 7, reason: 'changed' } }, {}, { trigger: 7, reason: /changed/ }],
  ['any answer in the initial copy', { known: false }, { initial: {} as RelationshipRecord['initial'] }, null],
  ['any answer while a resync is required anyway', { known: false }, { state: 'WaitingForStartResynchronize' }, null],
  ['any answer while suspended', { baselineId: 'base-0' }, { state: 'Suspended' }, null],
];

for (const [what, changedAnswer, changed, expected] of table) {
  test(`${what} is ${expected === null ? 'no loss' : `trigger ${expected.trigger}`}`, () => {
    const { news, updates } = take(changedAnswer, changed);
    if (expected === null) return assert.equal(news.loss, null);
    assert.equal(news.loss?.trigger, expected.trigger);
    assert.match(news.loss.reason, expected.reason);
    assert.deepEqual(updates, [], 'what a lost replica says was put on record');
  });
}

test('progress of the replica goes on record, and an answer that says nothing new does not', () => {
  assert.deepEqual(take({}).updates, [{ lastAppliedEpoch: 6, lastAppliedTime: 600, remoteState: 'Replicating' }]);
  assert.deepEqual(take({ appliedEpoch: 5, appliedTime: 500 }).updates, []);
  assert.equal(take({ appliedEpoch: 5, appliedTime: 500, state: 'Error' }).updates.length, 1);
});

test('a log that is wanted again is handed on', () => {
  assert.equal(take({ wantedAgain: 6 }).news.wantedAgain, 6);
});
