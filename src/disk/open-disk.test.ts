import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import { missing, run, startQemuNbd, temporaryFolder } from '../../test/conformance/disk-programs.ts';
import { pattern, readBack } from '../../test/conformance/virtual-disk.suite.ts';
import { probeFormat } from './disk-probe.ts';
import { decodeQcow2Header } from './images/qcow2-header.ts';
import { openDisk, probeDisk } from './open-disk.ts';
import { createRawDisk } from './raw-disk.ts';

const MIB = 1 << 20;
const READER = { readOnly: true };

describe('format probe', () => {
  const at = (offset: number, magic: string): Buffer =>
    Buffer.concat([Buffer.alloc(offset), Buffer.from(magic, 'latin1'), Buffer.alloc(100)]);
  const footer = (size: number): Buffer =>
    Buffer.concat([Buffer.alloc(512 - size), Buffer.from('conectix'), Buffer.alloc(size - 8)]);
  const rows: [string, Buffer, Buffer, object][] = [
    ['zeroes', Buffer.alloc(4096), Buffer.alloc(512), { known: true, format: 'raw' }],
    ['nothing', Buffer.alloc(0), Buffer.alloc(0), { known: true, format: 'raw' }],
    ['a VHDX', at(0, 'vhdxfile'), Buffer.alloc(512), { known: true, format: 'vhdx' }],
    ['a dynamic VHD whose footer is lost', at(0, 'conectix'), Buffer.alloc(512), { known: true, format: 'vhd' }],
    ['a fixed VHD', Buffer.alloc(4096), footer(512), { known: true, format: 'vhd' }],
    ['an old fixed VHD', Buffer.alloc(4096), footer(511), { known: true, format: 'vhd' }],
    ['a footer in the wrong place', Buffer.alloc(4096), footer(400), { known: true, format: 'raw' }],
    ['a qcow2', at(0, 'QFI\xfb'), Buffer.alloc(512), { known: true, format: 'qcow2' }],
    ['a VMDK', at(0, 'KDMV'), Buffer.alloc(512), { known: false, name: 'vmdk' }],
    ['a VDI', at(0x40, '\x7f\x10\xda\xbe'), Buffer.alloc(512), { known: false, name: 'vdi' }],
    ['a partition table', at(510, '\x55\xaa'), Buffer.alloc(512), { known: true, format: 'raw' }],
  ];
  for (const [name, head, tail, expected] of rows) {
    test(`${name} is ${JSON.stringify(expected)}`, () => assert.deepEqual(probeFormat(head, tail), expected));
  }

  test('a qcow2 header that is cut off or too new is malformed', () => {
    assert.ok('malformed' in decodeQcow2Header(Buffer.from('QFI\xfb', 'latin1')));
    const header = Buffer.alloc(104, Buffer.from('QFI\xfb', 'latin1'));
    header.writeUInt32BE(4, 4);
    assert.ok('malformed' in decodeQcow2Header(header));
  });
});

describe('open by location', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let raw: string;
  before(async () => {
    folder = await temporaryFolder();
    raw = join(folder.path, 'disk.raw');
    const disk = await createRawDisk(raw, MIB);
    await disk.write(pattern(512, 1), 0);
    await disk.close();
  });
  after(() => folder.remove());

  test('a raw file opens as raw, locked unless told otherwise', async () => {
    const disk = await openDisk(raw, { readOnly: false });
    assert.equal(disk.format, 'raw');
    assert.ok((await readBack(disk, 0, 512)).equals(pattern(512, 1)));
    await assert.rejects(openDisk(raw, { readOnly: false }), { code: 'DISK_IN_USE' });
    await (await openDisk(raw, { readOnly: false, lock: false })).close();
    assert.equal((await probeDisk(raw)).virtualSize, MIB, 'a disk in use can be looked at');
    await disk.close();
  });

  test('a path relative to the working folder is the same disk', async () => {
    const disk = await openDisk('./package.json', { ...READER, format: 'raw' }).catch((error: unknown) => error);
    assert.match(String(disk), /\/package\.json has \d+ bytes/, 'found, though it is no disk');
  });

  test('a raw disk that looks like another format is opened only when its format is named', async () => {
    const path = join(folder.path, 'trap.raw');
    await (await createRawDisk(path, MIB)).close();
    for (const magic of ['QFI\xfb', 'KDMV']) {
      writeFileSync(path, Buffer.from(magic, 'latin1'), { flag: 'r+' });
      truncateSync(path, MIB);
      const refusal = { kind: 'usage', code: 'FORMAT_NOT_SUPPORTED', remedy: /qemu-nbd .*format raw/s };
      await assert.rejects(openDisk(path, READER), refusal);
      const disk = await openDisk(path, { ...READER, format: 'raw' });
      assert.equal(disk.virtualSize, MIB);
      await disk.close();
    }
  });

  const skip = missing('qemu-img', 'qemu-nbd');
  test('a qcow2 is told apart and described, and opens through qemu-nbd', { skip }, async (context) => {
    const [base, image] = [join(folder.path, 'base.qcow2'), join(folder.path, 'disk.qcow2')];
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', base, '3M']);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', image]);
    const facts = { format: 'qcow2', virtualSize: 3 * MIB, logicalSectorSize: 512, physicalSectorSize: 4096, geometry: null };
    assert.deepEqual(await probeDisk(base), { ...facts, location: base, variant: 'dynamic' });
    assert.deepEqual(await probeDisk(image), { ...facts, location: image, variant: 'differencing' });
    await assert.rejects(openDisk(image, READER), { code: 'FORMAT_NOT_SUPPORTED', message: /qcow2/, remedy: /--format=qcow2/ });
    const server = await startQemuNbd(image, 'qcow2', folder.path);
    atEnd(context, () => server.stop());
    assert.deepEqual(await probeDisk(server.uri), { ...facts, location: server.uri, format: 'nbd', variant: 'fixed' });
    const disk = await openDisk(server.uri, { readOnly: false });
    await disk.write(pattern(1000, 1), 5);
    await disk.close();
  });

  const refused: [string, () => string, object][] = [
    ['a missing file', () => join(folder.path, 'absent'), { kind: 'usage', code: 'DISK_NOT_FOUND' }],
    ['a path through a file', () => join(raw, 'x'), { code: 'DISK_NOT_FOUND' }],
    ['a folder', () => folder.path, { code: 'DISK_NOT_SUPPORTED', message: /folder/ }],
    ['a character device', () => '/dev/null', { code: 'DISK_NOT_SUPPORTED' }],
    ['another URI', () => 'rbd:pool/image', { code: 'DISK_NOT_SUPPORTED', remedy: /qemu-nbd/ }],
    ['a file URI', () => 'file:///tmp/x', { code: 'DISK_NOT_SUPPORTED' }],
    ['NBD with TLS', () => 'nbds://host/', { code: 'DISK_NOT_SUPPORTED', message: /TLS/ }],
  ];
  for (const [name, location, expected] of refused) {
    test(`${name} is refused with a remedy`, async () => {
      await assert.rejects(openDisk(location(), READER), { name: 'UnderstudyError', ...expected });
      await assert.rejects(probeDisk(location()), { name: 'UnderstudyError', ...expected });
    });
  }
});
