/** `disk sync --diff`: the disk stays as it is, what differs lies over it, and what one run has fetched the next one need not. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createImage } from '../disk/images/create-image.ts';
import { mergeDiff } from '../disk/images/merge-diff.ts';
import { openDisk } from '../disk/open-disk.ts';
import { noise, randomFrom } from './compare/pair.suite.ts';
import { diskCompare, diskSync } from './disk-sync.ts';
import { imagesIn } from './raw-images.suite.ts';

const folder = await mkdtemp(join(tmpdir(), 'understudy-diff-'));
after(() => rm(folder, { recursive: true }));
const clock = { monotonic: () => performance.now() };
const random = randomFrom(7);
const MIB = 2 ** 20;
const image = imagesIn(folder);

test('a sync into a diff disk leaves the disk byte for byte; over it is the source; merged, the two are equal', async () => {
  const [a, b] = [await image(8 * MIB, [[MIB, noise(random, 3 * MIB)]]), await image(8 * MIB, [[2 * MIB, noise(random, 9000)]])];
  const before = await readFile(b);
  const diff = join(folder, 'first.diff');
  const first = await diskSync(a, b, { clock, diff });
  assert.ok(first.differingBytes >= 3 * MIB - 8192 && !first.equal);
  assert.ok(before.equals(await readFile(b)));
  assert.equal((await diskCompare(a, b, { clock, diff })).equal, true);
  assert.equal((await diskCompare(a, b, { clock })).equal, false);
  const again = await diskSync(a, b, { clock, diff });
  assert.deepEqual([again.equal, again.sentBytes], [true, 0]);
  await mergeDiff(diff, b, {});
  assert.ok((await readFile(a)).equals(await readFile(b)));
  for (const end of ['', '.map']) await assert.rejects(stat(`${diff}${end}`), { code: 'ENOENT' });
});

test('over a VHDX the diff disk is a differencing image with its ending, also when the user has written it', async () => {
  const a = await image(8 * MIB, [[MIB, noise(random, MIB)]]);
  const base = join(folder, 'base.vhdx');
  await createImage(base, { format: 'vhdx', size: 8 * MIB });
  const before = await readFile(base);
  for (const diff of ['over', 'over.avhdx']) await diskSync(a, base, { clock, diff: join(folder, diff) });
  assert.ok(before.equals(await readFile(base)));
  const child = await openDisk(join(folder, 'over.avhdx'), { readOnly: true });
  assert.equal(child.variant, 'differencing');
  const seen = Buffer.alloc(MIB);
  await child.read(seen, MIB);
  await child.close();
  assert.ok(seen.equals((await readFile(a)).subarray(MIB, 2 * MIB)));
});

test('a dry run with a diff disk makes none, and tells what would be sent', async () => {
  const [a, b] = [await image(4 * MIB, [[0, noise(random, MIB)]]), await image(4 * MIB, [])];
  const diff = join(folder, 'never.diff');
  const { differingBytes, sentBytes, wouldSendBytes = 0 } = await diskSync(a, b, { clock, diff, dryRun: true });
  assert.deepEqual([differingBytes, sentBytes], [MIB, 0]);
  const { wireBytes } = await diskSync(a, b, { clock, dryRun: false });
  assert.ok(wouldSendBytes >= wireBytes && wouldSendBytes < wireBytes * 1.1, `${wouldSendBytes} told, ${wireBytes} used`);
  await assert.rejects(stat(diff), { code: 'ENOENT' });
});

test('refused before anything is made: another size, no disk below, a file that is no diff disk, a diff disk in use', async () => {
  const [a, small] = [await image(4 * MIB, []), await image(2 * MIB, [])];
  const diff = join(folder, 'refused.diff');
  await assert.rejects(diskSync(a, small, { clock, diff }), { code: 'DISK_SIZE_MISMATCH', message: /4194304.*2097152/ });
  await assert.rejects(diskSync(a, join(folder, 'nothing.raw'), { clock, diff }), { code: 'DISK_NOT_FOUND' });
  await assert.rejects(stat(diff), { code: 'ENOENT' });
  const b = await image(4 * MIB, []);
  const letter = join(folder, 'letter.txt');
  await writeFile(letter, 'dear reader');
  for (const taken of [letter, a, b]) {
    const before = await readFile(taken);
    await assert.rejects(diskSync(a, b, { clock, diff: taken }), { code: taken === letter ? 'DIFF_DISK_NAME_TAKEN' : /DIFF_DISK_NAME_TAKEN|DISK_IN_USE/ });
    assert.ok(before.equals(await readFile(taken)));
  }
  await diskSync(a, b, { clock, diff });
  const other = await openDisk(diff, { readOnly: false, format: 'raw' });
  await assert.rejects(diskSync(a, b, { clock, diff }), { code: 'DISK_IN_USE' });
  await assert.rejects(mergeDiff(diff, b, {}), { code: 'DISK_IN_USE' });
  await other.close();
});

const PROGRAM = `
  import { diskSync } from ${JSON.stringify(new URL('./disk-sync.ts', import.meta.url).href)};
  const [a, b, diff] = process.argv.slice(2);
  const options = { clock: { monotonic: () => performance.now() }, checkpointBytes: { compared: 2 ** 40, mended: 2 ** 20 } };
  await diskSync(a, b, { ...options, ...(diff && { diff }), onProgress: ({ comparedBytes }) => console.log(comparedBytes) });
`;

for (const diff of [undefined, join(folder, 'killed.diff')]) {
  test(`killed in the middle and run again, a sync ${diff === undefined ? 'in place' : 'into a diff disk'} ends equal and sends only the rest`, async () => {
    const size = 64 * MIB;
    const [a, b] = [await image(size, [[0, noise(random, size)]]), await image(size, [])];
    const program = join(folder, 'killed.mjs');
    await writeFile(program, PROGRAM);
    const run = spawn(process.execPath, [program, a, b, ...(diff === undefined ? [] : [diff])], { stdio: ['ignore', 'pipe', 'inherit'] });
    run.stdout.setEncoding('latin1').on('data', (text: string) => {
      const proven = Number(text.trim().split('\n').at(-1)) > 8 * MIB;
      // What a diff disk holds counts once its map says so.
      if (proven && (diff === undefined || readFileSync(`${diff}.map`).subarray(4096).some((bits) => bits !== 0))) run.kill('SIGKILL');
    });
    const [, signal] = (await once(run, 'exit')) as [number | null, string | null];
    assert.equal(signal, 'SIGKILL');
    const rest = await diskSync(a, b, { clock, ...(diff !== undefined && { diff }) });
    assert.ok(rest.sentBytes < size, `${rest.sentBytes} of ${size} sent again`);
    assert.equal((await diskCompare(a, b, { clock, ...(diff !== undefined && { diff }) })).equal, true);
  });
}

test('a local sync ends at Ctrl-C, and everything that had arrived in the diff disk counts', async () => {
  const size = 32 * MIB;
  const [a, b] = [await image(size, [[0, noise(random, size)]]), await image(size, [])];
  const diff = join(folder, 'interrupted.diff');
  const stop = new AbortController();
  const run = diskSync(a, b, { clock, diff, signal: stop.signal, onProgress: ({ comparedBytes }) => {
    if (comparedBytes >= 8 * MIB) stop.abort(new Error('Ctrl-C'));
  } });
  await assert.rejects(run, /Ctrl-C/);
  const rest = await diskSync(a, b, { clock, diff });
  assert.ok(rest.sentBytes <= size - 8 * MIB, `${rest.sentBytes} sent again`);
});
