import assert from 'node:assert/strict';
import { test } from 'node:test';
import { virtualDiskSuite } from '../../test/conformance/virtual-disk.suite.ts';
import { MemoryDisk } from './memory-disk.ts';

virtualDiskSuite('memory', async () => {
  const disk = new MemoryDisk(4 << 20);
  return { disk, reopen: async () => new MemoryDisk(4 << 20, { contentsOf: disk }), cleanup: async () => {} };
});

test('a read-only memory disk refuses writes with EPERM', async () => {
  const disk = new MemoryDisk(1 << 20, { readOnly: true });
  await assert.rejects(disk.write(Buffer.alloc(1), 0), { code: 'EPERM' });
});
