/** `disk sync --diff` with the destination on another host, and destinations that are in use: refused before anything is written. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createImage } from '../disk/images/create-image.ts';
import { mergeDiff } from '../disk/images/merge-diff.ts';
import { openDisk } from '../disk/open-disk.ts';
import { noise, randomFrom } from './compare/pair.suite.ts';
import { diskCompare, diskSync } from './disk-sync.ts';
import { imagesIn } from './raw-images.suite.ts';

const folder = await mkdtemp(join(tmpdir(), 'understudy-remote-diff-'));
after(() => rm(folder, { recursive: true }));
const clock = { monotonic: () => performance.now() };
/** The whole program in the place of ssh and of the other host. */
const rsh = `${process.execPath} ${fileURLToPath(new URL('../../test/cli/remote-shell-stand-in.ts', import.meta.url))}`;
const random = randomFrom(11);
const MIB = 2 ** 20;
const image = imagesIn(folder);

test('a push into a diff disk on the other host leaves the disk there byte for byte; merged, the two are equal', async () => {
  const [a, b] = [await image(8 * MIB, [[MIB, noise(random, 3 * MIB)]]), await image(8 * MIB, [[2 * MIB, noise(random, 9000)]])];
  const before = await readFile(b);
  const remote = `munich:${b}`;
  const options = { clock, rsh, diff: join(folder, 'pushed.diff') };
  const dry = await diskSync(a, remote, { ...options, dryRun: true });
  await assert.rejects(stat(options.diff), { code: 'ENOENT' });
  const first = await diskSync(a, remote, options);
  assert.deepEqual([dry.differingBytes, dry.sentBytes], [first.differingBytes, 0]);
  assert.equal(first.sentBytes, first.differingBytes);
  assert.ok(before.equals(await readFile(b)), 'the disk itself was written');
  assert.equal((await diskCompare(a, b, { clock, diff: options.diff })).equal, true);
  assert.equal((await diskCompare(a, b, { clock })).equal, false);
  const again = await diskSync(a, remote, options);
  assert.deepEqual([again.equal, again.sentBytes], [true, 0], 'what one run has brought is sent again');
  await mergeDiff(options.diff, b, {});
  assert.ok((await readFile(a)).equals(await readFile(b)));
});

test('over a VHDX on the other host the diff disk is a differencing image', async () => {
  const [a, base] = [await image(8 * MIB, [[MIB, noise(random, MIB)]]), join(folder, 'base.vhdx')];
  await createImage(base, { format: 'vhdx', size: 8 * MIB });
  const before = await readFile(base);
  await diskSync(a, `munich:${base}`, { clock, rsh, diff: join(folder, 'pushed') });
  assert.ok(before.equals(await readFile(base)));
  const child = await openDisk(join(folder, 'pushed.avhdx'), { readOnly: true });
  assert.equal(child.variant, 'differencing');
  await child.close();
});

test('a pull goes into a diff disk on this host, and none is made on the other', async () => {
  const [a, b] = [await image(4 * MIB, [[MIB, noise(random, MIB)]]), await image(4 * MIB, [])];
  const diff = join(folder, 'pulled.diff');
  const [remoteBefore, before] = [await readFile(a), await readFile(b)];
  const { differingBytes } = await diskSync(`munich:${a}`, b, { clock, rsh, diff });
  assert.equal(differingBytes, MIB);
  assert.ok(remoteBefore.equals(await readFile(a)) && before.equals(await readFile(b)));
  await mergeDiff(diff, b, {});
  assert.ok((await readFile(a)).equals(await readFile(b)));
});

test('refused by the other host before anything is made there: another size, a file that is no diff disk', async () => {
  const [a, small, letter] = [await image(4 * MIB, []), await image(2 * MIB, []), await image(100, [])];
  const diff = join(folder, 'refused.diff');
  const b = await image(4 * MIB, []);
  await assert.rejects(diskSync(a, `munich:${small}`, { clock, rsh, diff }), { code: 'DISK_SIZE_MISMATCH', message: /4194304.*2097152/ });
  await assert.rejects(diskSync(a, `munich:${b}`, { clock, rsh, diff: letter }), { code: 'DIFF_DISK_NAME_TAKEN' });
  await assert.rejects(stat(diff), { code: 'ENOENT' });
  assert.equal((await stat(letter)).size, 100);
});

