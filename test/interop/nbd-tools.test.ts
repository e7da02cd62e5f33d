import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hostClock } from '../../src/disk/host-clock.ts';
import { missing, nbdRig, run, start } from './nbd-rig.suite.ts';

const MIB = 2 ** 20;

test('nbdinfo reads what the export is', { skip: missing('nbdinfo') }, async () => {
  await using rig = await nbdRig(8 * MIB);
  const { exports } = JSON.parse(await run('nbdinfo', '--json', rig.uri)) as { exports: Record<string, unknown>[] };
  const facts = {
    'export-name': 'vm/disk 0', description: 'a test disk', 'export-size': 8 * MIB, is_read_only: false, can_df: true,
    can_flush: true, can_fua: true, can_multi_conn: true, can_trim: true, can_zero: true,
    can_fast_zero: false, can_cache: false, contexts: ['base:allocation'],
    block_size_minimum: 1, block_size_preferred: 4096, block_size_maximum: 32 * MIB,
  };
  const seen = Object.fromEntries(Object.keys(facts).map((key) => [key, exports[0]![key]]));
  assert.deepEqual(seen, facts);
  assert.deepEqual(rig.complaints, []);
});

test('nbdinfo lists the exports', { skip: missing('nbdinfo') }, async () => {
  await using rig = await nbdRig(8 * MIB);
  const said = await run('nbdinfo', '--json', '--list', `nbd+unix:///?socket=${rig.socket}`);
  const list = JSON.parse(said) as { exports: { 'export-name': string }[] };
  assert.deepEqual(list.exports.map((each) => each['export-name']), ['vm/disk 0']);
});

test('nbdinfo maps holes and data', { skip: missing('nbdinfo') }, async () => {
  await using rig = await nbdRig(8 * MIB);
  await rig.disk.write(randomBytes(MIB), 2 * MIB);
  const map = JSON.parse(await run('nbdinfo', '--json', '--map', rig.uri)) as { offset: number; length: number; type: number }[];
  assert.deepEqual(map.map(({ offset, length, type }) => [offset / MIB, length / MIB, type]), [[0, 2, 3], [2, 1, 0], [3, 5, 3]]);
});

test('nbdcopy brings a disk in and out unchanged, holes as holes', { skip: missing('nbdcopy', 'cmp') }, async () => {
  await using rig = await nbdRig(64 * MIB);
  const source = join(rig.folder, 'source.raw');
  const bytes = Buffer.alloc(64 * MIB);
  randomBytes(20 * MIB).copy(bytes, 3 * MIB + 512);
  writeFileSync(source, bytes);
  await rig.disk.write(randomBytes(MIB), 50 * MIB); // What was there must go.
  await run('nbdcopy', '--flush', source, rig.uri);
  await run('cmp', source, rig.image);
  const back = join(rig.folder, 'back.raw');
  await run('nbdcopy', rig.uri, back);
  await run('cmp', source, back);
  assert.ok(statSync(rig.image).blocks * 512 < 24 * MIB, 'zeroes take no space');
  assert.deepEqual(rig.complaints, []);
});

test('qemu-img converts, compares and maps', { skip: missing('qemu-img') }, async () => {
  await using rig = await nbdRig(64 * MIB);
  const source = join(rig.folder, 'source.raw');
  const bytes = Buffer.alloc(64 * MIB);
  randomBytes(10 * MIB).copy(bytes, 30 * MIB);
  writeFileSync(source, bytes);
  await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source, rig.uri);
  await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, rig.uri);
  const said = await run('qemu-img', 'map', '--output=json', '-f', 'raw', rig.uri);
  const map = JSON.parse(said) as { start: number; length: number; data: boolean }[];
  assert.deepEqual(map.filter((each) => each.data).map(({ start: at, length }) => [at / MIB, length / MIB]), [[30, 10]]);
  const qcow2 = join(rig.folder, 'out.qcow2');
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', rig.uri, qcow2);
  await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', rig.uri, qcow2);
  await rig.disk.write(Buffer.from('x'), 40 * MIB);
  const different = await start('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, rig.uri]).ended;
  assert.equal(different.status, 1, 'a planted difference is found');
  assert.deepEqual(rig.complaints, []);
});

