/** Where readers of VHD and VHDX go wrong, one test each. What a whole suite tries (chains, zeroed sectors, sizes) is not repeated here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../../src/disk/vhdx/crc32c.ts';
import { inspectVhd } from '../../src/disk/vhd/vhd-image.ts';
import { CrashFiles, type SparseBytes } from './crash-files.ts';
import { families } from './families.ts';
import { SEED, Seeded } from './seeded.ts';

const MIB = 1 << 20;
const HEADERS = [64 << 10, 128 << 10];
const REGION_TABLES = [192 << 10, 256 << 10];
const [vhd, vhdx] = families(new Seeded(SEED));

function edit(content: SparseBytes, at: number, length: number, change: (bytes: Buffer) => void): void {
  const bytes = Buffer.alloc(length);
  content.read(bytes, at);
  change(bytes);
  bytes.writeUInt32LE(crc32c(bytes, 4), 4);
  content.write(bytes, at);
}

/** A VHDX that holds a megabyte of ones; `dirty`: its log is to be replayed. */
async function filled(dirty = false): Promise<{ files: CrashFiles; content: SparseBytes }> {
  const files = new CrashFiles();
  await vhdx!.create(files, '/d/0.vhdx', 'dynamic', 4 * MIB);
  const disk = await vhdx!.open(files, '/d/0.vhdx', { readOnly: false });
  await disk.write(Buffer.alloc(MIB, 1), 0);
  await disk.flush();
  if (!dirty) await disk.close();
  return { files, content: files.contents.get('/d/0.vhdx')! };
}

async function firstByte(files: CrashFiles): Promise<number> {
  const disk = await vhdx!.open(files, '/d/0.vhdx', { readOnly: true });
  const bytes = Buffer.alloc(1);
  await disk.read(bytes, 0);
  await disk.close();
  return bytes[0]!;
}

for (const [index, at] of HEADERS.entries()) {
  test(`a VHDX is read with header ${index + 1} alone (7-Zip refuses it)`, async () => {
    const { files, content } = await filled();
    content.write(Buffer.alloc(4096, 7), at);
    assert.equal(await firstByte(files), 1);
    content.write(Buffer.alloc(4096, 7), HEADERS[1 - index]!);
    await assert.rejects(firstByte(files), { code: 'DISK_MALFORMED' });
  });
}

test('a region of a VHDX that nobody knows is refused when it is required, and passed over when it is not', async () => {
  for (const required of [1, 0]) {
    const { files, content } = await filled();
    for (const at of REGION_TABLES) {
      edit(content, at, 65536, (bytes) => {
        const entry = 16 + 32 * bytes.readUInt32LE(8);
        bytes.writeUInt32LE(bytes.readUInt32LE(8) + 1, 8);
        bytes.fill(0x5a, entry, entry + 16);
        bytes.writeBigUInt64LE(BigInt(100 * MIB), entry + 16);
        bytes.writeUInt32LE(MIB, entry + 24);
        bytes.writeUInt32LE(required, entry + 28);
      });
    }
    if (required === 0) assert.equal(await firstByte(files), 1);
    else await assert.rejects(firstByte(files), { code: 'DISK_MALFORMED' });
  }
});

test('a log of another version is refused where it is to be replayed, and means nothing where it is empty', async () => {
  for (const dirty of [true, false]) {
    const { files, content } = await filled(dirty);
    for (const at of HEADERS) edit(content, at, 4096, (bytes) => bytes.writeUInt16LE(1, 64));
    if (dirty) await assert.rejects(firstByte(files), { code: 'DISK_MALFORMED' });
    else assert.equal(await firstByte(files), 1);
  }
});

test('a VHDX that is shorter than its log says is refused, and read before that', async () => {
  const { files, content } = await filled(true);
  assert.equal(await firstByte(files), 1);
  content.truncate(content.size - MIB);
  await assert.rejects(firstByte(files), { code: 'DISK_MALFORMED' });
});

test('bytes of a dynamic VHD whose sector bit is not set read as zeroes, and check tells of them (QEMU shows them, 7-Zip does not)', async () => {
  const files = new CrashFiles();
  await vhd!.create(files, '/d/0.vhd', 'dynamic', MIB);
  const disk = await vhd!.open(files, '/d/0.vhd', { readOnly: false });
  await disk.write(Buffer.alloc(16 * 512, 1), 0);
  await disk.close();
  const { sparse } = await inspectVhd('/d/0.vhd', files);
  // Sector 0 is the highest bit of the first byte.
  files.contents.get('/d/0.vhd')!.write(Uint8Array.of(0x7f), sparse!.bat[0]! * 512);
  const again = await vhd!.open(files, '/d/0.vhd', { readOnly: true });
  const bytes = Buffer.alloc(1024);
  await again.read(bytes, 0);
  await again.close();
  assert.deepEqual([bytes[0], bytes[511], bytes[512]], [0, 0, 1]);
  const { findings } = await vhd!.check(files, '/d/0.vhd');
  assert.ok(findings.some(({ severity }) => severity === 'warning'), JSON.stringify(findings));
});
