import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { Descriptor } from './descriptor.ts';
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

test('a durable write writes and syncs, and says what it cannot', { skip }, async () => {
  const folder = await temporaryFolder();
  const path = join(folder.path, 'x');
  const [file, reading] = [openSync(path, 'w+'), openSync(path, 'r')];
  const page = Buffer.alloc(4096, 'page');
  assert.equal(await libc().writeDurably(file, page, 4096), 4096);
  assert.deepEqual(readFileSync(path), Buffer.concat([Buffer.alloc(4096), page]));
  await assert.rejects(libc().writeDurably(reading, page, 0), { code: 'EBADF' });
  const descriptor = new Descriptor(path, file);
  assert.equal(await descriptor.writeDurably(page, 0), true);
  const portable = new Descriptor(path, file, { libc: portableLibc });
  assert.equal(await portable.writeDurably(page, 0), false);
  closeSync(reading);
  await descriptor.close();
  await folder.remove();
});

test('the kernel begins to write what is dirty when it is asked to, and says what it cannot', { skip }, async () => {
  const folder = await temporaryFolder();
  const path = join(folder.path, 'x');
  const descriptor = new Descriptor(path, openSync(path, 'w+'));
  await descriptor.writeOne(Buffer.alloc(1 << 20, 'x'), 0);
  assert.equal(await descriptor.startWriteBack(0, 1 << 20), true);
  assert.deepEqual(readFileSync(path), Buffer.alloc(1 << 20, 'x'));
  const portable = new Descriptor(path, openSync(path, 'r'), { libc: portableLibc });
  assert.equal(await portable.startWriteBack(0, 1 << 20), false);
  await assert.rejects(libc().startWriteBack(-1, 0, 4096), { code: 'EBADF' });
  await portable.close();
  await descriptor.close();
  await folder.remove();
});

/** Of this thread, ns, as /proc shows it; null where the kernel does not. */
function sliceOf(): number | null {
  const shown = existsSync('/proc/self/sched') ? /se\.slice\s*:\s*(\d+)/.exec(readFileSync('/proc/self/sched', 'utf8')) : null;
  return shown === null ? null : Number(shown[1]);
}

test('a thread asks for short turns, and for those that everybody has again', { skip }, (t) => {
  const before = sliceOf();
  if (before === null || !libc().setSlice(300_000)) return t.skip('this kernel has no such turns, or does not show them');
  assert.equal(sliceOf(), 300_000);
  assert.equal(libc().setSlice(0), true);
  assert.equal(sliceOf(), before);
});

test('what a socket may hold is set, and only of sockets', { skip }, async () => {
  const folder = await temporaryFolder();
  const server = createServer().listen(join(folder.path, 'socket'));
  await once(server, 'listening');
  const file = openSync(join(folder.path, 'x'), 'w+');
  assert.equal(libc().setSendBuffer((server as unknown as { _handle: { fd: number } })._handle.fd, 1 << 20), true);
  assert.equal(libc().setSendBuffer(file, 1 << 20), false);
  closeSync(file);
  server.close();
  await folder.remove();
});

test('without libc everything is data and nothing else is promised', async () => {
  assert.equal(await portableLibc.writeDurably(9999, Buffer.alloc(1), 0), null);
  assert.equal(portableLibc.setSlice(1), false);
  assert.equal(portableLibc.setSendBuffer(1, 1), false);
  assert.equal(portableLibc.seekData(9999, 17), 17);
  assert.equal(portableLibc.seekHole(9999, 17, 4096), 4096);
  assert.equal(portableLibc.lockByte(9999, 1, 'read'), 'unsupported');
  assert.equal(await portableLibc.punchHole(9999, 0, 1), false);
  assert.equal(await portableLibc.blockZeroOut(9999, 0, 1), false);
  assert.equal(portableLibc.readNow(9999, Buffer.alloc(1), 0), null);
});
