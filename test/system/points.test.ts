/** Recovery points, test failover and failover to a chosen point, with real processes, files and NBD clients. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { formatsFor, guestBytes, qemuName, type TestFormat } from '../rig/disk-formats.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun, run } from '../rig/program.ts';

const DISK_BYTES = 16 << 20;
/** Each set that was written to ends at a point: no test waits an hour. */
const EVERY_SET = { UNDERSTUDY_POINT_INTERVAL_SEC: '0' };

interface Point {
  id: string;
  time: string;
  kind: string;
  bytes: number;
  lossSeconds: number;
  damaged: string | null;
}

interface Served extends Status {
  disks: { path: string; uri: string | null }[];
  testFailover: object | null;
  failover: { settling: string | null; writtenBytes?: number } | null;
}

class PointsRig {
  readonly pair: Pair;
  /** What the disks were at each point, by its id. */
  readonly remembered = new Map<string, Buffer[]>();
  #uris: string[] = [];
  #byte = 0;

  constructor(pair: Pair) {
    this.pair = pair;
  }

  static async make(t: TestContext, format: TestFormat, history: number): Promise<PointsRig> {
    const pair = await Pair.make(t, {
      format,
      sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 900, env: EVERY_SET, enable: ['--recovery-history', String(history)] });
    const rig = new PointsRig(pair);
    await pair.replicate();
    rig.#uris = await pair.uris();
    return rig;
  }

