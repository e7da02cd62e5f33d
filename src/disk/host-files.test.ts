import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { skipBytes } from './descriptor.ts';
import { hostClock, hostRandom } from './host-clock.ts';
import { hostFiles } from './host-files.ts';

describe('files of this host', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  before(async () => { folder = await temporaryFolder(); });
  after(() => folder.remove());
  const at = (name: string): string => join(folder.path, name);

  test('create wants no file, read and write want one', async () => {
    await assert.rejects(hostFiles.open(at('new'), 'write'), { code: 'ENOENT' });
    const file = await hostFiles.open(at('new'), 'create');
    await file.write([Buffer.from('hello')], 3);
    await file.datasync();
    assert.equal(await file.size(), 8);
    await file.close();
    await assert.rejects(hostFiles.open(at('new'), 'create'), { code: 'EEXIST' });
    const again = await hostFiles.open(at('new'), 'read');
    const into = Buffer.alloc(20, '?');
    assert.equal(await again.read(into, 0), 8, 'shorter only at the end of the file');
    assert.equal(into.toString(), '\0\0\0hello????????????');
    assert.equal(await again.read(into, 8), 0);
    await assert.rejects(again.write([Buffer.from('x')], 0), { code: 'EBADF' });
    await again.close();
  });

  test('thousands of buffers are written one after another', async () => {
    const file = await hostFiles.open(at('many'), 'create');
    const buffers = Array.from({ length: 3001 }, (_, index) => Buffer.alloc(index % 7, String(index % 10)));
    await file.write(buffers, 100);
    await file.write([], 0);
    await file.write([Buffer.alloc(0), Buffer.alloc(0)], 0);
    await file.close();
    assert.ok(readFileSync(at('many')).equals(Buffer.concat([Buffer.alloc(100), ...buffers])));
  });

  test('after a short write the rest goes on where it stopped', () => {
    const buffers = ['abc', 'de', 'fghi'].map((text) => Buffer.from(text));
    for (let count = 0; count <= 9; count += 1) {
      assert.equal(Buffer.concat(skipBytes(buffers, count)).toString(), 'abcdefghi'.slice(count));
    }
  });

  test('punch gives space back and keeps the size', async () => {
    const file = await hostFiles.open(at('punched'), 'create');
    await file.write([Buffer.alloc(65_536, 'x')], 0);
    const punched = await file.punch(4096, 8192).then(() => true, (error: NodeJS.ErrnoException) => error.code);
    await file.close();
    const expected = Buffer.alloc(65_536, 'x');
    if (punched === true) expected.fill(0, 4096, 12_288);
    else assert.equal(punched, 'EOPNOTSUPP');
    assert.ok(readFileSync(at('punched')).equals(expected));
  });

  test('folders are made, listed in order, synced and looked at', async () => {
    await hostFiles.makeFolder(at('a/b/c'));
    await hostFiles.makeFolder(at('a/b/c'));
    for (const name of ['z', 'm', 'a']) writeFileSync(at(`a/b/${name}`), name);
    assert.deepEqual(await hostFiles.list(at('a/b')), ['a', 'c', 'm', 'z']);
    assert.deepEqual(await hostFiles.list(at('absent')), []);
    await assert.rejects(hostFiles.list(at('a/b/a')), { code: 'ENOTDIR' });
    await hostFiles.rename(at('a/b/a'), at('a/b/z'));
    await hostFiles.syncFolder(at('a/b'));
    assert.equal(readFileSync(at('a/b/z'), 'utf8'), 'a');
    await hostFiles.remove(at('a/b/z'));
    await hostFiles.remove(at('a/b/z'));
    await assert.rejects(hostFiles.syncFolder(at('absent')), { code: 'ENOENT' });
    assert.equal(await hostFiles.stat(at('a/b/z')), null);
    assert.equal(await hostFiles.stat(at('a/b/m/below-a-file')), null);
    assert.equal((await hostFiles.stat(at('a')))?.kind, 'folder');
    assert.ok((await hostFiles.freeBytes(at('a'))) > 0);
  });

  test('stat tells the marks that a change of the contents changes', async () => {
    const file = await hostFiles.open(at('marks'), 'create');
    const before = (await hostFiles.stat(at('marks')))!;
    assert.equal(before.kind, 'file');
    assert.equal(before.allocated, 0);
    await file.write([Buffer.alloc(8192, 'x')], 0);
    await file.datasync();
    await file.close();
    const after = (await hostFiles.stat(at('marks')))!;
    assert.deepEqual([after.size, after.allocated, after.inode], [8192, 8192, before.inode]);
    assert.ok(after.mtimeNs >= before.mtimeNs);
  });
});

describe('clock and dice of this host', () => {
  test('a sleep ends by its time or by the signal, with the reason of the signal', async () => {
    const start = hostClock.monotonic();
    await hostClock.sleep(5);
    assert.ok(hostClock.monotonic() - start >= 4);
    const reason = new Error('enough');
    await assert.rejects(hostClock.sleep(60_000, AbortSignal.abort(reason)), reason);
    const controller = new AbortController();
    const sleeping = hostClock.sleep(2 ** 40, controller.signal);
    controller.abort(reason);
    await assert.rejects(sleeping, reason);
  });

  test('identifiers are version-4 UUIDs and never the same', () => {
    assert.match(hostRandom.uuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(hostRandom.uuid(), hostRandom.uuid());
    assert.equal(hostRandom.bytes(32).length, 32);
    assert.ok(Math.abs(hostClock.now() - Date.now()) < 1000);
  });
});
