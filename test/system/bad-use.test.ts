/**
 * What people do wrong, against real servers: each is one line that says what is wrong with the values of both sides, one line that says
 * what to do, the exit code of the contract (docs/operating/cli.md), and nothing changed on either host.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test, type TestContext } from 'node:test';
import { atEnd, type Ending } from '../rig/at-end.ts';
import { formatsFor, makeDisk, type TestFormat } from '../rig/disk-formats.ts';
import { Pair } from '../rig/pair.ts';
import { kill9, mustRun, run, temporaryFolder } from '../rig/program.ts';
import { TestServer, UNDERSTUDY } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';

const ROOT = process.getuid?.() === 0;
const WRONG_FINGERPRINT = Array.from({ length: 32 }, () => 'AB').join(':');

interface Refusal {
  code: string;
  exit: 2 | 3 | 4 | 5;
  /** The cause, with the values. */
  says: RegExp;
  /** What to do. */
  advises?: RegExp;
}

/** Every row of the catalog but what counts cycles and time, and what the other side says once per cycle. */
function rowsOf(server: TestServer): string {
  const db = new DatabaseSync(join(server.data, 'catalog.db'), { readOnly: true });
  try {
    const rows = ['vms', 'relationships', 'epochs', 'inbox', 'authorizations', 'settings'].map((table) =>
      db.prepare(`SELECT * FROM ${table} ORDER BY 1, 2`).all().map(({ body, ...row }) =>
        ({ ...row, body: { ...(JSON.parse(String(body)) as object), statistics: null, remoteState: null } })));
    return JSON.stringify(rows);
  } finally {
    db.close();
  }
}

/** Types the command; the answer must be that refusal, in words and in JSON, and the catalogs must stay as they are. */
async function refused(server: TestServer, words: string[], expected: Refusal, others: TestServer[] = []): Promise<void> {
  const hosts = [server, ...others];
  const before = hosts.map(rowsOf);
  const done = await server.cli(...words);
  const what = `${words.join(' ')}: exit ${done.status}\n${done.stdout}${done.stderr}`;
  assert.equal(done.status, expected.exit, what);
  const [cause, remedy, ...more] = done.stderr.trimEnd().split('\n');
  assert.ok(cause!.startsWith(`understudy: ${expected.code}: `), what);
  assert.match(cause!, expected.says, what);
  assert.match(remedy ?? '', /^\s*→ \S/, what);
  if (expected.advises !== undefined) assert.match(remedy!, expected.advises, what);
  assert.deepEqual(more, [], what);
  assert.equal(done.stdout, '', what);
  hosts.forEach((host, index) => assert.equal(rowsOf(host), before[index], `${words.join(' ')} changed the catalog of ${host.name}`));
}

async function sparse(folder: string, name: string, size = 8 << 20): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, '');
  await truncate(path, size);
  return path;
}

