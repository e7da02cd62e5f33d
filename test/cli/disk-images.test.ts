/** `disk create | check | convert | resize | compact | diff | merge | chain` on real files, against QEMU and 7-Zip. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openDiffDisk } from '../../src/disk/diff-disk.ts';
import { hostFiles } from '../../src/disk/host-files.ts';
import { openDisk } from '../../src/disk/open-disk.ts';
import { missing, sevenZipDigest } from '../formats/oracle-programs.ts';
import { mustRun } from '../rig/program.ts';
import { run, type Ran } from './fake-host.ts';

const MIB = 1 << 20;
const SIZE = 40 * MIB;
const skip = missing('qemu-img', 'qemu-nbd', '7z');
const folder = mkdtempSync(join(tmpdir(), 'understudy-images-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let names = 0;
const fresh = (end: string): string => join(folder, `${(names += 1)}.${end}`);

async function done(...words: string[]): Promise<Record<string, unknown>> {
  const ran = await run([...words, '--json']);
  assert.equal(ran.code, 0, ran.stdout + ran.stderr);
  return ran.json() as Record<string, unknown>;
}

async function refused(code: string, exit: number, ...words: string[]): Promise<Ran> {
  const ran = await run(words);
  assert.match(ran.stderr, new RegExp(`^understudy: ${code}: .*\n→ `));
  assert.equal(ran.code, exit);
  return ran;
}

/** A raw disk with data, zeroes that are stored, and holes; the same every time but for `salt`. */
const CONTENT = Buffer.alloc(SIZE);
for (const at of [0, 3 * MIB + 512, 17 * MIB, SIZE - 8192]) randomBytes(8192).copy(CONTENT, at);