  /** Writes something to both disks, has it applied, and remembers what the disks are now. */
  async step(): Promise<string> {
    this.#byte++;
    for (const [index, uri] of this.#uris.entries()) {
      const offset = ((this.#byte * 3 + index) % 15) << 20;
      await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P ${this.#byte} ${offset} 300k`, '-c', `write -P ${this.#byte + 100} ${this.#byte * 512} 512`, uri]);
    }
    await this.pair.primary.json('sync-now', this.pair.vm);
    const point = (await this.points()).findLast(({ kind }) => kind === 'standard')!;
    this.remembered.set(point.id, await this.primaryDisks());
    return point.id;
  }

  primaryDisks(): Promise<Buffer[]> {
    return Promise.all(this.pair.disks.map(guestBytes));
  }

  points(): Promise<Point[]> {
    return this.pair.replica.json<Point[]>('points', this.pair.vm);
  }

  status(): Promise<Served> {
    return this.pair.replica.json<Served>('status', this.pair.vm);
  }

  /** What a guest reads from the served disks. */
  async served({ disks }: Pick<Served, 'disks'>): Promise<Buffer[]> {
    const read: Buffer[] = [];
    for (const [index, { uri }] of disks.entries()) {
      const copy = join(this.pair.folder, `served${index}.raw`);
      await mustRun('nbdcopy', [uri!, copy]);
      read.push(await readFile(copy));
    }
    return read;
  }

  async undoLogs(): Promise<string[]> {
    const folder = dirname(this.pair.replicaPath(0));
    return (await readdir(folder)).filter((name) => name.endsWith('.hru')).map((name) => join(folder, name));
  }
}

/** Resolves when nobody holds the image open for writing. */
async function untilFree(path: string): Promise<void> {
  const end = performance.now() + 60_000;
  for (;;) {
    const { status, stderr } = await run('qemu-img', ['info', '-f', qemuName(path), path]);
    if (status === 0) return;
    if (performance.now() > end) throw new Error(stderr);
  }
}

function same(found: Buffer[], expected: Buffer[], what: string): void {
  for (const [index, disk] of expected.entries()) assert.ok(disk.equals(found[index]!), `${what}: disk ${index} differs`);
}

for (const format of formatsFor('dear'))
test(`${format}: every point is what the disks were then; a test failover shows it, and replication goes on`, async (t) => {
  const rig = await PointsRig.make(t, format, 2);
  const { pair } = rig;
  for (let step = 0; step < 4; step++) await rig.step();
  await pair.replica.kill9();
  await pair.replica.start();
  const points = await rig.points();
  assert.deepEqual(points.map(({ kind }) => kind), ['standard', 'standard', 'latest']);
  assert.ok(points[0]!.bytes >= 8192 && points[0]!.lossSeconds > points[1]!.lossSeconds);
  assert.equal((await rig.undoLogs()).length, 2);
  const onPrimary = await pair.primary.cli('points', pair.vm);
  assert.match(onPrimary.stdout, /latest/);
  assert.match(onPrimary.stderr, /Older recovery points are kept by host replica, and listed there: understudy points vm1/);
  for (const { id } of points.slice(0, 2)) {
    const served = await pair.replica.json<Served>('failover', pair.vm, '--test', '--point', id);
    assert.match(served.disks[0]!.uri!, /vm1%20-%20Test/);
    same(await rig.served(served), rig.remembered.get(id)!, id);
    await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 77 0 1M', '-c', 'flush', served.disks[0]!.uri!]);
    const second = await pair.replica.cli('failover', pair.vm, '--test');
    assert.equal(second.status, 3, second.stderr);
    await pair.replica.json('failover', 'cancel', pair.vm);
  }
  // The replica goes on: received meanwhile, applied afterwards.
  const latest = await pair.replica.json<Served>('failover', pair.vm, '--test');
  const before = await rig.primaryDisks();
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 200 4M 1M', (await pair.uris())[0]!]);
  const shipped = pair.primary.cli('sync-now', pair.vm);
  await pair.replica.until<Status>(['status', pair.vm], ({ lastReceivedEpoch, lastAppliedEpoch }) => lastReceivedEpoch > lastAppliedEpoch);
  assert.ok((await rig.status()).pendingBytes > 1 << 20);
  same(await rig.served(latest), before, 'latest');
  // A restart serves the test again, and what was written to it is there.
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 78 0 1M', '-c', 'flush', latest.disks[0]!.uri!]);
  await pair.replica.kill9();
  await pair.replica.start();
  await mustRun('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 78 0 1M', (await rig.status()).disks[0]!.uri!]);
  await pair.replica.json('failover', 'cancel', pair.vm);
  // The one that waited saw its replica die; its log had arrived.
  await shipped;
  await pair.primary.json('sync-now', pair.vm);
  assert.equal((await rig.status()).testFailover, null);
  await pair.compare();
  assert.deepEqual((await readdir(dirname(pair.replicaPath(0)))).filter((name) => name.includes('.test.diff')), []);
});

for (const format of formatsFor('dear', 'vhdx'))
test(`${format}: failover to a point, cancelled, to the latest over a waiting log, completed: the file is the disk`, async (t) => {
  const rig = await PointsRig.make(t, format, 4);
  const { pair } = rig;
  const ids = [await rig.step(), await rig.step(), await rig.step()];
  await pair.replica.json('failover', pair.vm, '--test');
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 201 5M 2M', '-c', 'write -z 7M 64k', (await pair.uris())[1]!]);
  const shipped = pair.primary.cli('sync-now', pair.vm);
  await pair.replica.until<Status>(['status', pair.vm], ({ lastReceivedEpoch, lastAppliedEpoch }) => lastReceivedEpoch > lastAppliedEpoch);
  await pair.primary.kill9();
  await shipped;
  const last = await rig.primaryDisks();
  const old = await pair.replica.json<Served>('failover', pair.vm, '--point', ids[0]!);
  same(await rig.served(old), rig.remembered.get(ids[0]!)!, 'the oldest point');
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 9 0 1M', '-c', 'write -P 9 8192 4k', '-c', 'write -P 9 3M 512', old.disks[0]!.uri!]);
  // What would be dropped is said before, and what was dropped afterwards.
  assert.equal((await rig.status()).failover?.writtenBytes, (1 << 20) + 4096);
  const { droppedBytes } = await pair.replica.json<{ droppedBytes: number }>('failover', 'cancel', pair.vm);
  assert.equal(droppedBytes, (1 << 20) + 4096);
  const cancelled = (await pair.replica.json<{ id: string; message: string }[]>('events', pair.vm)).findLast(({ id }) => id === 'FailoverCancelled');
  assert.match(cancelled!.message, /1052672 bytes that were written there are dropped/);
  // At once again: what is applied meanwhile is halted or done, and makes no difference.
  const latest = await pair.replica.json<Served>('failover', pair.vm);
  same(await rig.served(latest), last, 'the latest');
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 10 1M 1M', '-c', 'write -P 11 3000 3000', '-c', 'flush', latest.disks[0]!.uri!]);
  const expected = await rig.served(latest);
  await pair.replica.json('failover', 'complete', pair.vm);
  assert.deepEqual(await rig.points(), []);
  await pair.replica.until<Served>(['status', pair.vm], ({ failover }) => failover?.settling === 'done');
  same(await rig.served(latest), expected, 'after completion');
  const plain = await Promise.all(expected.map((_, index) => guestBytes(pair.replicaPath(index))));
  same(plain, expected, 'the plain file');
  assert.deepEqual(await rig.undoLogs(), []);
  // No guest: another program may have it, as soon as the server has seen the last one go. A restart serves it as well.
  await untilFree(pair.replicaPath(0));
  await mustRun('qemu-io', ['-f', qemuName(pair.replicaPath(0)), '-c', 'write -P 12 2M 64k', pair.replicaPath(0)]);
  await pair.replica.kill9();
  await pair.replica.start();
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'read -P 12 2M 64k', '-c', 'write -P 13 2M 64k', (await rig.status()).disks[0]!.uri!]);
  await pair.replica.json('remove', pair.vm);
  assert.equal((await guestBytes(pair.replicaPath(0))).length, DISK_BYTES);
});
