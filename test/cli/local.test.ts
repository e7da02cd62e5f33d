/** Commands that need no server: disks, logs, the host's own checks; and the one that makes a server. */

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hostFiles } from '../../src/disk/host-files.ts';
import { LogWriter } from '../../src/hrl/log-writer.ts';
import type { ServeOptions } from '../../src/cli/context.ts';
import { UnderstudyError } from '../../src/model/errors.ts';
import { hostCompute } from '../../src/resync/compare/host-compute.ts';
import { listenOnSocket } from '../../src/server/api/http.ts';
import { fakeOperations, run, startFakeHost } from './fake-host.ts';

const folder = mkdtempSync(join(tmpdir(), 'understudy-local-'));
after(() => rmSync(folder, { recursive: true }));

const MIB = 1 << 20;
const STAND_IN = join(import.meta.dirname, 'remote-shell-stand-in.ts');
const REMOTE_SHELL = `${process.execPath} --disable-warning=ExperimentalWarning ${STAND_IN}`;

let disks = 0;
/** A sparse raw disk with a few bytes at some offsets. */
function disk(size: number, contents: Record<number, string> = {}): string {
  const path = join(folder, `disk${(disks += 1)}.raw`);
  const data = Buffer.alloc(size);
  for (const [offset, text] of Object.entries(contents)) data.write(text, Number(offset));
  writeFileSync(path, data);
  return path;
}

test('disk info shows what a raw file is, by a relative path too', async () => {
  const path = disk(8 * MIB);
  const { code, json } = await run(['disk', 'info', path.slice(folder.length + 1), '--json'], { cwd: folder });
  assert.equal(code, 0);
  const { identity, ...facts } = json() as { identity: { kind: string; size: number } };
  assert.deepEqual([identity.kind, identity.size], ['file', 8 * MIB]);
  assert.deepEqual(facts, {
    parent: null,
    dirtyLog: false,
    format: 'raw',
    variant: 'fixed',
    virtualSize: 8 * MIB,
    logicalSectorSize: 512,
    physicalSectorSize: 4096,
    geometry: null,
  });
  assert.match((await run(['disk', 'info', path])).stdout, /^Format +raw \(fixed\)\nSize +8 MiB \(8388608 bytes\)\n/);
});

test('a disk that does not exist is bad input', async () => {
  const { code, stderr } = await run(['disk', 'info', join(folder, 'none.raw')]);
  assert.equal(code, 2);
  assert.match(stderr, /^understudy: DISK_NOT_FOUND: /);
});

test('disk compare says yes with 0 and no with 1, and where', async () => {
  const [a, same, other] = [
    disk(8 * MIB, { 5000: 'x' }),
    disk(8 * MIB, { 5000: 'x' }),
    disk(8 * MIB, { 5000: 'x', 100_000: 'y', 4_000_000: 'z' }),
  ];
  const equal = await run(['disk', 'compare', a, same, '--json']);
  assert.equal(equal.code, 0);
  const { seconds: _, ...figures } = equal.json() as { seconds: number };
  assert.deepEqual(figures, { equal: true, comparedBytes: 8 * MIB, differingBytes: 0, firstDifference: null });

  const differing = await run(['disk', 'compare', a, other]);
  assert.equal(differing.code, 1);
  assert.match(differing.stdout, /^Equal +NO\n[^]*Differing +8 KiB\nFirst difference +byte 100000\n$/);
});

for (const remote of [false, true]) {
  test(`Ctrl-C during a compare ${remote ? 'with another host' : 'on this host'} exits with 130`, async () => {
    const [a, b] = [disk(64 * MIB, { 1: 'x' }), disk(64 * MIB, { 2: 'x' })];
    const ctrlC = new AbortController();
    const words = ['disk', 'compare', a, ...(remote ? [`munich:${b}`, '--rsh', REMOTE_SHELL] : [b])];
    const { code, stderr } = await run(words, { signal: ctrlC.signal, onStderr: () => ctrlC.abort() });
    assert.equal(code, 130, stderr);
    assert.match(stderr, /understudy: INTERRUPTED: /);
  });
}

test('disks of different sizes are bad input', async () => {
  const { code, stderr } = await run(['disk', 'compare', disk(8 * MIB), disk(9 * MIB)]);
  assert.equal(code, 2);
  assert.match(stderr, /^understudy: DISK_SIZE_MISMATCH: .*8388608.*9437184/);
});