function source(): string {
  const path = fresh('raw');
  writeFileSync(path, '');
  truncateSync(path, SIZE);
  const file = openSync(path, 'r+');
  for (let at = 0; at < SIZE; at += MIB) if (at < 4 * MIB || at === 17 * MIB || at === SIZE - MIB) writeSync(file, CONTENT, at, MIB, at);
  return path;
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const allocated = (path: string): number => statSync(path).blocks * 512;

async function contentOf(path: string): Promise<Buffer> {
  const raw = fresh('raw');
  await done('disk', 'convert', path, raw, '--format', 'raw');
  return readFileSync(raw);
}

async function write(path: string, from: Uint8Array, at: number): Promise<void> {
  const disk = await openDisk(path, { readOnly: false });
  await disk.write(from, at);
  await disk.close();
}

const SHAPES: { name: string; end: string; words: string[]; oracle: (path: string) => Promise<string> }[] = [
  { name: 'raw', end: 'raw', words: [], oracle: async (path) => sha(readFileSync(path)) },
  { name: 'VHD, fixed', end: 'vhd', words: ['--variant', 'fixed'], oracle: (path) => qemuDigest(path, 'vpc') },
  { name: 'VHD, dynamic', end: 'vhd', words: ['--variant', 'dynamic'], oracle: (path) => qemuDigest(path, 'vpc') },
  { name: 'VHDX, fixed', end: 'vhdx', words: ['--variant', 'fixed', '--block-size', '1M'], oracle: (path) => qemuDigest(path, 'vhdx') },
  { name: 'VHDX, dynamic', end: 'vhdx', words: ['--block-size', '2M'], oracle: (path) => qemuDigest(path, 'vhdx') },
  { name: 'VHDX with sectors of 4096', end: 'vhdx', words: ['--sector-size', '4096'], oracle: (path) => sevenZipDigest(path, 'VHDX') },
  { name: 'qcow2', end: 'qcow2', words: [], oracle: (path) => qemuDigest(path, 'qcow2') },
];

async function qemuDigest(path: string, format: string): Promise<string> {
  const raw = fresh('raw');
  await mustRun('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw]);
  return sha(readFileSync(raw));
}

for (const shape of SHAPES) {
  test(`disk convert: raw to ${shape.name}, as others read it, back, and on to every other format`, { skip }, async () => {
    const path = fresh(shape.end);
    const result = await done('disk', 'convert', source(), path, ...shape.words);
    assert.deepEqual([result['virtualSize'], typeof result['seconds']], [SIZE, 'number']);
    assert.equal(await shape.oracle(path), sha(CONTENT));
    if (!shape.name.includes('fixed')) assert.ok(allocated(path) < 12 * MIB, `${allocated(path)} bytes: holes stay holes`);
    for (const end of ['raw', 'vhd', 'vhdx', 'qcow2']) {
      const next = fresh(end);
      await done('disk', 'convert', path, next);
      const back = await contentOf(next);
      assert.equal(sha(back), sha(CONTENT), `${shape.name} to ${end}`);
    }
    await refused('DISK_EXISTS', 2, 'disk', 'convert', source(), path);
    assert.deepEqual(readdirSync(folder).filter((name) => name.includes('partial')), []);
  });
}

test('a converted VHDX keeps its sector size, a converted VHD its geometry', async () => {
  const [vhdx, copy] = [fresh('vhdx'), fresh('vhdx')];
  await done('disk', 'create', vhdx, '--size', '8M', '--sector-size', '4096');
  await done('disk', 'convert', vhdx, copy);
  assert.equal((await done('disk', 'info', copy))['logicalSectorSize'], 4096);
});

test('disk create makes what disk info shows, and refuses what a format cannot be', { skip }, async () => {
  for (const [end, variant] of [['raw', 'fixed'], ['vhd', 'dynamic'], ['vhdx', 'dynamic'], ['qcow2', 'dynamic']]) {
    const path = fresh(end!);
    const made = await done('disk', 'create', path, '--size', '10M');
    const info = await done('disk', 'info', path);
    for (const facts of [made, info]) {
      assert.deepEqual([facts['format'], facts['variant'], facts['virtualSize'], facts['parent'], facts['dirtyLog']], [end, variant, 10 * MIB, null, false]);
    }
    await refused('DISK_EXISTS', 2, 'disk', 'create', path, '--size', '10M');
  }
  await refused('DISK_SIZE_REFUSED', 2, 'disk', 'create', fresh('vhd'), '--size', '3T');
  await refused('DISK_SIZE_REFUSED', 2, 'disk', 'create', fresh('vhdx'), '--size', '10M', '--block-size', '3M');
  await refused('IMAGE_OPTION_REFUSED', 2, 'disk', 'create', fresh('raw'), '--size', '10M', '--variant', 'fixed');
  await refused('IMAGE_OPTION_REFUSED', 2, 'disk', 'create', fresh('vhd'), '--size', '10M', '--sector-size', '4096');
});

for (const [end, child] of [['vhd', 'avhd'], ['vhdx', 'avhdx'], ['raw', 'qcow2'], ['qcow2', 'qcow2']]) {
  test(`disk diff, chain and merge of a ${end}`, { skip }, async () => {
    const [base, leaf] = [fresh(end!), fresh(child!)];
    await done('disk', 'convert', source(), base);
    assert.equal((await done('disk', 'diff', base, leaf))['parent'], base);
    const changed = Buffer.from(CONTENT);
    const data = randomBytes(5000);
    data.copy(changed, 17 * MIB + 100);
    if (child === 'qcow2') {
      const from = fresh('raw');
      writeFileSync(from, data);
      await mustRun('qemu-io', ['-f', 'qcow2', '-c', `write -s ${from} ${17 * MIB + 100} ${data.length}`, leaf]);
    } else await write(leaf, data, 17 * MIB + 100);
    const links = (await done('disk', 'chain', leaf)) as unknown as { path: string; variant: string; identity: string; parentIdentity: string }[];
    assert.deepEqual(links.map(({ path }) => path), [leaf, base]);
    if (child !== 'qcow2') assert.equal(links[0]!.parentIdentity, links[1]!.identity);
    assert.equal(sha(await contentOf(leaf)), sha(changed));
    assert.equal(sha(await contentOf(base)), sha(CONTENT));
    if (child !== 'qcow2') {
      await refused('DISK_HAS_CHILDREN', 3, 'disk', 'resize', base, '80M');
      const second = fresh(child!);
      await done('disk', 'diff', base, second);
      await refused('DISK_HAS_CHILDREN', 3, 'disk', 'merge', leaf);
      rmSync(second);
    }
    assert.equal((await done('disk', 'merge', leaf))['parent'], base);
    assert.ok(!readdirSync(folder).includes(leaf.slice(folder.length + 1)));
    assert.equal(sha(await contentOf(base)), sha(changed));
    await refused('DISK_NOT_DIFFERENCING', 2, 'disk', 'merge', base);
  });
}

for (const end of ['raw', 'vhd', 'vhdx', 'qcow2']) {
  test(`disk resize, compact and check of a ${end}`, { skip }, async () => {
    const path = fresh(end);
    await done('disk', 'convert', source(), path, ...(end === 'vhdx' ? ['--block-size', '2M'] : []));
    assert.equal((await done('disk', 'resize', path, '60M'))['virtualSize'], 60 * MIB);
    await refused('DISK_SHRINK_REFUSED', 2, 'disk', 'resize', path, '20M');
    if (end === 'qcow2') await refused('DISK_NOT_SUPPORTED', 2, 'disk', 'compact', path);
    else {
      const disk = await openDisk(path, { readOnly: false });
      await disk.write(Buffer.alloc(4 * MIB), 0);
      await disk.close();
      const before = allocated(path);
      const result = await done('disk', 'compact', path);
      assert.ok(allocated(path) < before, `${allocated(path)} after, ${before} before`);
      assert.ok((result['afterBytes'] as number) <= (result['beforeBytes'] as number));
    }
    assert.deepEqual(await done('disk', 'check', path), { ok: true, findings: [] });
    const grown = await contentOf(path);
    const expected = Buffer.alloc(60 * MIB);
    CONTENT.copy(expected);
    if (end !== 'qcow2') expected.fill(0, 0, 4 * MIB);
    assert.equal(sha(grown), sha(expected));
  });
}

test('disk check finds damage, says no, and mends it', async () => {
  for (const [end, at] of [['vhd', null], ['vhdx', 64 << 10]] as const) {
    const path = fresh(end);
    await done('disk', 'convert', source(), path);
    if (at === null) truncateSync(path, statSync(path).size - 512);
    else writeSync(openSync(path, 'r+'), Buffer.alloc(4096, 7), 0, 4096, at);
    const found = await run(['disk', 'check', path, '--json']);
    assert.equal(found.code, 1);
    assert.equal((found.json() as { ok: boolean }).ok, false);
    const mended = (await done('disk', 'check', path, '--repair')) as { ok: boolean; findings: { severity: string }[] };
    assert.ok(mended.ok && mended.findings.every(({ severity }) => severity === 'repaired'));
    assert.equal(sha(await contentOf(path)), sha(CONTENT));
  }
});

test('an image that a program has open is left alone', async () => {
  const path = fresh('vhdx');
  await done('disk', 'create', path, '--size', '8M');
  const disk = await openDisk(path, { readOnly: false });
  for (const words of [['resize', path, '16M'], ['compact', path], ['check', path]]) await refused('DISK_IN_USE', 3, 'disk', ...words);
  await disk.close();
});

test('Ctrl-C leaves no copy, a compacted disk with the same contents, and a merge that can be finished', { skip }, async () => {
  for (const end of ['raw', 'vhdx', 'qcow2']) {
    const dest = fresh(end);
    await interrupted('disk', 'convert', source(), dest, '--format', end);
    assert.deepEqual(readdirSync(folder).filter((name) => join(folder, name).startsWith(dest)), []);
  }
  for (const [end, child] of [['vhd', 'avhd'], ['vhdx', 'avhdx']] as const) {
    const [base, leaf] = [fresh(end), fresh(child)];
    await done('disk', 'convert', source(), base);
    await interrupted('disk', 'compact', base);
    assert.deepEqual(await done('disk', 'check', base), { ok: true, findings: [] });
    await done('disk', 'diff', base, leaf);
    const changed = Buffer.from(CONTENT);
    for (let at = 0; at < SIZE; at += 4 * MIB) {
      await write(leaf, randomBytes(MIB).fill(at / MIB + 1), at);
      changed.fill(at / MIB + 1, at, at + MIB);
    }
    await interrupted('disk', 'merge', leaf);
    assert.equal(sha(await contentOf(leaf)), sha(changed), 'child over parent');
    await done('disk', 'merge', leaf);
    assert.equal(sha(await contentOf(base)), sha(changed));
  }
});

async function interrupted(...words: string[]): Promise<void> {
  const ctrlC = new AbortController();
  const ran = await run(words, { signal: ctrlC.signal, onStderr: () => ctrlC.abort() });
  assert.equal(ran.code, 130, ran.stderr);
  assert.match(ran.stderr, /INTERRUPTED/);
}

for (const [end, child] of [['raw', 'qcow2'], ['vhd', 'avhd'], ['vhdx', 'avhdx']] as const) {
  test(`the diff disk of a failover over a ${end} replica becomes a differencing image (${child})`, { skip }, async () => {
    const [base, overlay] = [fresh(end), fresh(child)];
    await done('disk', 'convert', source(), base);
    const untouched = sha(readFileSync(base));
    const diff = await openDiffDisk(hostFiles, `${base}.failover.diff`, await openDisk(base, { readOnly: true, lock: false }));
    const changed = Buffer.from(CONTENT);
    const put = async (bytes: Buffer, at: number) => {
      await diff.write(bytes, at);
      bytes.copy(changed, at);
    };
    await put(randomBytes(10_000), 5 * MIB + 77);
    await put(Buffer.alloc(MIB), 17 * MIB);
    await diff.flush();
    await diff.close();
    const info = await done('disk', 'diff', base, overlay, '--from', `${base}.failover.diff`);
    assert.deepEqual([info['format'], info['variant'], info['parent']], [child.replace(/^a/, ''), 'differencing', base]);
    assert.equal(sha(readFileSync(base)), untouched, 'the base is untouched');
    assert.equal(child === 'qcow2' ? await qemuDigest(overlay, 'qcow2') : sha(await contentOf(overlay)), sha(changed));
    assert.ok(allocated(overlay) < 8 * MIB, 'only what the diff disk holds');
    await refused('DIFF_DISK_NOT_FOUND', 2, 'disk', 'diff', base, fresh(child), '--from', base);
    if (child === 'qcow2') return;
    assert.equal((await done('disk', 'merge', overlay))['parent'], base);
    assert.equal(sha(await contentOf(base)), sha(changed));
  });
}

test('what a guest makes its raw disk look like is not believed, and a backing file stays inside the folder', { skip }, async () => {
  const looks = fresh('raw');
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', looks, '8M']);
  truncateSync(looks, MIB);
  await refused('DISK_FORMAT_UNCLEAR', 2, 'disk', 'convert', looks, fresh('vhdx'));
  const copy = fresh('vhdx');
  assert.equal((await done('disk', 'convert', looks, copy, '--from', 'raw'))['virtualSize'], statSync(looks).size);

  const outside = fresh('qcow2');
  await mustRun('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', '/etc/hostname', '-F', 'raw', outside, '8M']);
  await refused('DISK_PARENT_OUTSIDE', 2, 'disk', 'convert', outside, fresh('raw'));
  assert.equal((await done('disk', 'info', outside))['parent'], '/etc/hostname');
  for (const backing of ['nbd://localhost/x', 'json:{"driver":"file","filename":"/etc/hostname"}']) {
    const path = fresh('qcow2');
    await mustRun('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', 'raw', path, '8M']);
    await refused('DISK_NOT_FOR_QEMU', 3, 'disk', 'convert', path, fresh('raw'));
  }
  for (const [base, child] of [['base.vhd', 'a.avhd'], ['base.vhdx', 'a.avhdx']] as const) {
    const [parent, inner] = [join(folder, base), join(folder, 'inner')];
    mkdirSync(inner, { recursive: true });
    await done('disk', 'create', parent, '--size', '8M');
    await refused('DISK_PARENT_OUTSIDE', 2, 'disk', 'diff', parent, join(inner, child));
    await done('disk', 'diff', parent, join(inner, child), '--allow-parent-outside');
    for (const word of ['info', 'chain', 'merge']) await refused('DISK_PARENT_OUTSIDE', 2, 'disk', word, join(inner, child));
    assert.equal((await done('disk', 'info', join(inner, child), '--allow-parent-outside'))['parent'], parent);
  }

  const unnamed = fresh('qcow2');
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', unnamed, '8M']);
  const file = openSync(unnamed, 'r+');
  writeSync(file, 'a.raw', 4096);
  const header = Buffer.alloc(12);
  header.writeBigUInt64BE(4096n);
  header.writeUInt32BE(5, 8);
  writeSync(file, header, 0, 12, 8);
  await refused('DISK_NOT_FOR_QEMU', 3, 'disk', 'convert', unnamed, fresh('raw'));

  const child = fresh('qcow2');
  const [base, leaf] = [fresh('vhd'), fresh('avhd')];
  await done('disk', 'create', base, '--size', '8M');
  await done('disk', 'diff', base, leaf);
  await mustRun('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', leaf, '-F', 'vpc', child, '8M']);
  await refused('DISK_NOT_FOR_QEMU', 3, 'disk', 'convert', child, fresh('raw'));
});
