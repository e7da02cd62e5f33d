import assert from 'node:assert/strict';
import { isZero } from '../../src/model/zero-bytes.ts';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import type { Seeded } from './seeded.ts';

/** A seeded mix of writes, zeroes and flushes over a disk and over plain bytes that say what the disk has to hold. */
export async function exercise(
  disk: Pick<VirtualDisk, 'virtualSize' | 'write' | 'zero' | 'flush'>,
  model: Buffer,
  random: Seeded,
  count: number,
  options: { lengthMax?: number; zeroWholeBlocks?: boolean } = {},
): Promise<void> {
  const { lengthMax = 300_000, zeroWholeBlocks = true } = options;
  for (let step = 0; step < count; step++) {
    const aligned = random.next() < 0.6;
    const length = Math.min(
      random.pick([random.integer(1, 3000), 512, 4096, random.integer(1, lengthMax), 65536]),
      disk.virtualSize,
    );
    const unit = aligned ? 512 : 1;
    const size = Math.max(unit, Math.floor(length / unit) * unit);
    const offset = Math.floor(random.integer(0, disk.virtualSize - size) / unit) * unit;
    const dice = random.next();
    if (dice < 0.7) {
      const bytes = Buffer.alloc(size, random.integer(0, 255));
      bytes.writeUInt8(random.integer(0, 255), 0);
      await disk.write(bytes, offset);
      bytes.copy(model, offset);
    } else if (dice < 0.95) {
      const whole = zeroWholeBlocks && random.next() < 0.3;
      const from = whole ? 0 : offset;
      const stop = whole ? Math.min(disk.virtualSize, random.integer(1, 3) << 20) : offset + size;
      await disk.zero(from, stop - from);
      model.fill(0, from, stop);
    } else await disk.flush();
  }
}

/** Reads the whole disk in pieces of odd sizes and compares. */
export async function assertHolds(disk: VirtualDisk, model: Buffer, what: string): Promise<void> {
  assert.equal(disk.virtualSize, model.length, `${what}: size`);
  const step = 777_777;
  for (let at = 0; at < model.length; at += step) {
    const into = Buffer.alloc(Math.min(step, model.length - at), 0xee);
    await disk.read(into, at);
    if (into.equals(model.subarray(at, at + into.length))) continue;
    const first = into.findIndex((value, index) => value !== model[at + index]);
    assert.fail(`${what}: byte ${at + first} is ${into[first]}, expected ${model[at + first]}`);
  }
  await assertExtents(disk, model, what);
}

async function assertExtents(disk: VirtualDisk, model: Buffer, what: string): Promise<void> {
  let at = 0;
  for await (const { offset, length, kind } of disk.extents(0, disk.virtualSize)) {
    assert.equal(offset, at, `${what}: extents leave no gap`);
    at += length;
    if (kind === 'zero') assert.ok(isZero(model.subarray(offset, at)), `${what}: zero extent at ${offset}`);
  }
  assert.equal(at, disk.virtualSize, `${what}: extents reach the end`);
}

export async function wholeDisk(disk: VirtualDisk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.virtualSize);
  await disk.read(bytes, 0);
  return bytes;
}
