/** The folder of an exported copy: docs/formats/export-folder.md and the code say the same, and nothing from outside is believed. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hostFiles } from '../../src/disk/host-files.ts';
import type { Extent } from '../../src/disk/virtual-disk.ts';
import { ImageDigest, PIECE_BYTES, piecesOf, readManifest, writeManifest, type ExportManifest } from '../../src/replication/export-folder.ts';
import { hostCompute } from '../../src/resync/compare/host-compute.ts';

const compute = hostCompute();
const folder = await mkdtemp(join(tmpdir(), 'understudy-export-'));
after(() => rm(folder, { recursive: true, force: true }));
const path = join(folder, 'manifest.json');

const MANIFEST: ExportManifest = {
  version: 1, vmId: '11111111-2222-4333-8444-555555555555', name: 'vm', token: '99999999-2222-4333-8444-555555555555', firstEpoch: 3,
  consistentFrom: 5, createdAt: '2031-05-04T20:00:00.000Z',
  disks: [{ diskId: 'd0', fileName: 'd0.raw', virtualSize: 4096, bytes: 512, digest: 'ab'.repeat(32) }],
};

test('the digest of an image is that of the page, whether zeroes are stored or not', async () => {
  const page = await readFile(new URL('../../docs/formats/export-folder.md', import.meta.url), 'utf8');
  const [hole, stored] = [new ImageDigest(compute), new ImageDigest(compute)];
  hole.addHole(PIECE_BYTES);
  stored.add(new Uint8Array(PIECE_BYTES));
  const found = hole.hex();
  assert.equal(found, stored.hex());
  assert.ok(page.includes(`\`${found}\``), `the page does not say ${found}`);
});

test('the pieces of a disk cover it once, in order, and a piece with any data is none of holes', async () => {
  const size = 3 * PIECE_BYTES + 512;
  const kinds: [number, Extent['kind']][] = [[100, 'zero'], [PIECE_BYTES - 100, 'zero'], [PIECE_BYTES - 1, 'zero'], [1,
    'data'], [PIECE_BYTES, 'zero'], [512, 'data']];
  const disk = {
    virtualSize: size,
    async *extents() {
      let offset = 0;
      for (const [length, kind] of kinds) {
        yield { offset, length, kind };
        offset += length;
      }
    },
  };
  const pieces = [];
  for await (const piece of piecesOf(disk)) pieces.push(piece);
  assert.deepEqual(pieces, [
    { offset: 0, length: PIECE_BYTES, hole: true }, { offset: PIECE_BYTES, length: PIECE_BYTES, hole: false },
    { offset: 2 * PIECE_BYTES, length: PIECE_BYTES, hole: true }, { offset: 3 * PIECE_BYTES, length: 512, hole: false },
  ]);
});

test('a manifest is read as it was written, also when a person has formatted it anew', async () => {
  assert.equal(await readManifest(hostFiles, compute, folder), null);
  await writeManifest(hostFiles, compute, folder, MANIFEST);
  assert.deepEqual(await readManifest(hostFiles, compute, folder), MANIFEST);
  await writeFile(path, JSON.stringify(JSON.parse(await readFile(path, 'utf8'))));
  assert.deepEqual(await readManifest(hostFiles, compute, folder), MANIFEST);
});

test('a manifest that was changed, cut, of another version or that leads out of its folder is refused', async () => {
  const bad = async (what: string, change: (text: string) => string | Promise<string>) => {
    await writeManifest(hostFiles, compute, folder, MANIFEST);
    await writeFile(path, await change(await readFile(path, 'utf8')));
    await assert.rejects(readManifest(hostFiles, compute, folder), { code: 'EXPORT_DAMAGED' }, what);
  };
  const signed = (changed: object) => async () => {
    await writeManifest(hostFiles, compute, folder, { ...MANIFEST, ...changed });
    return await readFile(path, 'utf8');
  };
  await bad('changed', (text) => text.replace('"consistentFrom": 5', '"consistentFrom": 4'));
  await bad('cut', (text) => text.slice(0, -20));
  await bad('empty', () => '');
  await bad('null', () => 'null');
  await bad('too long', (text) => text + ' '.repeat(1 << 20));
  await bad('another version', signed({ version: 2 }));
  await bad('unknown field', signed({ more: 1 }));
  await bad('a path', signed({ disks: [{ ...MANIFEST.disks[0]!, fileName: '../d0.raw' }] }));
  await bad('negative', signed({ firstEpoch: -1 }));
  await rm(path);
  await symlink(folder, path);
  await assert.rejects(readManifest(hostFiles, compute, folder), { code: 'EXPORT_DAMAGED' });
  await rm(path);
});
