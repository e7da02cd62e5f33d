import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hostFiles } from '../../src/disk/host-files.ts';
import { openVhd } from '../../src/disk/vhd/open.ts';
import { openVhdx } from '../../src/disk/vhdx/open.ts';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { digestOf, missing, withFolder } from './oracle-programs.ts';
import { Seeded } from './seeded.ts';

const random = new Seeded(1);
const noBunzip = missing('bunzip2');

/** Unpacks with holes, so that a 100 MiB image of zeroes costs nothing. */
function unpack(name: string, folder: string): string {
  const bytes = execFileSync('bunzip2', ['-c', join(import.meta.dirname, '../golden', name)], { maxBuffer: 1 << 28 });
  const path = join(folder, name.split('/')[1]!.replace('.bz2', ''));
  const file = openSync(path, 'w');
  ftruncateSync(file, bytes.length);
  const zero = Buffer.alloc(1 << 16);
  for (let at = 0; at < bytes.length; at += zero.length) {
    const piece = bytes.subarray(at, at + zero.length);
    if (!piece.equals(zero.subarray(0, piece.length))) writeSync(file, piece, 0, piece.length, at);
  }
  closeSync(file);
  return path;
}

const open = (path: string): Promise<VirtualDisk> =>
  path.endsWith('.vhdx')
    ? openVhdx(path, hostFiles, { readOnly: true, random })
    : openVhd(path, hostFiles, { readOnly: true });

async function readsZero(disk: VirtualDisk): Promise<boolean> {
  for await (const extent of disk.extents(0, disk.virtualSize)) if (extent.kind !== 'zero') return false;
  return true;
}

const vectors = [
  ['vhd/ext2.vhd.bz2', 4212736, '870be7ae16c1fa8faab05c6eb9205dc9a7ae35c5f552c5cf8a267c0bc6a5cb99'],
  ['vhdx/iotest-dynamic-1G.vhdx.bz2', 1073741824, 'd3d112d8dab7fd360609f7d5a7b769904b7a2a7d7b6b8c535f65a23293c05478'],
  ['vhd/virtualpc-dynamic.vhd.bz2', 136363130880, 'zero'],
  ['vhd/hyperv2012r2-dynamic.vhd.bz2', 136365211648, 'zero'],
] as const;
for (const [name, size, digest] of vectors) {
  test(`${name} has the stated guest size and content`, { skip: noBunzip }, () =>
    withFolder(async (folder) => {
      const disk = await open(unpack(name, folder));
      assert.equal(disk.virtualSize, size);
      if (digest === 'zero') assert.ok(await readsZero(disk));
      else assert.equal(await digestOf(disk), digest);
      await disk.close();
    }),
  );
}

/** The first 64 MiB of the dirty-log image after replay; e61906da… would be the answer without. */
const REPLAYED = '59a5188c491e735c949232d3f473bc0efe44457cf4e9790b9a08870485dc310d';

async function first64MiB(disk: VirtualDisk): Promise<string> {
  const bytes = Buffer.alloc(64 << 20);
  await disk.read(bytes, 0);
  return createHash('sha256').update(bytes).digest('hex');
}

test('the dirty log is replayed in memory when opened read-only, and the file stays as it is', { skip: noBunzip }, () =>
  withFolder(async (folder) => {
    const path = unpack('vhdx/iotest-dirtylog-10G-4M.vhdx.bz2', folder);
    const before = (await hostFiles.stat(path))!;
    const disk = await open(path);
    assert.equal(disk.virtualSize, 10737418240);
    assert.equal(await first64MiB(disk), REPLAYED);
    for await (const extent of disk.extents(64 << 20, disk.virtualSize - (64 << 20))) assert.equal(extent.kind, 'zero');
    await disk.close();
    assert.equal((await hostFiles.stat(path))!.mtimeNs, before.mtimeNs);
  }),
);

test('the dirty log is replayed into the file when opened for writing, and is clean afterwards', { skip: noBunzip }, () =>
  withFolder(async (folder) => {
    const path = unpack('vhdx/iotest-dirtylog-10G-4M.vhdx.bz2', folder);
    const writer = await openVhdx(path, hostFiles, { readOnly: false, random });
    await writer.close();
    const disk = await open(path);
    assert.equal(await first64MiB(disk), REPLAYED);
    await disk.close();
    if (missing('qemu-img') === false) execFileSync('qemu-img', ['check', '-f', 'vhdx', path], { stdio: 'ignore' });
  }),
);

for (const name of ['image', 'image-differential']) {
  test(`vhd/${name}.vhd.bz2 is refused for its checksum`, { skip: noBunzip }, () =>
    withFolder(async (folder) => {
      const path = unpack(`vhd/${name}.vhd.bz2`, folder);
      await assert.rejects(open(path), { code: 'DISK_MALFORMED', message: /checksum/ });
    }),
  );
}
