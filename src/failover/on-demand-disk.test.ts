import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../disk/memory-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { DiskRecord } from '../model/records.ts';
import { OnDemandDisk } from './on-demand-disk.ts';

const SIZE = 1 << 20;
const record: DiskRecord = { diskId: 'd0', path: '/d.raw', format: 'raw', virtualSize: SIZE, logicalSectorSize: 512, geometry: null };

function rig() {
  const content = new MemoryDisk(SIZE);
  const seen = { open: 0, opened: 0, most: 0, flushed: 0 };
  const open = async (): Promise<VirtualDisk> => {
    seen.opened++;
    seen.most = Math.max(seen.most, ++seen.open);
    return Object.assign(new MemoryDisk(SIZE, { contentsOf: content }), {
      flush: async () => void seen.flushed++,
      close: async () => {
        await new Promise((resolve) => setImmediate(resolve));
        seen.open--;
      },
    });
  };
  return { seen, disk: new OnDemandDisk(open, record, SIZE) };
}

test('it is opened by the first use, flushed and closed by a release, and opened again by the next use', async () => {
  const { seen, disk } = rig();
  await disk.flush();
  assert.equal(seen.opened, 0);
  await disk.write(new Uint8Array(512).fill(7), 512);
  assert.equal(seen.open, 1);
  await disk.release();
  assert.deepEqual(seen, { open: 0, opened: 1, most: 1, flushed: 1 });
  const read = new Uint8Array(512);
  await disk.read(read, 512);
  assert.equal(read[0], 7);
  assert.equal(seen.opened, 2);
  await disk.close();
  await disk.close();
  assert.equal(seen.open, 0);
});

test('a use during a release waits for its end: the file is never open twice, as its lock would keep us out', async () => {
  const { seen, disk } = rig();
  for (let round = 0; round < 20; round++) {
    const work = [disk.write(new Uint8Array(512).fill(round), 0), disk.release(), disk.read(new Uint8Array(512), 0), disk.release()];
    await Promise.all(work.map((one) => one.catch(() => undefined)));
  }
  await disk.close();
  assert.equal(seen.most, 1);
  assert.equal(seen.open, 0);
});

test('what could not be opened is tried again by the next use', async () => {
  let attempts = 0;
  const disk = new OnDemandDisk(async () => {
    if (attempts++ === 0) throw new Error('in use');
    return new MemoryDisk(SIZE);
  }, record, SIZE);
  await assert.rejects(disk.read(new Uint8Array(1), 0), /in use/);
  await disk.read(new Uint8Array(1), 0);
  assert.equal(attempts, 2);
});
