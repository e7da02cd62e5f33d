import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { crashModes, snapshotOf } from '../../../test/formats/crash-run.ts';
import { SEED, Seeded } from '../../../test/formats/seeded.ts';
import { bitmapIndex } from './bat.ts';
import { crc32c } from './crc32c.ts';
import { createVhdx } from './create.ts';
import { decodeGuid, encodeGuid, GUID_ZERO } from './guid.ts';
import { MIB } from './header.ts';
import { decodeLogEntry, encodeLogEntry } from './log-entry.ts';
import { inspectVhdx, openForChange, openVhdx } from './open.ts';
import { decodeParentLocator, encodeParentLocator } from './parent-locator.ts';
import { readVhdx } from './vhdx-image.ts';

const random = new Seeded(SEED);
const PATH = '/d/a.vhdx';

async function newDisk(variant: 'fixed' | 'dynamic' = 'dynamic'): Promise<CrashFiles> {
  const files = new CrashFiles();
  await createVhdx(PATH, files, { variant, size: 4 * MIB, blockSize: MIB, random });
  return files;
}

const guids = async (files: CrashFiles) => {
  const { header } = await inspectVhdx(PATH, files);
  return { file: header.fileWriteGuid, data: header.dataWriteGuid, log: header.logGuid };
};

test('CRC-32C gives the check value of its definition', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.equal(crc32c(Buffer.from([1, 9, 9, 9, 9, 2]), 1), crc32c(Buffer.from([1, 0, 0, 0, 0, 2])));
});

test('a GUID has its first three groups little-endian', () => {
  const bytes = Buffer.alloc(16);
  encodeGuid('2dc27766-f623-4200-9d64-115e9bfd4a08', bytes, 0);
  assert.equal(bytes.toString('hex'), '6677c22d23f600429d64115e9bfd4a08');
  assert.equal(decodeGuid(bytes, 0), '2dc27766-f623-4200-9d64-115e9bfd4a08');
});

test('opening and closing without a write changes nothing', async () => {
  const files = await newDisk();
  const before = await guids(files);
  files.trace.length = 0;
  const disk = await openVhdx(PATH, files, { readOnly: false, random });
  await disk.read(Buffer.alloc(100), 0);
  await disk.close();
  assert.deepEqual(await guids(files), before);
  assert.ok(files.trace.every((operation) => operation.kind === 'sync'));
});

test('the first write of a session changes both GUIDs, later ones do not, and the log is clean at the end', async () => {
  const files = await newDisk();
  const created = await guids(files);
  const disk = await openVhdx(PATH, files, { readOnly: false, random });
  await disk.write(Buffer.alloc(10, 1), 0);
  await disk.flush();
  const first = await guids(files);
  assert.notEqual(first.file, created.file);
  assert.notEqual(first.data, created.data);
  assert.notEqual(first.log, GUID_ZERO);
  await disk.write(Buffer.alloc(10, 1), 2 * MIB);
  await disk.close();
  assert.deepEqual(await guids(files), { ...first, log: GUID_ZERO });
});

test('replaying a log changes FileWriteGuid and keeps DataWriteGuid', async () => {
  const files = await newDisk();
  const disk = await openVhdx(PATH, files, { readOnly: false, random });
  await disk.write(Buffer.alloc(10, 1), 0);
  await disk.flush();
  const dirty = await guids(files);
  assert.equal((await inspectVhdx(PATH, files)).pendingLog.length, 1);
  await (await openVhdx(PATH, files, { readOnly: false, random })).close();
  const replayed = await guids(files);
  assert.notEqual(replayed.file, dirty.file);
  assert.equal(replayed.data, dirty.data);
  assert.equal(replayed.log, GUID_ZERO);
});

test('writes to blocks that are there do not use the log', async () => {
  const files = await newDisk('fixed');
  const disk = await openVhdx(PATH, files, { readOnly: false, random });
  await disk.write(Buffer.alloc(2 * MIB, 1), 100);
  await disk.flush();
  assert.equal((await guids(files)).log, GUID_ZERO);
  await disk.close();
});

test('a seal names the GUIDs of a file at rest, and the next write gives new ones', async () => {
  const files = await newDisk();
  const disk = await openVhdx(PATH, files, { readOnly: false, random });
  await disk.write(Buffer.alloc(10, 1), 0);
  const seal = await disk.seal();
  const rest = await guids(files);
  assert.equal(rest.log, GUID_ZERO);
  assert.deepEqual(seal.kind === 'vhdx' && [seal.fileWriteGuid, seal.dataWriteGuid], [rest.file, rest.data]);
  await disk.write(Buffer.alloc(10, 2), 0);
  await disk.close();
  assert.notEqual((await guids(files)).data, rest.data);
});

test('a child is refused when its parent was written after it was made', async () => {
  const files = await newDisk();
  await createVhdx('/d/b.avhdx', files, { variant: 'differencing', parent: PATH, random });
  await (await openVhdx('/d/b.avhdx', files, { readOnly: true, random })).close();
  const parent = await openVhdx(PATH, files, { readOnly: false, random });
  await parent.write(Buffer.alloc(1, 1), 0);
  await parent.close();
  await assert.rejects(openVhdx('/d/b.avhdx', files, { readOnly: true, random }), { code: 'DISK_PARENT_MISMATCH' });
});

