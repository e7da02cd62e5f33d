import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { clock, SEED, Seeded } from '../../../test/formats/seeded.ts';
import { chainOfVhd } from './chain.ts';
import { createVhd } from './create.ts';
import { decodeDynamicHeader, encodeDynamicHeader } from './dynamic-header.ts';
import { decodeFooter, encodeFooter, guestSizeOf, vhdTimestamp } from './footer.ts';
import type { Footer } from './footer.ts';
import { geometryOf } from './geometry.ts';
import { openVhd } from './open.ts';
import { findParent, parentCandidates, relativeWindowsPath } from './parent-path.ts';
import { layout, Space } from './space.ts';

const geometries = [
  [4 << 20, 120, 4, 17],
  [512 << 20, 1040, 16, 63],
  [136365211648, 65278, 16, 255],
  [142606336, 561, 16, 31],
  [33822350848, 65534, 16, 63],
  [65535 * 16 * 63 * 512, 16191, 16, 255],
  [136899993600, 65535, 16, 255],
  [2 ** 40, 65535, 16, 255],
] as const;
for (const [size, cylinders, heads, sectorsPerTrack] of geometries) {
  test(`${size} bytes have the geometry ${cylinders}/${heads}/${sectorsPerTrack}`, () => {
    assert.deepEqual(geometryOf(size), { cylinders, heads, sectorsPerTrack });
  });
}

const footer: Footer = {
  features: 2,
  headerOffset: 512,
  timestamp: 5,
  creatorApp: 'win ',
  creatorVersion: 0xa0000,
  creatorOs: 'Wi2k',
  originalSize: 4 << 20,
  currentSize: 4 << 20,
  geometry: geometryOf(4 << 20),
  type: 3,
  uniqueId: '00112233-4455-6677-8899-aabbccddeeff',
  savedState: 0,
};

test('a footer comes back as it was written, and not when a byte of it is wrong', () => {
  const bytes = encodeFooter(footer);
  assert.deepEqual(decodeFooter(bytes), footer);
  for (let at = 0; at < 512; at++) {
    bytes[at]! ^= 1;
    assert.ok('malformed' in decodeFooter(bytes), `byte ${at}`);
    bytes[at]! ^= 1;
  }
});

test('a footer of 511 bytes, as very old files have, is read', () => {
  assert.deepEqual(decodeFooter(encodeFooter(footer).subarray(0, 511)), footer);
});

test('only Virtual PC counts in cylinders, and never with the largest geometry', () => {
  const product = 120 * 4 * 17 * 512;
  assert.equal(guestSizeOf(footer), 4 << 20);
  assert.equal(guestSizeOf({ ...footer, creatorApp: 'vpc ' }), product);
  const huge = 2 ** 38;
  assert.equal(guestSizeOf({ ...footer, creatorApp: 'vpc ', currentSize: huge, geometry: geometryOf(huge) }), huge);
});

test('VHD times count from the year 2000', () => {
  assert.equal(vhdTimestamp(Date.UTC(2000, 0, 1, 0, 0, 7)), 7);
  assert.equal(vhdTimestamp(0), 0);
});

test('a dynamic header comes back as it was written', () => {
  const header = {
    batOffset: 1536,
    maxTableEntries: 9,
    blockSize: 2 << 20,
    parentUniqueId: footer.uniqueId,
    parentTimestamp: 4,
    parentName: 'Größe.vhd',
    locators: [{ code: 'W2ru', space: 512, length: 22, offset: 4096 }],
  };
  assert.deepEqual(decodeDynamicHeader(encodeDynamicHeader(header)), header);
});