test('names, states and sides', async (t) => {
  const pair = await quickPair(t, { sizes: [8 << 20] });
  const { primary, replica } = pair;

  await t.test('a VM that does not exist is bad input to every command', async () => {
    const unknown: Refusal = { code: 'VM_NOT_FOUND', exit: 2, says: /there is no VM 'nosuch' on host primary/, advises: /understudy vm list/ };
    const commands = [['status'], ['vm', 'show'], ['vm', 'attach'], ['vm', 'stop'], ['vm', 'remove'], ['start'], ['sync-now'], ['suspend'],
      ['resume'], ['remove'], ['health']];
    const inParallel = commands.map((command) => () => refused(primary, [...command, 'nosuch'], unknown));
    while (inParallel.length > 0) await Promise.all(inParallel.splice(0, 4).map((one) => one()));
    await refused(primary, ['set', 'nosuch', '--frequency', '300'], unknown);
    await refused(primary, ['enable', 'nosuch', '--replica', '127.0.0.1:1', '--fingerprint', WRONG_FINGERPRINT], unknown);
  });

  await t.test('what the state does not allow is refused with the state', async () => {
    await refused(primary, ['sync-now', pair.vm], { code: 'INVALID_STATE', exit: 3, says: /ReadyForInitialReplication/ });
    await refused(primary, ['resume', pair.vm], { code: 'INVALID_STATE', exit: 3, says: /ReadyForInitialReplication/ });
    await refused(primary, ['vm', 'remove', pair.vm], { code: 'VM_IS_REPLICATED', exit: 3, says: /'vm1' is replicated/ });
    const { fingerprint } = await replica.json<{ fingerprint: string }>('fingerprint');
    const again = ['enable', pair.vm, '--replica', `127.0.0.1:${replica.peerPort}`, '--fingerprint', fingerprint];
    await refused(primary, again, { code: 'INVALID_STATE', exit: 3, says: /ReadyForInitialReplication/ }, [replica]);
  });

  await t.test('a VM without replication says that it has none', async () => {
    await primary.json('vm', 'add', 'plain', '--disk', await sparse(pair.folder, 'plain.raw'));
    await refused(primary, ['suspend', 'plain'], { code: 'NOT_REPLICATED', exit: 3, says: /'plain' is in state Disabled/, advises: /understudy enable/ });
  });

  await t.test('the wrong side names the right host', async () => {
    await refused(replica, ['vm', 'attach', pair.vm], { code: 'WRONG_SIDE', exit: 3, says: /belongs on .*host primary/ }, [primary]);
    await refused(replica, ['suspend', pair.vm], { code: 'WRONG_SIDE', exit: 3, says: /primary/ }, [primary]);
  });

  await t.test('a second server on a folder in use ends at once', async () => {
    const second = new TestServer('second', primary.data);
    await assert.rejects(second.start(), /DATA_FOLDER_IN_USE: the data folder .* is in use: a server on this host holds it/);
    await primary.json('status', pair.vm);
  });
});

test('disks', async (t) => {
  const pair = await quickPair(t, { sizes: [8 << 20] });
  const { primary, folder } = pair;
  const add = (path: string, name = 'other') => ['vm', 'add', name, '--disk', path];

  await t.test('that are not there, are folders, or have half a sector', async () => {
    await refused(primary, add(join(folder, 'nosuch.raw')), { code: 'DISK_NOT_FOUND', exit: 2, says: /there is no disk at .*nosuch\.raw/ });
    await refused(primary, add(folder), { code: 'DISK_NOT_SUPPORTED', exit: 2, says: /is a folder/ });
    await refused(primary, add(await sparse(folder, 'odd.raw', 1000)),
      { code: 'DISK_SIZE_NOT_SECTORS', exit: 2, says: /1000 bytes/, advises: /truncate --size=1024/ });
  });

  await t.test('of a format that is not opened directly', async () => {
    await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', join(folder, 'a.qcow2'), '8M']);
    await refused(primary, add(join(folder, 'a.qcow2')), { code: 'FORMAT_NOT_SUPPORTED', exit: 2, says: /is a qcow2 image/, advises: /qemu-nbd/ });
  });

  await t.test('of another VM, and names of another VM', async () => {
    await refused(primary, add(pair.disks[0]!), { code: 'DISK_IN_USE', exit: 3, says: /belongs to VM 'vm1' already/ });
    await refused(primary, add(await sparse(folder, 'free.raw'), 'vm1'), { code: 'VM_EXISTS', exit: 2, says: /'vm1' on this host already/ });
  });

  await t.test('that QEMU has open', async (inner) => {
    const path = await sparse(folder, 'busy.raw');
    const let_go = await openInQemu(inner, path, join(folder, 'busy.sock'));
    await refused(primary, add(path, 'busy'), { code: 'DISK_IN_USE', exit: 3, says: /busy\.raw is in use: another program/, advises: /fuser/ });
    await let_go();
    await primary.json('vm', 'add', 'busy', '--disk', path);
    const again = await openInQemu(inner, path, join(folder, 'busy.sock'));
    await refused(primary, ['vm', 'attach', 'busy'], { code: 'DISK_IN_USE', exit: 3, says: /busy\.raw is in use/ });
    await again();
    await primary.json('vm', 'attach', 'busy');
    // And the other way round: what is served here is refused to QEMU.
    const qemu = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', path]);
    assert.notEqual(qemu.status, 0);
    assert.match(qemu.stderr + qemu.stdout, /lock/);
    await primary.json('vm', 'stop', 'busy');
  });

  await t.test('that may only be read', async (inner) => {
    const place = join(folder, 'read-only');
    await mkdir(place);
    if (ROOT) await mount(inner, place, '16m');
    const path = await sparse(place, 'ro.raw', 1 << 20);
    if (ROOT) await mustRun('mount', ['-o', 'remount,ro', place]);
    else await chmod(path, 0o444);
    await refused(primary, add(path), { code: 'DISK_READ_ONLY', exit: 3, says: /ro\.raw cannot be written/ });
  });

  await t.test('whose size has changed since', async () => {
    const path = await sparse(folder, 'grown.raw');
    await primary.json('vm', 'add', 'grown', '--disk', path);
    await truncate(path, 9 << 20);
    await refused(primary, ['vm', 'attach', 'grown'], { code: 'DISK_SIZE_CHANGED', exit: 2, says: /has 9437184 bytes, it was added with 8388608/ });
  });

  await t.test('that vanish while the server is stopped leave the other VMs protected', async () => {
    await primary.json('vm', 'attach', pair.vm);
    const path = await sparse(folder, 'gone.raw');
    await primary.json('vm', 'add', 'gone', '--disk', path);
    await primary.json('vm', 'attach', 'gone');
    await primary.stop();
    await rm(path);
    await primary.start();
    await refused(primary, ['vm', 'attach', 'gone'], { code: 'DISK_NOT_FOUND', exit: 2, says: /gone\.raw/ });
    assert.equal((await primary.json<{ attached: boolean }>('vm', 'show', pair.vm)).attached, true);
  });
});

