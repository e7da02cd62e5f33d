import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { MemoryDisk } from '../../disk/memory-disk.ts';
import { createChild } from '../../disk/images/change-image.ts';
import { createImage } from '../../disk/images/create-image.ts';
import { openDisk } from '../../disk/open-disk.ts';
import { createRawDisk, openRawDisk } from '../../disk/raw-disk.ts';
import { InThreadHasher, type LeafHasher, dataRuns } from './leaf-hasher.ts';
import { TAG_BYTES, drawKey, portableTagger } from './leaf-tags.ts';
import { DiskUnderTest, contents, noise, randomFrom } from './pair.suite.ts';
import { HASHED_ROUNDS, type PageHashing } from './page-hashes.ts';
import { DEFAULT_SHAPE, type TreeShape } from './tree-shape.ts';
import { WorkerHasher, hasherFor } from './worker-hasher.ts';

const folder = await mkdtemp(join(tmpdir(), 'understudy-hasher-'));
after(() => rm(folder, { recursive: true }));
const key = drawKey();
const tagInto = portableTagger(key);
const tagOf = (data: Uint8Array): Buffer => {
  const tag = Buffer.alloc(TAG_BYTES);
  tagInto(data, tag, 0);
  return tag;
};

const hashings: PageHashing[] = [
  { round: 0, bytes: 2 },
  { round: 1, bytes: 2 },
  { round: 0, bytes: 16 },
];

/** From the bytes alone, without extents. */
function expected(bytes: Buffer, leaf: number, shape: TreeShape): { leaf: Uint8Array; bytes: Buffer; pages: (hashing: PageHashing) => Buffer } {
  const inside = bytes.subarray(leaf * shape.leafBytes, (leaf + 1) * shape.leafBytes);
  const pages = ({ round, bytes: width }: PageHashing): Buffer => {
    const hashes = Buffer.alloc((shape.leafBytes / 4096) * width);
    for (let at = 0; at < inside.length; at += 4096) {
      const page = inside.subarray(at, at + 4096);
      hashes.set(tagOf(page).subarray(round * width, (round + 1) * width), (at / 4096) * width);
    }
    return hashes;
  };
  return { leaf: tagOf(inside), bytes: inside, pages };
}

async function check(hasher: LeafHasher, bytes: Buffer, shape: TreeShape): Promise<void> {
  const count = Math.ceil(bytes.length / shape.leafBytes);
  const all = Array.from({ length: count }, (_, leaf) => expected(bytes, leaf, shape));
  assert.deepEqual(Buffer.from(await hasher.leaves(0, count)), Buffer.concat(all.map(({ leaf }) => leaf)));
  if (count > 2) {
    const middle = await hasher.leaves(1, count - 2);
    assert.deepEqual(Buffer.from(middle), Buffer.concat(all.slice(1, -1).map(({ leaf }) => leaf)));
  }
  const picked = [...all.keys()].filter((leaf) => leaf % 3 !== 1);
  for (const hashing of hashings) {
    const right = Buffer.concat(picked.map((leaf) => all[leaf]!.pages(hashing)));
    assert.deepEqual(Buffer.from(await hasher.pages(picked, hashing)), right);
    await checkDiffering(hasher, picked.map((leaf) => all[leaf]!), { picked, right, hashing, shape });
  }
}

/** The other side has other bytes in each fifth page of what is asked. */
async function checkDiffering(
  hasher: LeafHasher, leaves: { leaf: Uint8Array; bytes: Buffer }[],
  { picked, right, hashing, shape }: { picked: number[]; right: Buffer; hashing: PageHashing; shape: TreeShape },
): Promise<void> {
  const pages = shape.leafBytes / 4096;
  const theirs = Uint8Array.from(right);
  const marked: Buffer[] = [];
  const masks = Buffer.alloc((picked.length * pages) / 8);
  for (const [index, { bytes }] of leaves.entries()) {
    for (let page = 0; page * 4096 < bytes.length; page++) {
      const at = index * pages + page;
      if (at % 5 !== 0) continue;
      theirs[at * hashing.bytes]! ^= 1;
      masks[at >> 3]! |= 1 << (at & 7);
      marked.push(bytes.subarray(page * 4096, (page + 1) * 4096));
    }
  }
  const found = await hasher.differing(picked, theirs, hashing, new ArrayBuffer(picked.length * shape.leafBytes));
  assert.deepEqual(Buffer.from(found.masks), masks);
  assert.deepEqual(Buffer.from(found.tags), Buffer.concat(leaves.map(({ leaf }) => leaf)));
  assert.deepEqual(Buffer.from(found.payload), Buffer.concat(marked));
  const whole = await hasher.differing(picked, theirs, { ...hashing, round: HASHED_ROUNDS }, new ArrayBuffer(picked.length * shape.leafBytes));
  assert.deepEqual(Buffer.from(whole.payload), Buffer.concat(leaves.map(({ bytes }) => bytes)));
}

