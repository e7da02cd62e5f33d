import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { missing, run, startQemuNbd, temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { libc, portableLibc } from './libc.ts';
import { createRawDisk, openRawDisk } from './raw-disk.ts';

const skip = libc().native ? false : 'koffi does not load here';
const skipQemu = skip || missing('qemu-nbd', 'qemu-io', 'qemu-img');
const WRITER = { readOnly: false, lock: true };
const READER = { readOnly: true, lock: true };
const IN_USE = { name: 'UnderstudyError', kind: 'state', code: 'DISK_IN_USE', remedy: /fuser/ };

/** Holds a disk open for writing until it is killed; the parent hears when it has it. */
if (process.argv[2] === 'hold') {
  await openRawDisk(process.argv[3]!, WRITER);
  process.send!('held');
  setInterval(() => {}, 1 << 30);
}

describe('image locks', { skip: process.argv[2] === 'hold' || skip }, () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let path: string;
  before(async () => {
    folder = await temporaryFolder();
    path = join(folder.path, 'disk.raw');
    await (await createRawDisk(path, 1 << 20)).close();
  });
  after(() => folder.remove());

  const qemuIo = (...args: string[]) => run('qemu-io', ['-f', 'raw', '-c', 'read 0 512', ...args, path]);

  test('a writer excludes writers and readers, and readers exclude writers only', async () => {
    const writer = await openRawDisk(path, WRITER);
    assert.equal(writer.lockHeld, true);
    await assert.rejects(openRawDisk(path, WRITER), IN_USE);
    await assert.rejects(openRawDisk(path, READER), IN_USE);
    const peeking = await openRawDisk(path, { readOnly: true, lock: false });
    assert.equal(peeking.lockHeld, false);
    await peeking.close();
    await writer.close();

    const readers = [await openRawDisk(path, READER), await openRawDisk(path, READER)];
    await assert.rejects(openRawDisk(path, WRITER), IN_USE);
    for (const reader of readers) await reader.close();
    await (await openRawDisk(path, WRITER)).close();
  });

  test('without libc a disk opens, and says that it is not locked', async () => {
    const disk = await openRawDisk(path, { ...WRITER, libc: portableLibc });
    assert.equal(disk.lockHeld, false);
    await disk.close();
  });

  test('a process that is killed leaves no lock behind', async () => {
    const child = fork(import.meta.filename, ['hold', path], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    await once(child, 'message');
    await assert.rejects(openRawDisk(path, WRITER), IN_USE);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await (await openRawDisk(path, WRITER)).close();
  });

  // QEMU's tools share a raw image that they only read with a writer; what must not happen is two writers.
  test('QEMU cannot write what we have open', { skip: skipQemu }, async () => {
    for (const mode of [WRITER, READER]) {
      const disk = await openRawDisk(path, mode);
      await assert.rejects(qemuIo(), { code: 1, stderr: /Failed to get "write" lock/ });
      await assert.rejects(startQemuNbd(path, 'raw', folder.path), { stderr: /Failed to get "write" lock/ });
      await qemuIo('-r');
      await disk.close();
    }
    await qemuIo();
  });

  test('we cannot open what QEMU writes, and read beside it what it reads', { skip: skipQemu }, async (context) => {
    const server = await startQemuNbd(path, 'raw', folder.path);
    atEnd(context, () => server.stop());
    await assert.rejects(openRawDisk(path, WRITER), IN_USE);
    await assert.rejects(openRawDisk(path, READER), IN_USE);
    await server.stop();

    const readServer = await startQemuNbd(path, 'raw', folder.path, ['--read-only']);
    atEnd(context, () => readServer.stop());
    await (await openRawDisk(path, READER)).close();
    await readServer.stop();
    await (await openRawDisk(path, WRITER)).close();
  });
});