test('disks over TCP', async (t) => {
  const folder = await temporaryFolder(t);
  const data = join(folder, 'data');
  const serveAt = (...words: string[]) => run(UNDERSTUDY, ['serve', '--data', data, '--peer', '127.0.0.1:0', '--http', '127.0.0.1:0', ...words]);

  await t.test('other addresses than loopback need TLS, and nothing is made before that is clear', async () => {
    const open = await serveAt('--nbd', '0.0.0.0:0');
    assert.equal(open.status, 2);
    assert.match(open.stderr, /^understudy: NBD_NEEDS_TLS: NBD at 0\.0\.0\.0:0 would give every disk .*\n→ .*--nbd-client FINGERPRINT.*127\.0\.0\.1/);
    assert.equal(existsSync(data), false);
    const client = await serveAt('--nbd-client', WRONG_FINGERPRINT);
    assert.deepEqual([client.status, client.stderr.split(':')[1]], [2, ' MISSING_MANDATORY_OPTION_VALUE']);
    const print = await serveAt('--nbd', '127.0.0.1:0', '--nbd-client', 'AB:CD');
    assert.deepEqual([print.status, print.stderr.split(':')[1]], [2, ' FINGERPRINT_INVALID']);
  });

  await t.test('on loopback a guest opens the URI that attach prints', async (inner) => {
    const server = new TestServer('primary', data, {}, ['--nbd', '127.0.0.1:0']);
    atEnd(inner, () => server.kill9());
    await server.start();
    const path = await sparse(folder, 'tcp.raw');
    await server.json('vm', 'add', 'tcp', '--disk', path);
    const { disks } = await server.json<{ disks: { tcpUri: string }[] }>('vm', 'attach', 'tcp');
    await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', '-c', 'flush', disks[0]!.tcpUri]);
    assert.match((await server.cli('vm', 'attach', 'tcp')).stdout, /QEMU over TCP:\n-blockdev .*server\.type=inet,server\.host=127\.0\.0\.1/);
    await server.json('vm', 'stop', 'tcp');
    await mustRun('qemu-io', ['-f', 'raw', '-c', 'read -P 7 1M 64k', path]);
  });
});