let files = 0;
test('both hashers agree with plain tags of the bytes, whatever the holes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 31 }), fc.constantFrom(32, 128, 256), async (seed, leafKib) => {
      const shape = { leafBytes: leafKib * 1024, segmentNodes: 1 };
      const random = randomFrom(seed);
      const size = 512 * (1 + random(9000));
      const memory = new MemoryDisk(size);
      const path = join(folder, `${files++}.img`);
      const raw = await createRawDisk(path, size);
      for (let count = random(8); count > 0; count--) {
        const offset = random(size);
        const length = 1 + random(Math.min(400_000, size - offset));
        const bytes = random(4) === 0 ? Buffer.alloc(length) : Buffer.alloc(length, noise(random, 333));
        for (const disk of [memory, raw]) await disk.write(bytes, offset);
      }
      const bytes = await contents(memory);
      for (const disk of [memory, raw]) await check(new InThreadHasher(disk, { shape, key }), bytes, shape);
      const worker = new WorkerHasher(raw, { shape, key });
      await check(worker, bytes, shape);
      await worker.close();
      await raw.close();
    }),
    { numRuns: 15 },
  );
});

for (const format of ['vhd', 'vhdx'] as const) {
  const shape = { leafBytes: 256 << 10, segmentNodes: 1 };
  const size = 20 << 20;
  const open = (path: string, readOnly = false) => openDisk(path, { readOnly, format });

  test(`a ${format} is hashed on a thread, also a differencing one, and gives the tags of its bytes`, async () => {
    const random = randomFrom(7);
    const memory = new MemoryDisk(size);
    const [base, child] = [join(folder, `base.${format}`), join(folder, `child.a${format}`)];
    await createImage(base, { format, size, blockSize: 1 << 20 });
    for (const path of [base, child]) {
      if (path === child) await createChild(base, child, { blockSize: 1 << 20 });
      const disk = await open(path);
      for (let count = 40; count > 0; count--) {
        const offset = random(size);
        const length = 1 + random(Math.min(path === base ? 900_000 : 20_000, size - offset));
        if (random(4) === 0) for (const one of [memory, disk]) await one.zero(offset, length);
        else for (const [one, bytes] of [[disk, Buffer.alloc(length, noise(random, 333))]] as const) {
          await one.write(bytes, offset);
          await memory.write(bytes, offset);
        }
      }
      const hasher = await hasherFor(disk, { shape, key });
      assert.equal(hasher.constructor.name, 'WorkerHasher');
      await check(hasher, await contents(memory), shape);
      await hasher.close();
      await disk.close();
    }
  });

  test(`a ${format} that a guest writes meanwhile: no leaf is read from a room that another block has got`, async () => {
    const path = join(folder, `busy.${format}`);
    await createImage(path, { format, size, blockSize: 1 << 20 });
    const disk = await open(path);
    const block = (index: number) => Buffer.alloc(1 << 20, index + 1);
    const blocks = size >> 20;
    for (let index = 0; index < blocks; index += 2) await disk.write(block(index), index << 20);
    const hasher = await hasherFor(disk, { shape, key });
    let running = true;
    // Rooms go from the even blocks to the odd ones and back.
    const guest = (async () => {
      for (let round = 0; running; round++) {
        for (let index = 0; index < blocks; index++) {
          if (index % 2 === round % 2) await disk.zero(index << 20, 1 << 20);
          else await disk.write(block(index), index << 20);
        }
        await disk.flush();
      }
    })();
    const zeroes = tagOf(Buffer.alloc(shape.leafBytes));
    const own = Array.from({ length: blocks }, (_, index) => tagOf(Buffer.alloc(shape.leafBytes, index + 1)));
    try {
      for (let pass = 0; pass < 12; pass++) {
        const found = await hasher.leaves(0, blocks * 4);
        for (let leaf = 0; leaf < blocks * 4; leaf++) {
          const one = Buffer.from(found.subarray(leaf * TAG_BYTES, (leaf + 1) * TAG_BYTES));
          assert.ok(one.equals(zeroes) || one.equals(own[leaf >> 2]!), `pass ${pass}, leaf ${leaf} has bytes of another block`);
        }
      }
    } finally {
      running = false;
      await guest;
      await hasher.close();
      await disk.close();
    }
  });
}

