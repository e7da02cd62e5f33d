import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { hostCompute } from './host-compute.ts';
import { libzstd } from './libzstd.ts';

const text = (length: number, seed: number): Buffer => Buffer.alloc(length, `line ${seed} of a log that repeats itself; `);

test('the machine of the tests has the library, so both ways are tested here', () => {
  assert.notEqual(libzstd(), null);
});

for (const [way, make] of [['the library', () => hostCompute()], ['threads', () => hostCompute({ native: null })]] as const) {
  test(`${way}: what is compressed is what zstd reads, many at once and each its own`, async () => {
    const { compress, decompress } = make();
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

  test(`${way}: a result lies where the caller has room for it, also in the middle of other memory, and nothing beside it is touched`, async () => {
    const { compress, decompress } = make();
    const memory = Buffer.alloc(300_000, 0xee);
    const piece = text(100_000, 3);
    const shrunk = (await compress(piece.subarray(10), memory.subarray(1000, 101_000)))!;
    assert.deepEqual([shrunk.buffer === memory.buffer, shrunk.byteOffset - memory.byteOffset], [true, 1000]);
    const whole = await decompress(shrunk, 99_990, memory.subarray(150_001, 249_991));
    assert.deepEqual([whole.buffer === memory.buffer, whole.byteOffset - memory.byteOffset], [true, 150_001]);
    assert.ok(piece.subarray(10).equals(whole));
    const untouched = [memory.subarray(0, 1000), memory.subarray(101_000, 150_001), memory.subarray(249_991)];
    assert.ok(untouched.every((part) => part.every((byte) => byte === 0xee)));
    assert.ok(piece.equals(await decompress(zstdCompressSync(piece), 100_000, memory.subarray(0, 10))), 'too little room');
  });

  test(`${way}: what does not shrink is null, also a whole piece`, async () => {
    const { compress } = make();
    for (const length of [1, 4096, 1 << 20, (1 << 20) + 65536, 3 << 20]) assert.equal(await compress(randomBytes(length)), null, `${length} bytes`);
  });

  test(`${way}: longer pieces than a slot go another way, with the same result`, async () => {
    const { compress, decompress } = make();
    const long = text(5 << 20, 1);
    const shrunk = (await compress(long))!;
    assert.ok(long.equals(await decompress(shrunk, long.length)));
  });

  test(`${way}: malformed data, and data that would grow beyond the bound, are refused; the next job is not touched by it`, async () => {
    const { decompress } = make();
    const bomb = zstdCompressSync(Buffer.alloc(64 << 20));
    for (const most of [0, 1000, 1 << 20]) await assert.rejects(decompress(bomb, most), /larger than|more than/);
    await assert.rejects(decompress(randomBytes(5000), 1 << 20));
    await assert.rejects(decompress(zstdCompressSync(text(5000, 1)).subarray(0, 30), 5000));
    assert.deepEqual(Buffer.from(await decompress(zstdCompressSync(text(5000, 2)), 5000)), text(5000, 2));
  });
}