test('hosts that do not trust each other', async (t) => {
  const folder = await temporaryFolder(t);
  const primary = new TestServer('primary', join(folder, 'primary'));
  const replica = new TestServer('replica', join(folder, 'replica'));
  atEnd(t, () => Promise.all([primary.kill9(), replica.kill9()]));
  await Promise.all([primary.start(), replica.start()]);
  await primary.json('vm', 'add', 'vm1', '--disk', await sparse(folder, 'a.raw'));
  const { fingerprint } = await replica.json<{ fingerprint: string }>('fingerprint');
  const enable = (print: string, port = replica.peerPort) => ['enable', 'vm1', '--replica', `127.0.0.1:${port}`, '--fingerprint', print];

  await t.test('a wrong fingerprint shows both', async () => {
    await refused(primary, enable(WRONG_FINGERPRINT),
      { code: 'PEER_FINGERPRINT_MISMATCH', exit: 4, says: new RegExp(`shows fingerprint ${fingerprint}, this host expects ${WRONG_FINGERPRINT}`) }, [replica]);
    await refused(primary, enable('AB:CD'), { code: 'BAD_PARAMETERS', exit: 2, says: /fingerprint: 64 hexadecimal digits/ }, [replica]);
  });

  await t.test('a primary that is not authorised is told its own fingerprint and nothing else, and leaves an event', async () => {
    const own = (await primary.json<{ fingerprint: string }>('fingerprint')).fingerprint;
    await refused(primary, enable(fingerprint),
      { code: 'PEER_NOT_AUTHORISED', exit: 4, says: new RegExp(own), advises: new RegExp(`understudy authorize ${own}`) }, [replica]);
    const events = await replica.json<{ id: string; message: string }[]>('events');
    assert.ok(events.some(({ message }) => message.includes(own)), JSON.stringify(events));
  });

  await t.test('nobody listens there, or somebody else does', async () => {
    await refused(primary, enable(fingerprint, 1), { code: 'PEER_REFUSED', exit: 4, says: /127\.0\.0\.1:1 refuses connections/ });
    const http = Number(replica.httpAddress.split(':').at(-1));
    await refused(primary, enable(fingerprint, http), { code: 'PEER_TLS_FAILED', exit: 4, says: /no TLS 1\.3 connection/ });
  });

  await t.test('a test of the connection says the same beforehand, and of one that works who answers', async () => {
    const own = (await primary.json<{ fingerprint: string }>('fingerprint')).fingerprint;
    const connection = (print: string, port = replica.peerPort) => ['test-connection', `127.0.0.1:${port}`, '--fingerprint', print];
    await refused(primary, connection(WRONG_FINGERPRINT), { code: 'PEER_FINGERPRINT_MISMATCH', exit: 4, says: new RegExp(fingerprint) }, [replica]);
    await refused(primary, connection(fingerprint, 1), { code: 'PEER_REFUSED', exit: 4, says: /127\.0\.0\.1:1 refuses connections/ });
    await refused(primary, connection(fingerprint), { code: 'PEER_NOT_AUTHORISED', exit: 4, says: new RegExp(own) }, [replica]);
    await replica.json('authorize', own);
    const { hostName, clockSkewSeconds } = await primary.json<{ hostName: string; clockSkewSeconds: number }>(...connection(fingerprint));
    assert.equal(hostName, 'replica');
    assert.ok(Math.abs(clockSkewSeconds) < 60);
    await replica.json('unauthorize', own);
  });

  await t.test('a storage location that cannot be used', async () => {
    const own = (await primary.json<{ fingerprint: string }>('fingerprint')).fingerprint;
    const path = join(folder, 'a.raw', 'below-a-file');
    await refused(replica, ['authorize', own, '--storage', path], { code: 'REPLICA_STORAGE_UNUSABLE', exit: 5, says: /below-a-file cannot be/ });
  });
});

