import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { hostCompute } from './host-compute.ts';

const text = (length: number, seed: number): Buffer => Buffer.alloc(length, `line ${seed} of a log that repeats itself; `);

test('what is compressed on the threads is what zstd reads, many at once and each its own', async () => {
  const { compress, decompress } = hostCompute();
  const pieces = Array.from({ length: 40 }, (_, index) => text(index === 0 ? 1 << 20 : 1 + index * 7919, index));
  const shrunk = await Promise.all(pieces.map((piece) => compress(piece)));
  for (const [index, piece] of pieces.entries()) {
    if (piece.length < 100) continue;
    assert.deepEqual(zstdDecompressSync(shrunk[index]!), piece, `piece ${index}`);
    assert.ok(shrunk[index]!.length < piece.length / 2);
  }
  const whole = await Promise.all(pieces.map((piece) => decompress(zstdCompressSync(piece), piece.length)));
  assert.deepEqual(whole.map((piece) => Buffer.from(piece)), pieces);
});

test('what does not shrink is null, also a whole piece', async () => {
  const { compress } = hostCompute();
  for (const length of [1, 4096, 1 << 20, (1 << 20) + 65536, 3 << 20]) assert.equal(await compress(randomBytes(length)), null, `${length} bytes`);
});

test('longer pieces than a slot go another way, with the same result', async () => {
  const { compress, decompress } = hostCompute();
  const long = text(5 << 20, 1);
  const shrunk = (await compress(long))!;
  assert.ok(long.equals(await decompress(shrunk, long.length)));
});

test('malformed data, and data that would grow beyond the bound, are refused; the next job is not touched by it', async () => {
  const { decompress } = hostCompute();
  const bomb = zstdCompressSync(Buffer.alloc(64 << 20));
  for (const most of [0, 1000, 1 << 20]) await assert.rejects(decompress(bomb, most), /larger than|more than/);
  await assert.rejects(decompress(randomBytes(5000), 1 << 20));
  await assert.rejects(decompress(zstdCompressSync(text(5000, 1)).subarray(0, 30), 5000));
  assert.deepEqual(Buffer.from(await decompress(zstdCompressSync(text(5000, 2)), 5000)), text(5000, 2));
});
