import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { writeBody } from './body.ts';

test('while a long body is written others have their turn, however much the receiver takes at once', async () => {
  const to = new PassThrough({ highWaterMark: 1 << 24 });
  let turns = 0;
  const perTurn: number[] = [];
  to.on('data', (part: Buffer) => (perTurn[turns] = (perTurn[turns] ?? 0) + part.length));
  let written = false;
  const others = () => {
    turns++;
    if (!written) setImmediate(others);
  };
  setImmediate(others);
  await writeBody(to, [Buffer.alloc(100), Buffer.alloc(1 << 20)]);
  written = true;
  assert.equal(perTurn.reduce((sum, bytes) => sum + bytes, 0), 100 + (1 << 20));
  assert.ok(Math.max(...perTurn.filter((bytes) => bytes !== undefined)) <= 256 << 10, perTurn.join(' '));
});