test('a server that cannot listen where it shall makes no data folder', async (t) => {
  const folder = await temporaryFolder(t);
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  atEnd(t, () => void taken.close());
  const { port } = taken.address() as AddressInfo;
  const data = join(folder, 'new', 'data');
  const tries = [
    [`127.0.0.1:${port}`, '127.0.0.1:0', 5, new RegExp(`PEER_PORT_UNUSABLE: cannot listen on 127\\.0\\.0\\.1:${port}`)],
    ['127.0.0.1:0', `127.0.0.1:${port}`, 5, new RegExp(`HTTP_LISTEN_FAILED: cannot listen on 127\\.0\\.0\\.1:${port}`)],
    ['127.0.0.1:0', '0.0.0.0:0', 2, /HTTP_NEEDS_TLS/],
  ] as const;
  for (const [peer, http, exit, says] of tries) {
    const done = await run(UNDERSTUDY, ['serve', '--data', data, '--peer', peer, '--http', http]);
    assert.equal(done.status, exit, done.stderr);
    assert.match(done.stderr, says);
    assert.match(done.stderr, /\n→ \S.*\n$/);
    assert.deepEqual(await readdir(folder), [], 'something was left behind');
  }
});

test('a clock that is far off', async (t) => {
  const hours = 'data:text/javascript,globalThis.realNow=Date.now;Date.now=()=>realNow()+7200000;';
  const folder = await temporaryFolder(t);
  const primary = new TestServer('primary', join(folder, 'primary'), { NODE_OPTIONS: `--import=${hours}` });
  const replica = new TestServer('replica', join(folder, 'replica'));
  atEnd(t, () => Promise.all([primary.kill9(), replica.kill9()]));
  await Promise.all([primary.start(), replica.start()]);
  await primary.json('vm', 'add', 'vm1', '--disk', await sparse(folder, 'a.raw'));
  const prints = await Promise.all([primary, replica].map((host) => host.json<{ fingerprint: string }>('fingerprint')));
  await replica.json('authorize', prints[0]!.fingerprint, '--storage', join(folder, 'store'));
  const words = ['enable', 'vm1', '--replica', `127.0.0.1:${replica.peerPort}`, '--fingerprint', prints[1]!.fingerprint];
  await refused(primary, words,
    { code: 'CLOCK_SKEW', exit: 4, says: /shows \d{4}-\S+Z, the other host's \d{4}-\S+Z: (7199|7200|7201) s apart, at most 300 s/, advises: /NTP/ }, [replica]);
});

test('two primaries for one replica', async (t) => {
  const pair = await quickPair(t, { sizes: [8 << 20] });
  const { primary, replica, folder } = pair;
  const { fingerprint } = await replica.json<{ fingerprint: string }>('fingerprint');

  await t.test('a VM of the same name from another host', async (inner) => {
    const second = await otherPrimary(inner, pair, 'second');
    await second.json('vm', 'add', pair.vm, '--disk', await sparse(folder, 'second.raw'));
    await refused(second, ['enable', pair.vm, '--replica', `127.0.0.1:${replica.peerPort}`, '--fingerprint', fingerprint],
      { code: 'REPLICA_NAME_IN_USE', exit: 3,
        says: new RegExp(`has a VM 'vm1' already \\(${pair.vmId}\\)`), advises: /two primaries cannot feed one replica/ }, [replica, primary]);
  });

  await t.test('the same VM from a copy of the primary with an identity of its own', async (inner) => {
    await primary.stop();
    const data = join(folder, 'twin');
    await mkdir(data);
    await cp(join(primary.data, 'catalog.db'), join(data, 'catalog.db'));
    await primary.start();
    const twin = await otherPrimary(inner, pair, 'twin');
    await refused(twin, ['start', pair.vm],
      { code: 'REPLICA_HAS_OTHER_PRIMARY', exit: 3, says: /belongs to primary primary, not to twin/, advises: /two primaries cannot feed one replica/ },
      [replica]);
    const later = () => ['start', pair.vm, '--at', new Date(Date.now() + 1500).toISOString()];
    await refused(twin, later(), { code: 'REPLICA_HAS_OTHER_PRIMARY', exit: 3, says: /belongs to primary primary, not to twin/ }, [replica]);
    // What could not be known beforehand shows as the state.
    await replica.stop();
    await twin.json(...later());
    // A primary that finds no replica waits for a whole cycle, one that starts does not.
    await twin.stop();
    await replica.start();
    await twin.start();
    const before = rowsOf(replica);
    const status = await twin.until<{ state: string; healthDetails: string[] }>(['status', pair.vm], ({ state }) => state === 'Error');
    assert.match(status.healthDetails.join('\n'), /belongs to primary primary, not to twin/);
    assert.equal(rowsOf(replica), before, 'the twin changed something on the replica');
  });

  await t.test('the host itself', async () => {
    const { fingerprint: own } = await primary.json<{ fingerprint: string }>('fingerprint');
    await primary.json('authorize', own, '--storage', join(folder, 'self'));
    await primary.json('vm', 'add', 'selfish', '--disk', await sparse(folder, 'selfish.raw'));
    await refused(primary, ['enable', 'selfish', '--replica', `127.0.0.1:${primary.peerPort}`, '--fingerprint', own],
      { code: 'SAME_HOST', exit: 2, says: /primary of this very host/ });
  });
});

for (const format of formatsFor('dear', 'vhdx')) test(`${format}: a replica disk of another size`, async (t) => {
  const pair = await quickPair(t, { format, sizes: [8 << 20] });
  await pair.replicate();
  await rm(pair.replicaPath(0));
  await makeDisk(pair.replicaPath(0), format, 6 << 20);
  await writeSomething(pair);
  const sizes = /disk0\.\w+ .*(6291456.*8388608|8388608.*6291456)/;
  const synced = await pair.primary.cli('sync-now', pair.vm);
  assert.equal(synced.status, 3, synced.stderr);
  const status = await pair.untilState('WaitingForStartResynchronize');
  // The size of a raw file is one of its marks; what is in an image is read only when the two disks are looked at.
  assert.match(status.healthDetails.join('\n'), format === 'raw' ? sizes : /disk0\.\w+ was changed, replaced/);
  // The logs that nobody can use any more go first, by themselves.
  await pair.primary.until(['status', pair.vm], () => !rowsOf(pair.primary).includes('.hrl'));
  await refused(pair.primary, ['resume', pair.vm],
    { code: 'SIZE_MISMATCH', exit: 3, says: sizes, advises: /understudy disk resize .*disk0\.\w+ 8388608\), then resume/ }, [pair.replica]);
  await mustRun(UNDERSTUDY, ['disk', 'resize', pair.replicaPath(0), '8388608']);
  await pair.primary.json('resume', pair.vm, '--overwrite-replica');
  await pair.untilState('Replicating');
});

test('an existing copy of another size, or none', async (t) => {
  const pair = await quickPair(t, { sizes: [8 << 20] });
  const start = ['start', pair.vm, '--use-existing'];
  await refused(pair.primary, start,
    { code: 'EXISTING_COPY_NOT_FOUND', exit: 3, says: /has no copy of disk0\.raw at/ }, [pair.replica]);
  const place = join(pair.folder, 'store', pair.vm);
  await mkdir(place, { recursive: true });
  const copy = await sparse(place, 'disk0.raw', 6 << 20);
  await refused(pair.primary, start,
    { code: 'SIZE_MISMATCH', exit: 3, says: /disk0\.raw has 8388608 bytes on the primary, its replica .*6291456/,
      advises: /understudy disk resize .*disk0\.raw 8388608\), then start again/ },
    [pair.replica]);
  assert.deepEqual(await readdir(place), ['disk0.raw'], 'something was left behind');
  await truncate(copy, 8 << 20);
  await pair.primary.json(...start);
  await pair.untilState('Replicating');
});