test('disk sync makes the second equal to the first, or creates it, and a dry run writes nothing', async () => {
  const [source, dest] = [disk(8 * MIB, { 5000: 'x', 4_000_000: 'z' }), join(folder, 'new.raw')];
  const dry = await run(['disk', 'sync', source, dest, '--dry-run', '--json']);
  assert.deepEqual(
    { code: dry.code, exists: statSync(dest, { throwIfNoEntry: false }) !== undefined },
    { code: 0, exists: false },
  );
  assert.equal((dry.json() as { differingBytes: number }).differingBytes, 8192);

  const real = await run(['disk', 'sync', source, dest, '--json']);
  assert.equal(real.code, 0);
  const result = real.json() as Record<string, unknown>;
  assert.deepEqual(Object.keys(result).sort(), [
    'comparedBytes',
    'differingBytes',
    'equal',
    'seconds',
    'sentBytes',
    'wireBytes',
  ]);
  assert.equal(result['equal'], false);
  assert.ok(readFileSync(dest).equals(readFileSync(source)));
});

test('disk sync through a remote shell, in both directions', async () => {
  const source = disk(8 * MIB, { 5000: 'x', 4_000_000: 'z' });
  for (const [from, to, dest] of [
    [source, `root@munich:${folder}/pushed.raw`, 'pushed.raw'],
    [`munich:${source}`, `${folder}/pulled.raw`, 'pulled.raw'],
  ]) {
    const { code, stderr, json } = await run(['disk', 'sync', from!, to!, '--rsh', REMOTE_SHELL, '--json']);
    assert.equal(code, 0, stderr);
    assert.ok((json() as { wireBytes: number }).wireBytes > 0);
    assert.ok(readFileSync(join(folder, dest!)).equals(readFileSync(source)));
  }
});

test('log show prints header and entries of a log', async () => {
  const path = join(folder, 'one.hrl');
  const createdAt = Date.parse('2031-05-04T10:00:00Z');
  const about = {
    uniqueId: '6f1d1e5c-3a55-4c5e-9d4e-0c8f5bb5a001',
    previousUniqueId: null,
    createdAt,
    diskSize: 8 * MIB,
  };
  const writer = await LogWriter.create({ files: hostFiles, compute: hostCompute() }, path, about);
  await writer.append(
    [
      { op: 'write', offset: 4096, data: Buffer.alloc(512, 1) },
      { op: 'zero', offset: MIB, length: MIB },
    ],
    createdAt,
  );
  for (const number of [0, 1]) writer.finished(number);
  await writer.close();
  const { code, json } = await run(['log', 'show', path, '--json']);
  assert.equal(code, 0);
  const { header, entries } = json() as { header: { uniqueId: string }; entries: object[] };
  assert.equal(header.uniqueId, '6f1d1e5c-3a55-4c5e-9d4e-0c8f5bb5a001');
  assert.deepEqual(entries, [
    { operation: 'write', byteOffset: 4096, length: 512, timestamp: '2031-05-04T10:00:00.000Z' },
    { operation: 'zero', byteOffset: MIB, length: MIB, timestamp: '2031-05-04T10:00:00.000Z' },
  ]);
  assert.match(
    (await run(['log', 'show', path])).stdout,
    /Operation +ByteOffset +Length +Time\nwrite +4096 +512 +2031-05-04 12:00:00\n/,
  );

  truncateSync(path, 5000);
  assert.equal((await run(['log', 'show', path])).code, 2);
  assert.match((await run(['log', 'show', join(folder, 'none.hrl')])).stderr, /^understudy: LOG_NOT_FOUND: /);
});

test('doctor checks the host, and the server when one runs', async () => {
  await using host = await startFakeHost();
  const { code, json } = await run(['doctor', '--json'], { dataFolder: host.dataFolder });
  assert.equal(code, 0);
  const checks = json() as { check: string; ok: boolean; detail: string; remedy: string | null }[];
  const found = Object.fromEntries(checks.map(({ check, ok }) => [check, ok]));
  assert.equal(Object.keys(found).length, checks.length, 'a check is listed twice');
  const {
    'clock': _clock,
    'qemu-img': _img,
    'qemu-nbd': _nbd,
    'free-space': _space,
    'native-calls': _native,
    ...sure
  } = found;
  assert.deepEqual(sure, {
    'node': true,
    'data-folder': true,
    'file-locks': true,
    'holes': true,
    'server': true,
    'catalog': true,
  });
  for (const { ok, remedy } of checks) assert.equal(remedy === null, ok);
});