/** Everything that a refused sync could have touched. */
async function facts(path: string): Promise<unknown[]> {
  const { mtimeNs, size, isFile } = await stat(path, { bigint: true }).then((found) => ({ ...found, isFile: found.isFile() }));
  return [mtimeNs, size, isFile ? (await readFile(path)).toString('latin1') : null];
}

/** In place and into a diff disk: each refused, and nothing is written or made. The other host's program takes a while to start. */
async function refusedAsInUse(source: string, dest: string, { alsoFromAfar = false } = {}): Promise<void> {
  const before = await facts(dest);
  const known = await readdir(folder);
  for (const place of alsoFromAfar ? [dest, `munich:${dest}`] : [dest]) {
    for (const diff of [undefined, join(folder, 'in-use.diff')]) {
      await assert.rejects(diskSync(source, place, { clock, rsh, ...(diff && { diff }) }), (error: Error & { code: string }) => {
        assert.equal(error.code, 'DISK_IN_USE', error.message);
        assert.ok(error.message.includes(dest), error.message);
        return true;
      });
    }
  }
  assert.deepEqual(await facts(dest), before);
  assert.deepEqual(await readdir(folder), known);
}

for (const [format, qemuFormat] of [['raw', 'raw'], ['vhd', 'vpc'], ['vhdx', 'vhdx']] as const) {
  test(`a ${format} destination that QEMU has open is refused`, { skip: spawnSync('qemu-io', ['--version']).status === 0 ? false : 'no qemu-io' }, async () => {
    const [a, dest] = [await image(8 * MIB, [[0, noise(random, MIB)]]), join(folder, `held-by-qemu.${format}`)];
    await createImage(dest, { format, size: 8 * MIB });
    const qemu = spawn('qemu-io', ['-f', qemuFormat, dest], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      qemu.stdin.write('length\n');
      await once(qemu.stdout, 'data');
      await refusedAsInUse(a, dest, { alsoFromAfar: format === 'raw' });
    } finally {
      qemu.stdin.end('quit\n');
      if (qemu.exitCode === null) await once(qemu, 'exit');
    }
    // Let go, it is a destination as any other.
    await diskSync(a, dest, { clock });
    assert.equal((await diskCompare(a, dest, { clock })).equal, true);
  });

  test(`a ${format} destination that a server of ours has open is refused`, async () => {
    const [a, dest] = [await image(8 * MIB, [[0, noise(random, MIB)]]), join(folder, `held-by-us.${format}`)];
    await createImage(dest, { format, size: 8 * MIB });
    // As a server opens what it serves to guests.
    const held = await openDisk(dest, { readOnly: false, format });
    await refusedAsInUse(a, dest).finally(() => held.close());
    await diskSync(a, dest, { clock });
  });
}

test('a block device that is mounted, or open in a server of ours, is refused', async (t) => {
  const dest = await image(16 * MIB, []);
  const losetup = spawnSync('losetup', ['--find', '--show', dest], { encoding: 'utf8' });
  if (losetup.status !== 0) return t.skip('no loop device');
  const device = losetup.stdout.trim();
  const mountPoint = join(folder, 'mounted');
  await mkdir(mountPoint);
  try {
    const a = await image(16 * MIB, [[0, noise(random, MIB)]]);
    const held = await openDisk(device, { readOnly: false });
    await refusedAsInUse(a, device).finally(() => held.close());
    if (spawnSync('mkfs.ext4', ['-q', device]).status !== 0 || spawnSync('mount', [device, mountPoint]).status !== 0) {
      return t.diagnostic('this user may not mount: only a device held by a server is tried');
    }
    try {
      await assert.rejects(diskSync(a, device, { clock }), { code: 'DISK_IN_USE' });
    } finally {
      spawnSync('umount', [mountPoint]);
    }
    assert.equal(spawnSync('fsck.ext4', ['-fn', device]).status, 0, 'the file system was written to');
  } finally {
    spawnSync('losetup', ['--detach', device]);
  }
});
