import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { HEADER_BYTES as VHD_HEADER_BYTES } from '../../src/disk/vhd/dynamic-header.ts';
import { FOOTER_BYTES, vhdChecksum } from '../../src/disk/vhd/footer.ts';
import { crc32c } from '../../src/disk/vhdx/crc32c.ts';
import { CrashFiles } from './crash-files.ts';
import type { SparseBytes } from './crash-files.ts';
import { crashModes, snapshotOf } from './crash-run.ts';
import { exercise } from './exercise.ts';
import { families } from './families.ts';
import type { Family } from './families.ts';
import { LONG, SEED, Seeded } from './seeded.ts';

/**
 * Images with wrong bytes in their structures: refused with a reason, or read within bounds. Checksums are made right
 * again most of the time, so that the code behind them is reached.
 */

const MIB = 1 << 20;
const IMAGES = LONG ? 10_000 : 1_000;

interface Victim {
  family: Family;
  path: string;
  files: CrashFiles;
  /** Where structures are, and how to make their checksums right. */
  targets: { start: number; length: number }[];
  seal: (content: SparseBytes) => void;
}

function vhdVictim(family: Family, path: string, files: CrashFiles): Victim {
  const { size } = files.contents.get(path)!;
  const seal = (content: SparseBytes) => {
    for (const [at, length, checksumAt] of [
      [0, FOOTER_BYTES, 64],
      [512, VHD_HEADER_BYTES, 36],
      [size - 512, FOOTER_BYTES, 64],
    ] as const) {
      const bytes = Buffer.alloc(length);
      content.read(bytes, at);
      bytes.writeUInt32BE(vhdChecksum(bytes, checksumAt), checksumAt);
      content.write(bytes, at);
    }
  };
  const targets = [
    { start: 0, length: 512 },
    { start: size - 512, length: 90 },
    { start: 512, length: 60 },
    { start: 512, length: 1024 },
    { start: 1536, length: 1024 },
  ];
  return { family, path, files, targets, seal };
}

function vhdxVictim(family: Family, path: string, files: CrashFiles): Victim {
  const seal = (content: SparseBytes) => {
    for (const [at, length] of [
      [64 << 10, 4096],
      [128 << 10, 4096],
      [192 << 10, 65536],
      [256 << 10, 65536],
    ] as const) {
      const bytes = Buffer.alloc(length);
      content.read(bytes, at);
      bytes.writeUInt32LE(crc32c(bytes, 4), 4);
      content.write(bytes, at);
    }
    const entry = Buffer.alloc(4096);
    for (let at = MIB; at < MIB + 64 * 4096; at += 4096) {
      content.read(entry, at);
      const length = entry.readUInt32LE(8);
      if (entry.toString('latin1', 0, 4) !== 'loge' || length % 4096 !== 0 || length > MIB) continue;
      const whole = Buffer.alloc(length);
      content.read(whole, at);
      if (length > 0) content.write(Buffer.from(new Uint32Array([crc32c(whole, 4)]).buffer), at + 4);
    }
  };
  const targets = [
    { start: 64 << 10, length: 80 },
    { start: 128 << 10, length: 80 },
    { start: 192 << 10, length: 80 },
    { start: 256 << 10, length: 80 },
    { start: MIB, length: 256 },
    { start: MIB, length: 16384 },
    { start: 2 * MIB, length: 256 },
    { start: 2 * MIB + 65536, length: 64 },
    { start: 2 * MIB + 65536 + 4096, length: 400 },
    { start: 3 * MIB, length: 64 },
  ];
  return { family, path, files, targets, seal };
}

/** A base, a child over it, and (VHDX) a base that lost power with a log to replay. */
async function victims(random: Seeded): Promise<Victim[]> {
  const found: Victim[] = [];
  for (const family of families(random)) {
    const files = new CrashFiles();
    await family.create(files, family.path(0), 'dynamic', 3 * MIB);
    const fill = async (path: string) => {
      const disk = await family.open(files, path, { readOnly: false });
      await exercise(disk, Buffer.alloc(3 * MIB), random, 15, { lengthMax: 40_000 });
      await disk.flush();
      return disk;
    };
    const make = family.name === 'VHD' ? vhdVictim : vhdxVictim;
    const before = snapshotOf(files);
    files.trace.length = 0;
    await fill(family.path(0));
    const dirty = [...files.crashes(before, [crashModes(random)[0]!])].at(-1)!.files;
    found.push(make(family, family.path(0), dirty));
    await (await fill(family.path(0))).close();
    await family.createChild(files, family.path(1), family.path(0));
    await (await fill(family.path(1))).close();
    files.recording = false;
    found.push(make(family, family.path(1), files));
  }
  return found;
}

