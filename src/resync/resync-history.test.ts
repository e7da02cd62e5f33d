import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACTIVITY_EVENTS, STATE_EVENTS } from '../model/events.ts';
import { resyncHistory } from './resync-history.ts';

const started = (time: number, rung = 'full-compare') => ({ time, id: STATE_EVENTS.resyncStarted.id, data: { rung, reason: 'why' } });
const of = (time: number, definition: { id: string | number }, data = {}) => ({ time, id: definition.id, data });

test('a run from start to end, with what it sent', () => {
  const events = [
    started(10), of(20, ACTIVITY_EVENTS.compareFinished, { disks: [{ blocksSent: 2 }, { blocksSent: 1 }] }), of(30, STATE_EVENTS.resyncFinished),
  ];
  assert.deepEqual(resyncHistory(events), [{ startedAt: 10, endedAt: 30, rung: 'full-compare', reason: 'why', sentBytes: 3 * 4096, result: 'finished' }]);
});

test('newest first; cancelled, lost, superseded and running ones are told apart', () => {
  const events = [
    started(1), of(2, STATE_EVENTS.resyncCancelled), started(3), of(4, STATE_EVENTS.resyncRequired), 
    started(5), started(6), of(7, STATE_EVENTS.resyncFailed), started(8),
  ];
  assert.deepEqual(resyncHistory(events).map(({ startedAt, result }) => [startedAt, result]),
    [[8, 'running'], [6, 'failed'], [5, 'superseded'], [3, 'failed'], [1, 'cancelled']]);
});

test('an end without a start, whose event is long gone, is nothing', () => {
  assert.deepEqual(resyncHistory([of(1, STATE_EVENTS.resyncFinished)]), []);
});
