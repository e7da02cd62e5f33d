import assert from 'node:assert/strict';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { libc, portableLibc } from './libc.ts';

const skip = libc().native ? false : 'koffi does not load here';

test('a failing call rejects with its own errno, even from the thread pool', { skip }, async () => {
  const folder = await temporaryFolder();
  const readable = openSync(join(folder.path, 'x'), 'w+');
  const reading = openSync(join(folder.path, 'x'), 'r');
  const native = libc();
  await assert.rejects(native.punchHole(reading, 0, 4096), { code: 'EBADF' });
  assert.equal(await native.punchHole(readable, 0, 0), false, 'EINVAL: such a call is not possible here');
  assert.equal(await native.punchHole(readable, 0, 4096), true);
  assert.equal(await native.blockZeroOut(readable, 0, 4096), false, 'no ioctl for files');
  assert.equal(await native.blockDiscard(readable, 0, 4096), false);
  assert.equal(native.blockDeviceSizes(readable), null);
  assert.throws(() => native.seekData(9999, 0), { code: 'EBADF' });
  assert.equal(native.readNow(9999, Buffer.alloc(1), 0), null);
  assert.equal(native.fileSystemId(9999), null);
  assert.equal(native.lockByte(9999, 100, 'read'), 'unsupported');
  closeSync(readable);
  closeSync(reading);
  await folder.remove();
});

test('an exclusive lock is a conflict, and unlocking ends it', { skip }, async () => {
  const folder = await temporaryFolder();
  const [one, two] = [openSync(join(folder.path, 'x'), 'w+'), openSync(join(folder.path, 'x'), 'r+')];
  const native = libc();
  assert.equal(native.lockByte(one, 100, 'write'), 'done');
  assert.equal(native.lockByte(two, 100, 'read'), 'conflict');
  assert.equal(native.lockByte(two, 101, 'read'), 'done');
  assert.equal(native.isByteLocked(two, 100), true);
  assert.equal(native.isByteLocked(one, 100), false, 'own locks do not count');
  assert.equal(native.lockByte(one, 100, 'unlock'), 'done');
  assert.equal(native.isByteLocked(two, 100), false);
  closeSync(one);
  closeSync(two);
  await folder.remove();
});

test('a range is zeroed with its space kept where the file system can', { skip }, async () => {
  const folder = await temporaryFolder();
  const file = openSync(join(folder.path, 'x'), 'w+');
  writeSync(file, Buffer.alloc(8192, 'x'));
  const into = Buffer.alloc(8192);
  const done = await libc().zeroRange(file, 0, 4096);
  assert.equal(libc().readNow(file, into, 0), 8192);
  assert.equal(into.every((byte) => byte === (done ? 0 : 0x78)), !done);
  assert.equal(into.subarray(0, 4096).every((byte) => byte === 0), done);
  closeSync(file);
  await folder.remove();
});

test('without libc everything is data and nothing else is promised', async () => {
  assert.equal(portableLibc.seekData(9999, 17), 17);
  assert.equal(portableLibc.seekHole(9999, 17, 4096), 4096);
  assert.equal(portableLibc.lockByte(9999, 1, 'read'), 'unsupported');
  assert.equal(await portableLibc.punchHole(9999, 0, 1), false);
  assert.equal(await portableLibc.blockZeroOut(9999, 0, 1), false);
  assert.equal(portableLibc.readNow(9999, Buffer.alloc(1), 0), null);
});
