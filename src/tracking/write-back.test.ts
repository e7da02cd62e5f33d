import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { writeBackInPieces } from './write-back.ts';

const MIB = 1 << 20;

/** A disk of which each piece takes so long, and a clock that jumps to where a sleep ends. */
function make(size: number, tookMs: number, answer: (piece: number) => boolean = () => true) {
  const pieces: { offset: number; length: number }[] = [];
  const slept: number[] = [];
  let time = 0;
  const disk = Object.assign(new MemoryDisk(size), {
    startWriteBack: (offset: number, length: number) => {
      pieces.push({ offset, length });
      time += tookMs;
      return Promise.resolve(answer(pieces.length));
    },
  });
  const clock = { monotonic: () => time, sleep: (ms: number) => Promise.resolve(void slept.push(ms)) };
  return { disk, clock, pieces, slept };
}

test('every byte is named once, in order, in 64 pieces or such of 16 MiB', async () => {
  for (const [size, count] of [[64 * MIB, 4], [100 * MIB + 512, 7], [2 ** 40, 64], [2 ** 40 + 4096, 64]] as const) {
    const { disk, clock, pieces } = make(size, 0);
    await writeBackInPieces(disk, clock);
    assert.equal(pieces.length, count);
    let end = 0;
    for (const { offset, length } of pieces) {
      assert.equal(offset, end);
      assert.ok(length > 0);
      end += length;
    }
    assert.equal(end, size);
  }
});

test('behind each piece it pauses four times as long as that took, at most 50 ms, and not at all where nothing was to be written', async () => {
  for (const [tookMs, pauses] of [[0.1, []], [2, [8, 8, 8, 8]], [400, [50, 50, 50, 50]]] as const) {
    const { disk, clock, slept } = make(64 * MIB, tookMs);
    await writeBackInPieces(disk, clock);
    assert.deepEqual(slept.map(Math.round), pauses);
  }
});

test('a disk that cannot, or can no longer, is asked no more; one that fails is left to the flush', async () => {
  const { disk, clock, pieces } = make(64 * MIB, 0, (piece) => piece < 3);
  await writeBackInPieces(disk, clock);
  assert.equal(pieces.length, 3);
  await writeBackInPieces(new MemoryDisk(MIB), clock);
  const failing = Object.assign(new MemoryDisk(64 * MIB), { startWriteBack: () => Promise.reject(new Error('EIO')) });
  await writeBackInPieces(failing, clock);
});