test('holes are never read', async () => {
  const disk = new DiskUnderTest(new MemoryDisk(2 ** 30));
  await disk.inside.write(Buffer.from('x'), 2 ** 29);
  const shape = DEFAULT_SHAPE;
  let paced = 0;
  const hasher = new InThreadHasher(disk, { shape, key, pace: (bytes) => void (paced += bytes) });
  await hasher.leaves(0, 2 ** 30 / shape.leafBytes);
  assert.equal(disk.reads, 1);
  assert.equal(paced, shape.leafBytes);
  assert.deepEqual((await dataRuns(disk, 0, 16384, shape.leafBytes)).leaves, [[8192, 1]]);
});

test('of a leaf with holes only its data is read, also at an odd end of the disk', async () => {
  const shape = DEFAULT_SHAPE;
  const size = 2 ** 20 + 4096;
  const raw = await createRawDisk(join(folder, 'holes.img'), size);
  const bytes = Buffer.alloc(size);
  // Next to each other, at both ends of a leaf, over the border of two, alone in the last leaf; and one leaf without a hole.
  const written = [[0, 8192], [61440, 4096], [126976, 12288], [3 * 65536, 65536], [2 ** 20, 4096]] as const;
  for (const [offset, length] of written) {
    noise(randomFrom(offset + 1), length).copy(bytes, offset);
    await raw.write(bytes.subarray(offset, offset + length), offset);
  }
  let paced = 0;
  const hasher = new WorkerHasher(raw, { shape, key, pace: (count) => void (paced += count) });
  await hasher.leaves(0, Math.ceil(size / shape.leafBytes));
  assert.equal(paced, written.reduce((sum, [, length]) => sum + length, 0));
  await check(hasher, bytes, shape);
  await hasher.close();
  await raw.close();
});

test('a raw file gets a thread, and every other disk stays in this one', async () => {
  const raw = await createRawDisk(join(folder, 'thread.img'), 2 ** 20);
  const options = { shape: DEFAULT_SHAPE, key };
  const hashers = [
    await hasherFor(raw, options),
    await hasherFor(raw, { ...options, read: (into, offset) => raw.read(into, offset) }),
    await hasherFor(new MemoryDisk(2 ** 20), options),
  ];
  assert.deepEqual(
    hashers.map((hasher) => hasher.constructor.name),
    ['WorkerHasher', 'InThreadHasher', 'InThreadHasher'],
  );
  for (const hasher of hashers) await hasher.close();
  await raw.close();
});

test('a file that becomes shorter is an I/O error of the thread, not zeroes', async () => {
  const path = join(folder, 'short.img');
  const raw = await createRawDisk(path, 2 ** 20);
  await raw.write(Buffer.alloc(2 ** 20, 1), 0);
  const reopened = await openRawDisk(path, { readOnly: true, lock: false });
  const hasher = new WorkerHasher(reopened, { shape: DEFAULT_SHAPE, key });
  await hasher.leaves(0, 1);
  truncateSync(path, 2 ** 19);
  await assert.rejects(hasher.pages([8], hashings[0]!), { code: 'EIO', message: /ends at byte 524288/ });
  await hasher.close();
  await assert.rejects(hasher.pages([0], hashings[0]!), /closed/);
  await Promise.all([raw.close(), reopened.close()]);
});
