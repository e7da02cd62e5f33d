import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FinishMarks } from './finish-marks.ts';

test('records that finish in order leave no marks, only the limit below which all have finished', () => {
  const marks = new FinishMarks();
  for (const number of [0, 1, 2]) marks.mark(number);
  assert.deepEqual(marks.drain(), { finishedBelow: 3, marks: [] });
  assert.equal(marks.dirty, false);
});

test('a record that overtakes others is marked once, and counts below the limit later', () => {
  const marks = new FinishMarks();
  marks.mark(2);
  marks.mark(2);
  assert.equal(marks.count, 1);
  assert.deepEqual(marks.drain(), { finishedBelow: 0, marks: [2] });
  assert.equal(marks.dirty, false);
  marks.mark(0);
  marks.mark(1);
  assert.equal(marks.dirty, true);
  assert.deepEqual(marks.drain(), { finishedBelow: 3, marks: [] });
  assert.equal(marks.count, 3);
});

test('marks taken up after a crash join the limit', () => {
  const marks = new FinishMarks(4, [4, 5, 7]);
  assert.deepEqual(marks.drain(), { finishedBelow: 6, marks: [] });
  assert.equal(marks.count, 7);
  marks.mark(6);
  assert.deepEqual(marks.drain(), { finishedBelow: 8, marks: [] });
});
