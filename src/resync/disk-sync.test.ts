import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, test } from 'node:test';
import { randomFrom, noise } from './compare/pair.suite.ts';
import { parsePlace, remoteCommandLine } from './compare/remote-shell.ts';
import { diskCompare, diskSync, serveStdio } from './disk-sync.ts';
import { imagesIn } from './raw-images.suite.ts';

const folder = await mkdtemp(join(tmpdir(), 'understudy-sync-'));
after(() => rm(folder, { recursive: true }));
const clock = { monotonic: () => performance.now() };
const random = randomFrom(42);
const image = imagesIn(folder, (number) => `disk ${number}.img`);

/**
 * Stands for ssh: passes the words after the host through a shell, as sshd does, where `understudy` is this program.
 * The child runs the module itself, since the command line is another part.
 */
async function fakeShell(): Promise<string> {
  const program = join(folder, 'understudy');
  const module = new URL('./disk-sync.ts', import.meta.url).href;
  const serve = join(folder, 'serve.mjs');
  await writeFile(
    serve,
    `process.stdout.isTTY; // The command line looks at it too.
     import { serveStdio, asyncStdout } from ${JSON.stringify(module)};
     const failed = (error) => { console.error(error.message); process.exit(5); };
     await serveStdio(process.stdin, asyncStdout(), process.argv[2]).catch(failed);
     process.exit(0);`,
  );
  await writeFile(
    program,
    ['#!/bin/sh', '[ "$1 $2 $3" = "disk serve --stdio" ] || exit 2', `exec '${process.execPath}' '${serve}' "$4"`].join(
      '\n',
    ),
  );
  const shell = join(folder, 'rsh');
  await writeFile(
    shell,
    `#!/bin/sh\n[ "$1" = somewhere ] || exit 255\nshift\nPATH='${folder}':$PATH exec sh -c "$*"\n`,
  );
  await Promise.all([chmod(program, 0o755), chmod(shell, 0o755)]);
  return shell;
}

const rsh = await fakeShell();
const SIZE = 5 * 2 ** 20 + 512;
const data = [
  [100_000, noise(random, 300_000)],
  [4 * 2 ** 20, noise(random, 70_000)],
] as const;

test('two local images are compared to the byte, and equal ones are called equal', async () => {
  const a = await image(SIZE, data);
  const b = await image(SIZE, [...data, [200_001, Buffer.from([1, 2, 3])]]);
  const different = await diskCompare(a, b, { clock });
  const { seconds, ...rest } = different;
  assert.deepEqual(rest, { equal: false, comparedBytes: SIZE, differingBytes: 4096, firstDifference: 200_001 });
  assert.ok(seconds > 0);
  const same = await diskCompare(a, a, { clock });
  assert.deepEqual([same.equal, same.firstDifference], [true, null]);
});

test('a sync makes the images equal, says what was different, and finds nothing the second time', async () => {
  const [a, b] = [await image(SIZE, data), await image(SIZE, [[4 * 2 ** 20, noise(random, 70_000)]])];
  const first = await diskSync(a, b, { clock });
  assert.equal(first.equal, false);
  assert.ok(first.wireBytes > 0 && first.sentBytes >= first.differingBytes);
  assert.ok((await readFile(a)).equals(await readFile(b)));
  const second = await diskSync(a, b, { clock });
  assert.deepEqual([second.equal, second.differingBytes, second.sentBytes], [true, 0, 0]);
});

test('a dry run writes nothing and creates nothing', async () => {
  const [a, b] = [await image(SIZE, data), await image(SIZE, [])];
  const before = await readFile(b);
  const result = await diskSync(a, b, { clock, dryRun: true });
  assert.ok(result.differingBytes > 300_000 && result.sentBytes === 0);
  assert.ok(before.equals(await readFile(b)));
  const missing = join(folder, 'not yet.img');
  assert.equal((await diskSync(a, missing, { clock, dryRun: true })).differingBytes, result.differingBytes);
  await assert.rejects(stat(missing), { code: 'ENOENT' });
});

test('a missing target is created sparse', async () => {
  const a = await image(64 * 2 ** 20, data);
  const b = join(folder, 'created.img');
  await diskSync(a, b, { clock });
  assert.ok((await readFile(a)).equals(await readFile(b)));
  const { size, blocks } = await stat(b);
  assert.equal(size, 64 * 2 ** 20);
  assert.ok(blocks * 512 < 2 ** 20, `${blocks * 512} bytes allocated`);
});

test('disks of different sizes, missing ones and the same one twice are bad input', async () => {
  const [a, b] = [await image(SIZE, []), await image(SIZE + 512, [])];
  await assert.rejects(diskCompare(a, b, { clock }), { code: 'DISK_SIZE_MISMATCH', kind: 'usage' });
  await assert.rejects(diskCompare(a, join(folder, 'nothing'), { clock }), { code: 'DISK_NOT_FOUND' });
  await assert.rejects(diskSync(join(folder, 'nothing'), a, { clock }), { code: 'DISK_NOT_FOUND' });
  await assert.rejects(diskSync(a, a, { clock }), { code: 'DISK_SAME' });
  await assert.rejects(diskSync('x:/a', 'y:/b', { clock }), { code: 'BOTH_DISKS_REMOTE' });
});