test('qemu-io writes with FUA, zeroes, unmaps, discards and flushes', { skip: missing('qemu-io') }, async () => {
  await using rig = await nbdRig(8 * MIB);
  const said = await run('qemu-io', '-f', 'raw', '-t', 'writeback', '-d', 'unmap',
    '-c', 'write -P 0x11 0 1M', '-c', 'write -f -P 0x22 1M 64k', '-c', 'write -z 4k 4k',
    '-c', 'write -z -u 64k 64k', '-c', 'discard 512k 64k', '-c', 'flush', '-c', 'aio_write -P 0x33 2M 1M',
    '-c', 'aio_write -P 0x44 3M 1M', '-c', 'aio_flush', '-c', 'read -P 0x33 2M 1M', '-c', 'read -P 0x44 3M 1M',
    '-c', 'read -P 0 4k 4k', rig.uri);
  assert.doesNotMatch(said, /error|fail/i);
  const image = readFileSync(rig.image);
  const expected = Buffer.alloc(8 * MIB);
  expected.fill(0x11, 0, MIB).fill(0x22, MIB, MIB + 65_536);
  expected.fill(0, 4096, 8192).fill(0, 65_536, 131_072).fill(0, 524_288, 589_824);
  expected.fill(0x33, 2 * MIB, 3 * MIB).fill(0x44, 3 * MIB, 4 * MIB);
  assert.ok(image.equals(expected));
  assert.deepEqual(rig.complaints, []);
});

test('qemu-io is told of what fails', { skip: missing('qemu-io') }, async () => {
  const full = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
  await using rig = await nbdRig(8 * MIB, { exportOf: (plain) => ({ ...plain, write: full }) });
  const { stdout, stderr, status } = await start('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', rig.uri]).ended;
  assert.equal(status, 1);
  assert.match(stdout + stderr, /No space left on device/);
  assert.equal(rig.complaints.length, 1);
});

test('a read-only export is not written', { skip: missing('qemu-io', 'nbdinfo') }, async () => {
  await using rig = await nbdRig(8 * MIB, { exportOf: (plain) => ({ ...plain, readOnly: true }) });
  assert.match(await run('nbdinfo', rig.uri), /is_read_only: true/);
  const { status } = await start('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', rig.uri]).ended;
  assert.equal(status, 1);
  assert.ok(readFileSync(rig.image).equals(Buffer.alloc(8 * MIB)));
});

test('an unknown export is refused by name', { skip: missing('nbdinfo') }, async () => {
  await using rig = await nbdRig(8 * MIB);
  const { status, stderr } = await start('nbdinfo', [`nbd+unix:///nobody?socket=${rig.socket}`]).ended;
  assert.equal(status, 1);
  assert.match(stderr, /No such file or directory for export: nobody/);
});

test('QEMU rides out a restart of the server', { skip: missing('qemu-io') }, async () => {
  let attached = 0;
  await using rig = await nbdRig(64 * MIB, { exportOf: (plain) => ({ ...plain, clientConnected: () => void (attached += 1) }) });
  const options = `driver=nbd,server.type=unix,server.path=${rig.socket},export=vm/disk 0,reconnect-delay=60`;
  const commands = Array.from({ length: 300 }, (_, i) => ['-c', `write -q -P ${1 + (i % 255)} ${i * 64}k 64k`]).flat();
  const writer = start('qemu-io', ['--image-opts', ...commands, '-c', 'flush', options]);
  for (let restarts = 0; restarts < 3 && writer.process.exitCode === null; restarts += 1) {
    while (attached === restarts && writer.process.exitCode === null) await hostClock.sleep(1);
    await rig.restart();
  }
  const { status, stdout, stderr } = await writer.ended;
  assert.equal(status, 0, stdout + stderr);
  assert.doesNotMatch(stdout, /error|fail/i);
  assert.ok(attached > 1, 'it came back');
  const image = readFileSync(rig.image);
  for (let i = 0; i < 300; i += 1) {
    assert.ok(image.subarray(i * 65_536, (i + 1) * 65_536).equals(Buffer.alloc(65_536, 1 + (i % 255))), `write ${i}`);
  }
});