for (const format of formatsFor('dear'))
test(`${format}: a replica volume that is full: the cause is shown, the guest goes on, and it heals by itself`, {
  skip: ROOT ? false : 'mounting needs root',
}, async (t) => {
  const pair = await quickPair(t, { format, sizes: [48 << 20] });
  const small = join(pair.folder, 'store');
  await rm(small, { recursive: true, force: true });
  await mkdir(small);
  // A VHDX has 4 MiB of tables.
  const mib = format === 'vhdx' ? 12 : 4;
  await mustRun('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'understudy-test', small]);
  try {
    await fillsUpAndHeals(pair, small, mib);
  } finally {
    // Before the folder goes.
    await pair.kill();
    await run('umount', ['-l', small]);
  }
});

/** `mib`: size of the volume at `small`, too small for the disks of the VM. */
async function fillsUpAndHeals(pair: Pair, small: string, mib: number): Promise<void> {
  const free = `${mib << 20} bytes free`;
  await pair.primary.json('vm', 'attach', pair.vm);
  await writeSomething(pair, 32);
  await refused(pair.primary, ['start', pair.vm],
    { code: 'REPLICA_STORAGE_FULL', exit: 5, says: new RegExp(`has ${free}, the disks of VM 'vm1' hold 33554432`),
      advises: /Free space there/ }, [pair.replica]);
  const later = () => ['start', pair.vm, '--at', new Date(Date.now() + 1500).toISOString()];
  await refused(pair.primary, later(), { code: 'REPLICA_STORAGE_FULL', exit: 5, says: new RegExp(`${free}.* hold 33554432`) }, [pair.replica]);
  assert.deepEqual(await readdir(small), [], 'something was left behind');
  const medium = join(small, 'usb', 'disks');
  await refused(pair.primary, ['start', pair.vm, '--export', medium],
    { code: 'EXPORT_FOLDER_FULL', exit: 5, says: new RegExp(`store has ${free}, the disks of VM 'vm1' hold 33554432`), advises: /larger medium/ },
    [pair.replica]);
  assert.deepEqual(await readdir(small), [], 'something was left behind');
  // Room that there was when it was asked for is gone when it is needed.
  await mustRun('mount', ['-o', 'remount,size=64m', small]);
  await pair.primary.json(...later());
  await mustRun('mount', ['-o', `remount,size=${mib}m`, small]);
  const status = await pair.primary.until<{ healthDetails: string[]; state: string }>(['status', pair.vm],
    ({ healthDetails }) => /no space/i.test(healthDetails.join('\n')));
  assert.equal(status.state, 'InitialReplicationInProgress', JSON.stringify(status));
  await writeSomething(pair, 1);
  await mustRun('mount', ['-o', 'remount,size=64m', small]);
  await pair.untilState('Replicating', 90_000);
  await pair.primary.json('sync-now', pair.vm);
  await pair.primary.json('vm', 'stop', pair.vm);
  await pair.compare();
}

/** The command line runs inside this process here; 'hosts that do not trust each other' types the commands as people do. */
function quickPair(t: TestContext, options: { sizes: number[]; format?: TestFormat }): Promise<Pair> {
  return Pair.make(t, { ...options, inside: true });
}

async function writeSomething(pair: Pair, mebibytes = 1): Promise<void> {
  const [uri] = await pair.uris();
  await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P 0x5a 0 ${mebibytes}M`, '-c', 'flush', uri!]);
}

async function otherPrimary(t: TestContext, pair: Pair, name: string): Promise<TestServer> {
  const server = new TestServer(name, join(pair.folder, name));
  atEnd(t, () => server.kill9());
  answerInside(server);
  await server.start();
  const { fingerprint } = await server.json<{ fingerprint: string }>('fingerprint');
  await pair.replica.json('authorize', fingerprint, '--name', name, '--storage', join(pair.folder, `store-${name}`));
  return server;
}

async function mount(t: Ending, folder: string, size: string): Promise<void> {
  await mustRun('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'understudy-test', folder]);
  atEnd(t, () => run('umount', ['-l', folder]));
}

/** Serves the file by qemu-nbd, which locks it; the returned function ends it. */
async function openInQemu(t: TestContext, path: string, socket: string): Promise<() => Promise<void>> {
  const child = spawn('qemu-nbd', ['--persistent', '--format=raw', `--socket=${socket}`, path], { stdio: 'ignore' });
  const end = async () => {
    await kill9(child);
    await rm(socket, { force: true });
  };
  atEnd(t, end);
  while (!existsSync(socket)) {
    assert.equal(child.exitCode, null, 'qemu-nbd ended');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return end;
}