test('through a remote shell a disk is pushed, pulled, created and compared, with spaces in its name', async () => {
  const options = { clock, rsh };
  const a = await image(SIZE, data);
  const pushed = join(folder, "it's pushed.img");
  const push = await diskSync(a, `somewhere:${pushed}`, options);
  assert.ok((await readFile(a)).equals(await readFile(pushed)));
  assert.equal(push.equal, false);
  const again = await diskSync(a, `somewhere:${pushed}`, options);
  assert.deepEqual([again.equal, again.sentBytes], [true, 0]);
  assert.ok(again.wireBytes < 2048, `${again.wireBytes} bytes`);
  const pulled = join(folder, 'pulled.img');
  const pull = await diskSync(`somewhere:${pushed}`, pulled, options);
  assert.ok((await readFile(a)).equals(await readFile(pulled)));
  assert.equal(pull.differingBytes, push.differingBytes);
  const other = await image(SIZE, [...data, [SIZE - 1, Buffer.from([9])]]);
  for (const [from, to] of [
    [other, `somewhere:${pushed}`],
    [`somewhere:${pushed}`, other],
  ] as const) {
    const { firstDifference, differingBytes } = await diskCompare(from, to, options);
    assert.deepEqual([firstDifference, differingBytes], [SIZE - 1, 4096]);
  }
});

test('more than a pipe holds is pulled and pushed', async () => {
  const options = { clock, rsh };
  const a = await image(24 * 2 ** 20, [[2 ** 20, randomBytes(20 * 2 ** 20)]]);
  const [pulled, pushed] = [join(folder, 'large-pulled.img'), join(folder, 'large-pushed.img')];
  await diskSync(`somewhere:${a}`, pulled, options);
  await diskSync(a, `somewhere:${pushed}`, options);
  for (const copy of [pulled, pushed]) assert.ok((await readFile(a)).equals(await readFile(copy)));
});

test('what the other host refuses, and what its shell says, reaches the user', async () => {
  const a = await image(SIZE, data);
  const options = { clock, rsh };
  await assert.rejects(diskCompare(a, `somewhere:${folder}/nothing`, options), { code: 'DISK_NOT_FOUND' });
  await assert.rejects(diskSync(`somewhere:${folder}/nothing`, a, options), { code: 'DISK_NOT_FOUND' });
  const larger = await image(SIZE + 4096, []);
  await assert.rejects(diskSync(a, `somewhere:${larger}`, options), { code: 'DISK_SIZE_MISMATCH' });
  await assert.rejects(diskSync(a, 'elsewhere:/x', options), { code: 'REMOTE_SHELL_FAILED', message: /status 255/ });
  const unknown = { clock, rsh: '/nonexistent/ssh' };
  await assert.rejects(diskSync(a, 'somewhere:/x', unknown), { code: 'REMOTE_SHELL_FAILED', message: /ENOENT/ });
  await assert.rejects(diskSync(a, 'somewhere:/x', { clock, rsh, remoteCommand: 'no-such-program' }), {
    code: 'REMOTE_SHELL_FAILED',
    message: /no-such-program.*not found/s,
  });
});

test('an abort ends the remote program too', async () => {
  const stop = new AbortController();
  const [a, b] = [await image(SIZE, data), await image(SIZE, [])];
  const run = diskSync(a, `somewhere:${b}`, {
    clock,
    rsh,
    signal: stop.signal,
    onProgress: () => stop.abort(new Error('enough')),
  });
  await assert.rejects(run, /enough/);
});

test('a local compare and a local sync end whenever they are told to', async () => {
  const size = 24 << 20;
  const a = await image(size, [[0, noise(random, size)]]);
  for (const work of [diskCompare, diskSync]) for (const afterMs of [20, 50, 90]) {
    const stop = new AbortController();
    const running = work(a, await image(size, []), { clock, signal: stop.signal });
    const timer = setTimeout(() => stop.abort(new Error('enough')), afterMs);
    // The test's own time limit finds one that hangs.
    await running.catch((error: unknown) => assert.match(String(error), /enough/));
    clearTimeout(timer);
  }
});

test('a program that asks to be served with something else is refused with a reason', async () => {
  const [stdin, stdout] = [new PassThrough(), new PassThrough()];
  const served = serveStdio(stdin, stdout, await image(SIZE, []));
  stdin.end(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await assert.rejects(served, { code: 'COMPARE_FRAME_MALFORMED' });
  assert.match((stdout.read() as Buffer).toString('latin1'), /COMPARE_FRAME_MALFORMED/);
});

test('places are told apart as rsync does', () => {
  const rows = [
    ['disk.img', { kind: 'local', location: 'disk.img' }],
    ['./a:b.img', { kind: 'local', location: './a:b.img' }],
    ['/a/b:c', { kind: 'local', location: '/a/b:c' }],
    ['nbd://host/name', { kind: 'local', location: 'nbd://host/name' }],
    ['nbd+unix:///x?socket=/run/s', { kind: 'local', location: 'nbd+unix:///x?socket=/run/s' }],
    ['host:disk.img', { kind: 'remote', host: 'host', path: 'disk.img' }],
    ['me@host:/a/b.img', { kind: 'remote', host: 'me@host', path: '/a/b.img' }],
    ['root@[fe80::1]:/a:b', { kind: 'remote', host: 'root@fe80::1', path: '/a:b' }],
  ] as const;
  for (const [text, place] of rows) assert.deepEqual(parsePlace(text), place);
  assert.throws(() => parsePlace('-oProxyCommand=x:/a'), { code: 'DISK_PLACE_INVALID' });
  assert.throws(() => parsePlace('host:'), { code: 'DISK_PLACE_INVALID' });
});

test('the path is quoted for the shell of the other host', () => {
  const line = remoteCommandLine('h', "/a b/it's", { rsh: 'ssh -p 22' });
  assert.deepEqual(line, ['ssh', '-p', '22', 'h', 'understudy', 'disk', 'serve', '--stdio', "'/a b/it'\\''s'"]);
  assert.equal(remoteCommandLine('h', '-x', {}).at(-1), './-x');
});
