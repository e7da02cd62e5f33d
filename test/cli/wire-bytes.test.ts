/** The two lines of the wire budget, over the whole pipe of a remote shell; `bench/wire.ts` has them with disks full of data. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../rig/program.ts';
import { syncThroughPipe } from '../rig/whole-pipe.ts';

const program = join(import.meta.dirname, '..', '..', 'bin', 'understudy');
const GIB = 2 ** 30;

test('equal disks of 8 GiB cost at most 4 KiB in both directions, and the program says so itself', async (t) => {
  const { sent, received, wireBytes, differingBytes } =
    await syncThroughPipe(await temporaryFolder(t), { size: 8 * GIB, dataEvery: 256, differing: 0, program });
  assert.equal(differingBytes, 0);
  assert.ok(sent + received <= 4096, `${sent} + ${received} bytes`);
  assert.equal(wireBytes, sent + received);
});

test('1 % of scattered pages costs at most 1.05 times those pages, compressed, and 64 KiB', async (t) => {
  const differing = 4096;
  const { sent, received, wireBytes, differingBytes, compressedBytes } =
    await syncThroughPipe(await temporaryFolder(t), { size: GIB, dataEvery: 16, differing, program });
  assert.equal(differingBytes, differing * 4096);
  assert.ok(compressedBytes > 4096 * 1024, `${compressedBytes} bytes compressed`);
  assert.ok(sent + received <= 1.05 * compressedBytes + 65536, `${sent} + ${received} bytes for ${compressedBytes}`);
  assert.ok(Math.abs(wireBytes - sent - received) <= 4096, `${wireBytes} told, ${sent + received} seen`);
});