const HOSTILE = [0, 1, 0x7f, 0x80, 0xff];

function mutate(content: SparseBytes, victim: Victim, random: Seeded): void {
  const { start, length } = random.pick(victim.targets);
  for (let count = random.integer(1, 4); count > 0; count--) {
    const at = start + random.integer(0, length - 1);
    const width = random.pick([1, 1, 2, 4, 8]);
    content.write(
      new Uint8Array(width).map(() => random.pick([random.pick(HOSTILE), random.integer(0, 255)])),
      Math.min(at, content.size - width),
    );
  }
  if (random.next() < 0.1) content.truncate(random.integer(0, content.size));
  else if (random.next() < 0.9) victim.seal(content);
}

/** Reads some of it, and a little of every kind of run. */
async function look(family: Family, files: CrashFiles, path: string): Promise<void> {
  const disk = await family.open(files, path, { readOnly: true });
  try {
    for (const offset of [0, MIB - 5, Math.max(0, disk.virtualSize - 70_000)]) {
      if (offset < disk.virtualSize) await disk.read(Buffer.alloc(Math.min(70_000, disk.virtualSize - offset)), offset);
    }
    let count = 0;
    for await (const extent of disk.extents(0, Math.min(disk.virtualSize, 64 * MIB))) {
      assert.ok(extent.length > 0);
      if ((count += 1) > 1000) break;
    }
  } finally {
    await disk.close();
  }
}

async function touch(family: Family, files: CrashFiles, path: string): Promise<void> {
  const disk = await family.open(files, path, { readOnly: false });
  try {
    await disk.write(Buffer.alloc(5000, 9), 300_000);
    await disk.zero(0, Math.min(disk.virtualSize, 2 * MIB));
    await disk.flush();
  } finally {
    await disk.close();
  }
}

/** Refusals say why; errors of reads and writes carry an errno. Anything else is a defect. */
function assertReasoned(error: unknown, what: string): void {
  if (error instanceof UnderstudyError) {
    assert.match(error.code, /^DISK_/, what);
    assert.ok(error.message.length > 10 && error.remedy.length > 10, what);
    return;
  }
  const code = (error as { code?: unknown }).code;
  const errno = error instanceof Error && typeof code === 'string' && /^E[A-Z]+$/.test(code);
  if (!errno && !(error instanceof RangeError && /is outside of/.test(error.message)))
    throw new Error(`${what}: ${String(error)}`, { cause: error });
}

test(`${IMAGES} mutated images are refused with a reason or read within bounds (SEED=${SEED})`, async () => {
  const random = new Seeded(SEED);
  const sources = await victims(random);
  const memoryBefore = process.memoryUsage().rss;
  let [refused, accepted] = [0, 0];
  for (let image = 0; image < IMAGES; image++) {
    const victim = sources[image % sources.length]!;
    const files = new CrashFiles();
    files.recording = false;
    for (const [path, content] of victim.files.contents) files.contents.set(path, content.copy());
    mutate(files.contents.get(victim.path)!, victim, random);
    const started = performance.now();
    const what = `image ${image}, ${victim.family.name}, ${victim.path}`;
    try {
      await look(victim.family, files, victim.path);
      accepted += 1;
    } catch (error) {
      refused += 1;
      assertReasoned(error, what);
    }
    const checked = await victim.family.check(files, victim.path, { repair: image % 2 === 0 });
    assert.ok(
      checked.findings.every((finding) => finding.what.length > 5),
      what,
    );
    await touch(victim.family, files, victim.path).catch((error: unknown) => assertReasoned(error, `${what}, written`));
    assert.ok(performance.now() - started < 20_000, `${what} took too long`);
  }
  assert.ok(refused > IMAGES / 5 && accepted > IMAGES / 20, `${refused} refused, ${accepted} accepted`);
  assert.ok(process.memoryUsage().rss - memoryBefore < 500 * MIB, 'memory stays bounded');
});