test('doctor without a server says how to start it, and leaves nothing behind; with --check it says no', async () => {
  const dataFolder = join(folder, 'not', 'there');
  const { code, json } = await run(['doctor', '--json'], { dataFolder });
  assert.equal(code, 0);
  const server = (json() as { check: string }[]).find(({ check }) => check === 'server');
  assert.deepEqual(server, {
    check: 'server',
    ok: false,
    detail: `no server runs on ${dataFolder}`,
    remedy: `understudy serve --data ${dataFolder}`,
  });
  assert.equal(statSync(join(folder, '.understudy-doctor'), { throwIfNoEntry: false }), undefined);
  assert.equal((await run(['doctor', '--check'], { dataFolder })).code, 1);
});

test('serve prints one line when it is ready, and closes the server when it is stopped', async () => {
  const stop = new AbortController();
  const made: ServeOptions[] = [];
  let closed = 0;
  const makeServer = (options: ServeOptions) => {
    made.push(options);
    return Promise.resolve({
      peerAddress: '0.0.0.0:40001',
      httpAddress: '127.0.0.1:40002',
      socketPath: `${options.dataFolder}/server.sock`,
      ended: new Promise<void>(() => undefined),
      close: () => Promise.resolve(void (closed += 1)),
    });
  };
  const words = ['serve', '--data', 'berlin', '--peer', '[::]:0', '--name', 'berlin'];
  const { code, stdout } = await run(words, { makeServer, signal: stop.signal, onStdout: () => stop.abort() });
  assert.equal(code, 0);
  assert.equal(stdout, 'ready peer=0.0.0.0:40001 http=127.0.0.1:40002 socket=/work-folder/berlin/server.sock\n');
  assert.deepEqual(made, [
    {
      dataFolder: '/work-folder/berlin',
      peer: { host: '::', port: 0 },
      http: { host: '127.0.0.1', port: 7780, tls: null },
      name: 'berlin',
    },
  ]);
  assert.equal(closed, 1);
});

test('serve fails with the reason when the server ends by itself', async () => {
  let closed = 0;
  const makeServer = () =>
    Promise.resolve({
      peerAddress: 'a:1',
      httpAddress: 'b:2',
      socketPath: '/s',
      ended: Promise.reject(new UnderstudyError('io', 'CATALOG_FAILED', 'disk full', 'free space')),
      close: () => Promise.resolve(void (closed += 1)),
    });
  const { code, stderr } = await run(['serve'], { makeServer });
  assert.deepEqual(
    { code, stderr, closed },
    { code: 5, stderr: 'understudy: CATALOG_FAILED: disk full\n→ free space\n', closed: 1 },
  );
});

test('a data folder whose path is longer than a socket address is served and found', async () => {
  const dataFolder = join(folder, 'x'.repeat(100), 'y'.repeat(100));
  mkdirSync(dataFolder, { recursive: true });
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const server = await listenOnSocket(join(dataFolder, 'server.sock'), {
    operations: fakeOperations(),
    log,
    version: '0',
  });
  try {
    assert.equal((await run(['status'], { dataFolder })).code, 0);
  } finally {
    await server.close();
  }
});

test('a cmdlet is run against the same server, and its failures look the same', async () => {
  await using host = await startFakeHost();
  const { dataFolder } = host;
  const table = await run(['Get-VMReplication', 'web1'], { dataFolder });
  assert.equal(table.code, 0);
  assert.match(table.stdout, /VMName +State +Health[^]*web1 +Replicating +Normal/);
  const piped = await run(['--data', dataFolder, 'Get-VMReplication –VMname “web1” | fl *']);
  assert.match(piped.stdout, /ReplicationState +: Replicating/);
  const past = [
    'Resume-VMReplication',
    '–VMName',
    '“web1”',
    '-Resynchronize',
    '–ResynchronizeStartTime',
    '“04/15/2013',
    '12:00:00”',
  ];
  const refused = await run(past, { dataFolder });
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /^understudy: START_TIME_IN_PAST: .*2013/);
});

test('shell takes commands and cmdlets, goes on after a failure, and ends with the code of the last line', async () => {
  await using host = await startFakeHost();
  const input = '# remark\n\nstatus web1\nstatsu\nGet-VMReplication web1 | select VMName, State\nvm show "web1"\n';
  const { code, stdout, stderr } = await run(['shell'], { dataFolder: host.dataFolder, input });
  assert.equal(code, 0);
  assert.equal(
    stderr,
    "understudy: UNKNOWN_COMMAND: unknown command 'statsu' (Did you mean status?)\n→ See: understudy --help\n",
  );
  assert.match(stdout, /^VM name +web1\n[^]*VMName +State[^]*VMId +2c9f6d1e/);
  assert.equal(
    (await run(['shell'], { dataFolder: host.dataFolder, input: 'status\nsuspend\nexit\nstatus\n' })).code,
    2,
  );
});
