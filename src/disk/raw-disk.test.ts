import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { notRoot, run, temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { collect, pattern, readBack, virtualDiskSuite } from '../../test/conformance/virtual-disk.suite.ts';
import { libc, portableLibc, type Libc } from './libc.ts';
import { createRawDisk, openRawDisk } from './raw-disk.ts';

const MIB = 1 << 20;
const noNative = libc().native ? false : 'koffi does not load here';

function suiteOver(name: string, native: () => Libc, options: Parameters<typeof virtualDiskSuite>[2]): void {
  virtualDiskSuite(name, async () => {
    const folder = await temporaryFolder();
    const path = join(folder.path, 'disk.raw');
    return {
      disk: await createRawDisk(path, 4 * MIB, { libc: native() }),
      reopen: () => openRawDisk(path, { readOnly: false, lock: true, libc: native() }),
      cleanup: () => folder.remove(),
    };
  }, options);
}

suiteOver('raw file', libc, { skip: noNative });
suiteOver('raw file without libc', () => portableLibc, { zeroMakesHoles: false, runs: 10 });

describe('raw file', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let count = 0;
  const newPath = (): string => join(folder.path, `disk-${(count += 1)}.raw`);
  before(async () => { folder = await temporaryFolder(); });
  after(() => folder.remove());

  test('a new disk is one hole and takes no space', { skip: noNative }, async () => {
    const disk = await createRawDisk(newPath(), 1024 * MIB);
    assert.deepEqual(await collect(disk.extents(0, 1024 * MIB)), [{ offset: 0, length: 1024 * MIB, kind: 'zero' }]);
    await disk.write(pattern(4096, 1), 512 * MIB);
    assert.deepEqual(await collect(disk.extents(0, 1024 * MIB)), [
      { offset: 0, length: 512 * MIB, kind: 'zero' },
      { offset: 512 * MIB, length: 4096, kind: 'data' },
      { offset: 512 * MIB + 4096, length: 512 * MIB - 4096, kind: 'zero' },
    ]);
    assert.ok(statSync(disk.location).blocks * 512 <= 64 * 1024);
    await disk.zero(512 * MIB, 4096);
    await disk.flush();
    assert.equal(statSync(disk.location).blocks, 0);
    await disk.close();
  });

  test('readNow reads what the page cache holds and writeNow writes', async () => {
    const disk = await createRawDisk(newPath(), MIB);
    disk.writeNow(pattern(10_000, 1), 777);
    const into = Buffer.alloc(10_000);
    assert.equal(disk.readNow(into, 777), libc().native, 'freshly written bytes are in the cache');
    if (libc().native) assert.ok(into.equals(pattern(10_000, 1)));
    assert.ok((await readBack(disk, 777, 10_000)).equals(pattern(10_000, 1)));
    assert.throws(() => disk.readNow(into, MIB - 1), RangeError);
    await disk.close();
    assert.equal(disk.readNow(into, 0), false);
    assert.throws(() => disk.writeNow(into, 0), { code: 'EBADF' });
  });

  test('the seal changes with any write and with nothing else', async () => {
    const path = newPath();
    const disk = await createRawDisk(path, MIB);
    await disk.write(pattern(10, 1), 0);
    const first = await disk.seal();
    await readBack(disk, 0, 10);
    assert.deepEqual(await disk.seal(), first);
    await disk.close();
    const again = await openRawDisk(path, { readOnly: true, lock: true });
    assert.deepEqual(await again.seal(), first, 'opening and closing leave no trace');
    await again.close();

    // The clock of the file system ticks in milliseconds on older kernels: write until it has moved on.
    const writer = await openRawDisk(path, { readOnly: false, lock: true });
    do await writer.write(pattern(10, 1), 0); while (JSON.stringify(await writer.seal()) === JSON.stringify(first));
    await writer.close();
  });

  test('close waits for operations under way, and later ones are refused with EBADF', async () => {
    const disk = await createRawDisk(newPath(), 16 * MIB);
    const writes = Array.from({ length: 16 }, (_, index) => disk.write(pattern(MIB, index), index * MIB));
    await disk.close();
    await Promise.all(writes);
    await assert.rejects(disk.read(Buffer.alloc(1), 0), { code: 'EBADF' });
    await assert.rejects(disk.write(Buffer.alloc(1), 0), { code: 'EBADF' });
    await assert.rejects(disk.flush(), { code: 'EBADF' });
    await assert.rejects(collect(disk.extents(0, MIB)), { code: 'EBADF' });
    await disk.close();
    const again = await openRawDisk(disk.location, { readOnly: true, lock: true });
    assert.ok((await readBack(again, 15 * MIB, MIB)).equals(pattern(MIB, 15)));
    await again.close();
  });

  test('a hole that is being punched keeps the file open', async () => {
    const punch = Promise.withResolvers<boolean>();
    const disk = await createRawDisk(newPath(), MIB, { libc: { ...portableLibc, punchHole: () => punch.promise } });
    const order: string[] = [];
    const zeroed = disk.zero(0, MIB).then(() => order.push('zeroed'));
    const closed = disk.close().then(() => order.push('closed'));
    await stat(disk.location); // long enough for a close that does not wait
    assert.deepEqual(order, []);
    punch.resolve(true);
    await Promise.all([zeroed, closed]);
    assert.deepEqual(order, ['zeroed', 'closed']);
  });

  test('a read-only disk refuses writes with EPERM', async () => {
    const path = newPath();
    await (await createRawDisk(path, MIB)).close();
    const disk = await openRawDisk(path, { readOnly: true, lock: true });
    await assert.rejects(disk.write(Buffer.alloc(1), 0), { code: 'EPERM' });
    await assert.rejects(disk.zero(0, 1), { code: 'EPERM' });
    await assert.rejects(disk.discard(0, 1), { code: 'EPERM' });
    assert.throws(() => disk.writeNow(Buffer.alloc(1), 0), { code: 'EPERM' });
    await disk.close();
  });

  test('a file that shrinks underneath is an EIO, never old bytes', async () => {
    const disk = await createRawDisk(newPath(), MIB);
    await disk.write(pattern(MIB, 1), 0);
    truncateSync(disk.location, 4096);
    await assert.rejects(disk.read(Buffer.alloc(4096), 2048), { code: 'EIO' });
    assert.equal(disk.readNow(Buffer.alloc(4096), 2048), false);
    await disk.close();
  });

  test('what cannot be opened is refused with a code and a remedy', async () => {
    const [odd, folderPath, pipe] = [newPath(), newPath(), newPath()];
    writeFileSync(odd, Buffer.alloc(1000));
    mkdirSync(folderPath);
    await run('mkfifo', [pipe]);
    const options = { readOnly: false, lock: true };
    await assert.rejects(openRawDisk(newPath(), options), { name: 'UnderstudyError', kind: 'usage', code: 'DISK_NOT_FOUND' });
    await assert.rejects(openRawDisk(odd, options), { code: 'DISK_SIZE_NOT_SECTORS', message: /1000/, remedy: /--size=1024/ });
    await assert.rejects(openRawDisk(folderPath, options), { code: 'DISK_NOT_SUPPORTED' });
    await assert.rejects(openRawDisk(folderPath, { ...options, readOnly: true }), { code: 'DISK_NOT_SUPPORTED' });
    await assert.rejects(openRawDisk(pipe, options), { code: 'DISK_NOT_SUPPORTED' });
    await assert.rejects(createRawDisk(odd, MIB), { code: 'DISK_EXISTS' });
    await assert.rejects(createRawDisk(newPath(), 1000), { code: 'DISK_SIZE_NOT_SECTORS' });
  });

  test('a file system that is mounted read-only is DISK_READ_ONLY', { skip: notRoot() }, async (context) => {
    const mount = await mountTmpfs(folder.path, 'read-only');
    atEnd(context, mount.remove);
    await (await createRawDisk(join(mount.path, 'a'), MIB)).close();
    await run('mount', ['-o', 'remount,ro', mount.path]);
    await assert.rejects(openRawDisk(join(mount.path, 'a'), { readOnly: false, lock: true }), { code: 'DISK_READ_ONLY' });
    await (await openRawDisk(join(mount.path, 'a'), { readOnly: true, lock: true })).close();
  });

  test('a full volume is ENOSPC, and reading goes on', { skip: notRoot() }, async (context) => {
    const mount = await mountTmpfs(folder.path, 'full');
    atEnd(context, mount.remove);
    const disk = await createRawDisk(join(mount.path, 'a'), 8 * MIB);
    await disk.write(pattern(MIB, 1), 0);
    await assert.rejects(disk.write(pattern(4 * MIB, 2), 2 * MIB), { code: 'ENOSPC' });
    assert.ok((await readBack(disk, 0, MIB)).equals(pattern(MIB, 1)));
    await disk.zero(2 * MIB, 4 * MIB);
    await disk.write(pattern(MIB / 2, 3), 2 * MIB);
    await disk.close();
  });
});

async function mountTmpfs(folder: string, name: string): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = join(folder, name);
  mkdirSync(path);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'understudy-test', path]);
  return { path, remove: async () => void (await run('umount', [path])) };
}

test('a descriptor number that another file got is never written by a closed disk', async () => {
  const folder = await temporaryFolder();
  const disk = await createRawDisk(join(folder.path, 'disk'), MIB);
  await disk.close();
  const other = openSync(join(folder.path, 'other'), 'w+');
  await assert.rejects(disk.write(pattern(512, 1), 0), { code: 'EBADF' });
  assert.equal(statSync(join(folder.path, 'other')).size, 0);
  closeSync(other);
  await folder.remove();
});