test('no parent outside of the folder is opened without leave', async () => {
  const files = new CrashFiles();
  const random = new Seeded(1);
  await createVhd('/secret/p.vhd', files, { variant: 'dynamic', size: 1 << 20, random, clock });
  await createVhd('/d/c.avhd', files, { variant: 'differencing', parent: '/secret/p.vhd', random, clock });
  await assert.rejects(openVhd('/d/c.avhd', files, { readOnly: true }), {
    code: 'DISK_PARENT_OUTSIDE',
    message: /\/secret\/p\.vhd/,
  });
  await (await openVhd('/d/c.avhd', files, { readOnly: true, allowParentOutside: true })).close();
});

test('whatever a locator says, a candidate that counts as inside lies inside', () => {
  const part = fc.constantFrom('..', '.', '\\', '/', 'C:', '\\\\?\\', 'etc', 'p.vhd', '\0', '');
  fc.assert(
    fc.property(fc.array(part, { maxLength: 8 }), fc.array(part, { maxLength: 8 }), (relative, absolute) => {
      for (const { path, inside } of parentCandidates('/a/b/c.avhd', {
        relative: [relative.join('')],
        absolute: [absolute.join('')],
      })) {
        assert.equal(inside, path.startsWith('/a/b/') && !path.includes('/../') && !path.endsWith('/..'));
        assert.ok(!path.includes('\0'));
      }
    }),
    { seed: SEED },
  );
});

test('a parent is looked for where the relative path says, then beside the child', async () => {
  const files = new CrashFiles();
  files.put('/d/p.vhd', new Uint8Array(1));
  assert.equal(
    await findParent('/d/c.avhd', { relative: ['.\\gone\\p.vhd'], absolute: ['D:\\vms\\x.vhd'] }, files, {}),
    '/d/p.vhd',
  );
  await assert.rejects(findParent('/d/c.avhd', { relative: [], absolute: ['D:\\vms\\x.vhd'] }, files, {}), {
    code: 'DISK_PARENT_MISSING',
    message: /\/d\/x\.vhd/,
  });
});

test('a path to the parent is relative to the child', () => {
  assert.equal(relativeWindowsPath('/a/b/c.avhd', '/a/b/p.vhd'), '.\\p.vhd');
  assert.equal(relativeWindowsPath('/a/b/c.avhd', '/a/x/p.vhd'), '..\\x\\p.vhd');
});

test('a disk over another disk of the same name, and a disk over itself, are refused', async () => {
  const files = new CrashFiles();
  const random = new Seeded(2);
  await createVhd('/d/p.vhd', files, { variant: 'dynamic', size: 1 << 20, random, clock });
  await createVhd('/d/c.avhd', files, { variant: 'differencing', parent: '/d/p.vhd', random, clock });
  const child = files.contents.get('/d/c.avhd')!;
  files.contents.set('/d/p.vhd', child);
  await assert.rejects(openVhd('/d/c.avhd', files, { readOnly: true }), { code: 'DISK_PARENT_MISMATCH' });
  files.contents.delete('/d/p.vhd');
  await createVhd('/d/p.vhd', files, { variant: 'dynamic', size: 1 << 20, random, clock });
  await assert.rejects(chainOfVhd('/d/c.avhd', files), { code: 'DISK_PARENT_MISMATCH' });
});

test('room that is handed out never overlaps, and what is given back is used again', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.boolean()), { maxLength: 60 }), (steps) => {
      const space = new Space([], 512);
      const taken: { start: number; end: number }[] = [];
      for (const [sectors, give] of steps) {
        const room = space.take(sectors * 512, 4096, 512);
        assert.equal(room.position % 4096, 0);
        taken.push({ start: room.position - 512, end: room.end });
        if (give) space.give(taken.splice(sectors % taken.length, 1)[0]!);
        const found = layout(
          taken.map((range) => ({ ...range })),
          512,
        );
        assert.ok(!('overlap' in found));
        assert.ok(found.end <= space.end);
      }
      const held = taken.reduce((sum, range) => sum + range.end - range.start, 0);
      assert.equal(held + space.freeBytes + 512, space.end);
    }),
    { seed: SEED },
  );
});