test('bits of an earlier life of a block do not hide the parent', async () => {
  const files = await newDisk();
  const base = await openVhdx(PATH, files, { readOnly: false, random });
  await base.write(Buffer.alloc(4 * MIB, 7), 0);
  await base.close();
  await createVhdx('/d/b.avhdx', files, { variant: 'differencing', parent: PATH, blockSize: MIB, random });
  const child = await openVhdx('/d/b.avhdx', files, { readOnly: false, random });
  await child.write(Buffer.alloc(512, 1), 0);
  await child.close();
  const image = await inspectVhdx('/d/b.avhdx', files);
  // Block 1 is not present, so its bits may be anything.
  files.contents
    .get('/d/b.avhdx')!
    .write(new Uint8Array(256).fill(0xff), image.bat.offset(bitmapIndex(image.shape, 0)) + 256);
  const again = await openVhdx('/d/b.avhdx', files, { readOnly: false, random });
  await again.write(Buffer.alloc(512, 2), MIB + 4096);
  const seen = Buffer.alloc(8192);
  await again.read(seen, MIB);
  const expected = Buffer.alloc(8192, 7).fill(2, 4096, 4608);
  assert.deepEqual(seen, expected);
  await again.close();
});

test(`many pages at once and round the end of the log: a power cut leaves a prefix of them (SEED=${SEED})`, async () => {
  const files = new CrashFiles();
  await createVhdx(PATH, files, { variant: 'dynamic', size: 400 * 1024 * MIB, blockSize: MIB, random });
  const before = snapshotOf(files);
  files.trace.length = 0;
  const { image, session } = await openForChange(PATH, files, random);
  // Pages behind the table in use: structure bytes that mean nothing, with the number of their batch in all of them.
  const first = image.batRegion.offset + 3_400_000 - (3_400_000 % 4096);
  const at = (index: number) => first + index * 4096;
  const COUNT = 150;
  for (let batch = 1; batch <= 6; batch++) {
    await session.sync();
    await session.writePages(
      Array.from({ length: COUNT }, (_, index) => ({ offset: at(index), bytes: Buffer.alloc(4096, batch) })),
    );
    files.mark(batch);
  }
  await session.rest();
  for (const crash of files.crashes(before, crashModes(random))) {
    const file = await crash.files.open(PATH, 'read');
    const view = (await readVhdx(file)).file;
    const batches: number[] = [];
    const page = Buffer.alloc(4096);
    for (let index = 0; index < COUNT; index++) {
      await view.read(page, at(index));
      assert.ok(page.equals(Buffer.alloc(4096, page[0]!)), `cut at ${crash.at} (${crash.mode}): page ${index} is torn`);
      batches.push(page[0]!);
    }
    const newest = batches[0]!;
    const what = `cut at ${crash.at} (${crash.mode}): ${batches.join(' ')}`;
    assert.ok(newest >= crash.mark, what);
    const older = batches.findIndex((batch) => batch !== newest);
    assert.ok(
      batches.slice(0, older < 0 ? COUNT : older).every((batch) => batch === newest),
      what,
    );
    if (older >= 0)
      assert.ok(
        batches.slice(older).every((batch) => batch === newest - 1),
        what,
      );
  }
});

test('a log entry comes back as it was written, and not when a bit of it is wrong', () => {
  const writes = [
    { offset: 3 * MIB, bytes: Buffer.from(random.bytes(4096)) },
    { offset: 4 * MIB, zeroes: 8192 },
  ];
  const guid = random.uuid();
  const entry = encodeLogEntry({
    tail: 0,
    sequence: 7n,
    logGuid: guid,
    flushedFileOffset: 4 * MIB,
    lastFileOffset: 5 * MIB,
    writes,
  });
  const log = Buffer.alloc(MIB);
  // Round the end of the ring.
  entry.copy(log, MIB - 4096, 0, 4096);
  entry.copy(log, 0, 4096);
  assert.deepEqual(decodeLogEntry(log, MIB - 4096, guid)?.writes, writes);
  assert.equal(decodeLogEntry(log, MIB - 4096, GUID_ZERO), null);
  for (const at of [MIB - 4090, MIB - 4080, MIB - 4000, 8, 4000, 4095]) {
    log[at]! ^= 1;
    assert.equal(decodeLogEntry(log, MIB - 4096, guid), null, `byte ${at}`);
    log[at]! ^= 1;
  }
});

test('a parent locator comes back as it was written', () => {
  const locator = {
    linkage: random.uuid(),
    linkage2: random.uuid(),
    relative: '.\\ä.vhdx',
    volume: null,
    absolute: '\\\\?\\C:\\ä.vhdx',
  };
  assert.deepEqual(decodeParentLocator(encodeParentLocator(locator)), locator);
});
