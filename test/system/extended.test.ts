/** Extended replication with three real servers: primary → replica → third host. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import type { TestFormat } from '../rig/disk-formats.ts';
import { assertSameDisk } from '../rig/disk-formats.ts';
import { answerInside } from '../rig/answer-inside.ts';

const DISK_BYTES = 16 << 20;

type Shape = Status & { mode: string; relationship: string; frequencySec: number; vmName: string; replicaServer: string };

class Three {
  readonly pair: Pair;
  readonly third: TestServer;

  constructor(pair: Pair, third: TestServer) {
    this.pair = pair;
    this.third = third;
  }

  static async make(t: TestContext, options: { format?: TestFormat; history?: number } = {}): Promise<Three> {
    const env = { UNDERSTUDY_POINT_INTERVAL_SEC: '0' };
    const pair = await Pair.make(t, { sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 300, env, inside: true, ...(options.format && { format: options.format }) });
    const three = new Three(pair, new TestServer('third', join(pair.folder, 'third'), env));
    atEnd(t, () => three.third.kill9());
    answerInside(three.third);
    await Promise.all([pair.replicate(), three.third.start()]);
    const { fingerprint } = await pair.replica.json<{ fingerprint: string }>('fingerprint');
    await three.third.json('authorize', fingerprint, '--name', 'replica', '--storage', join(pair.folder, 'third-store'));
    await three.extend('--recovery-history', String(options.history ?? 0));
    await pair.replica.json('start', 'vm1', '--extended');
    await three.untilLeg('Replicating');
    return three;
  }

  async extend(...more: string[]): Promise<Shape> {
    const { fingerprint } = await this.third.json<{ fingerprint: string }>('fingerprint');
    return this.pair.replica.json<Shape>('extend', 'vm1', '--replica', `127.0.0.1:${this.third.peerPort}`, '--fingerprint', fingerprint, ...more);
  }

  leg(): Promise<Shape> {
    return this.pair.replica.json<Shape>('status', 'vm1', '--extended');
  }

  untilLeg(state: string): Promise<Shape> {
    return this.pair.replica.until<Shape>(['status', 'vm1', '--extended'], (status) => status.state === state, 60_000);
  }

  async write(byte: number, offset: number, length = '64k'): Promise<void> {
    for (const uri of await this.pair.uris()) await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P ${byte} ${offset} ${length}`, uri]);
  }

  /** What the guest has written is on all three hosts. */
  async sync(): Promise<void> {
    await this.pair.primary.json('sync-now', 'vm1');
    await this.pair.replica.json('sync-now', 'vm1', '--extended');
  }

  thirdPath(index: number): string {
    return join(this.pair.folder, 'third-store', 'vm1', this.pair.vmId, `disk${index}.${this.pair.format}`);
  }

  async equal(): Promise<void> {
    await this.pair.compare();
    for (const index of this.pair.disks.keys()) await assertSameDisk(this.pair.replicaPath(index), this.thirdPath(index));
  }
}

test('the third host has the first copy and every change; a killed replica takes its queue up again', async (t) => {
  const three = await Three.make(t, { history: 4 });
  const { pair } = three;
  await three.write(1, 0);
  await three.write(2, 1 << 20);
  await pair.primary.json('sync-now', 'vm1');
  await three.write(3, 32 << 10);
  await three.sync();
  await three.equal();
  // Applied on the replica and not sent yet.
  await three.write(4, 5 << 20);
  await pair.primary.json('sync-now', 'vm1');
  await pair.replica.kill9();
  await pair.replica.start();
  await three.write(5, 6 << 20);
  await pair.primary.until<Shape>(['status', 'vm1'], ({ healthDetails, state }) => state === 'Replicating' && healthDetails.length >= 0);
  await three.sync();
  await three.equal();
  const { equal } = await pair.replica.json<{ equal: boolean }>('verify', 'vm1', '--extended');
  assert.equal(equal, true);

  const [first, leg] = await pair.replica.json<Shape[]>('status');
  assert.deepEqual([first!.mode, first!.relationship, leg!.mode, leg!.relationship, leg!.replicaServer, leg!.frequencySec],
    ['Replica', 'Simple', 'Replica', 'Extended', 'third', 300]);
  const there = await three.third.json<Shape>('status', 'vm1');
  assert.deepEqual([there.mode, there.relationship, there.state, there.health], ['ExtendedReplica', 'Extended', 'Replicating', 'Normal']);
  assert.ok((await three.third.json<unknown[]>('points', 'vm1')).length > 1);
});

test('the leg is steered with --extended and by the cmdlets; what it cannot be is refused; the third host fails over', async (t) => {
  const three = await Three.make(t, { history: 2 });
  const { pair: { replica, primary }, third } = three;
  // Enough that a resynchronization has something to read, in pieces below the limit of the logs.
  for (const offset of [0, 6 << 20]) {
    await three.write(1, offset, '6M');
    await three.sync();
  }

  const refused = async (server: TestServer, code: string, exit: number, ...words: string[]) => {
    const { status, stdout } = await server.cli(...words, '--json');
    assert.deepEqual([status, (JSON.parse(stdout) as { error: { code: string } }).error.code], [exit, code], words.join(' '));
  };
  await refused(replica, 'BAD_SETTING', 2, 'set', 'vm1', '--extended', '--frequency', '30');
  await refused(replica, 'VM_IS_EXTENDED', 3, 'remove', 'vm1');
  await refused(replica, 'WRONG_SIDE', 3, 'suspend', 'vm1');
  await refused(primary, 'NOT_EXTENDED', 3, 'suspend', 'vm1', '--extended');
  await refused(third, 'NOT_EXTENDED', 3, 'status', 'vm1', '--extended');

  await replica.cli('Suspend-VMReplication', 'vm1', '-ReplicationRelationshipType', 'Extended');
  assert.equal((await three.leg()).state, 'Suspended');
  const { stdout } = await replica.cli('Get-VMReplication', '-ReplicationRelationshipType', 'Extended', '|', 'select', 'VMName,ReplicationState,ReplicationMode');
  assert.match(stdout, /vm1\s+Suspended\s+Replica/);
  await three.write(2, 1 << 20);
  await primary.json('sync-now', 'vm1');
  await resynchronizeSeenInMetrics(three);
  await three.sync();
  await three.equal();
  const events = await replica.json<{ id: string | number; data: { relationship?: string } }[]>('events', 'vm1');
  assert.ok(events.some(({ id, data }) => id === 29244 && data.relationship === 'Extended'));

  // A disk grows on all three, without a resynchronization of either leg.
  await primary.json('vm', 'resize', 'vm1', '--disk', three.pair.disks[0]!, '--size', String(2 * DISK_BYTES));
  await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P 7 ${DISK_BYTES + (1 << 20)} 64k`, (await three.pair.uris())[0]!]);
  await three.sync();
  await three.equal();
  assert.equal((await three.leg()).state, 'Replicating');
  await refused(third, 'EXTENDED_REPLICA', 3, 'failover', 'vm1', '--planned');

  const point = (await third.json<{ id: string }[]>('points', 'vm1'))[0]!.id;
  await primary.json('vm', 'stop', 'vm1');
  const tested = await third.json<{ disks: { uri: string }[] }>('failover', 'vm1', '--test', '--point', point);
  await mustRun('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 1 0 64k', tested.disks[0]!.uri]);
  await third.json('failover', 'cancel', 'vm1');
  const served = await third.json<{ state: string; disks: { uri: string }[] }>('failover', 'vm1');
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'read -P 2 1M 64k', '-c', 'write -P 9 0 4k', served.disks[0]!.uri]);
  await refused(third, 'EXTENDED_REPLICA', 3, 'reverse', 'vm1');
  await refused(primary, 'PEER_FAILED_OVER', 3, 'vm', 'attach', 'vm1');
  await third.json('failover', 'cancel', 'vm1');
  await three.untilLeg('Replicating');
  await three.pair.untilState('Replicating');
  await primary.json('vm', 'attach', 'vm1');

  // Equality is proven by itself for the leg as well, days later.
  await replica.json('set', 'vm1', '--extended', '--verify-every', '1');
  await replica.stop();
  const past = Date.now() - 3 * 86_400_000;
  const catalog = new DatabaseSync(join(replica.data, 'catalog.db'));
  for (const { name } of catalog.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%relationships'").all()) {
    catalog.exec(`UPDATE ${String(name)} SET body = json_set(body, '$.createdAt', ${past})`);
  }
  catalog.close();
  await replica.start();
  const seen = await replica.until<{ id: string | number; data: { relationship?: string; comparedBytes?: number } }[]>(['events', 'vm1'],
    (lines) => lines.some(({ id }) => id === 'VerifyPassed'), 60_000);
  assert.equal(seen.find(({ id }) => id === 'VerifyPassed')!.data.comparedBytes, 3 * DISK_BYTES);

  await replica.json('remove', 'vm1', '--extended');
  await third.json('remove', 'vm1');
  await three.extend();
  await replica.json('start', 'vm1', '--extended', '--use-existing');
  await three.untilLeg('Replicating');
  await three.sync();
  await three.equal();
});

/** What `/metrics` of the replica host says of its leg: from when a resynchronization is required until it has ended, and of no other relationship. */
async function resynchronizeSeenInMetrics(three: Three): Promise<void> {
  const { replica } = three.pair;
  const shown = async () => {
    const text = await (await fetch(`http://${replica.httpAddress}/metrics`)).text();
    assert.doesNotMatch(text, /^understudy_resync_\w+{vm="vm1",relationship="primary"}/m, 'the replica itself is not the one that resynchronizes');
    return Object.fromEntries([...text.matchAll(/^understudy_resync_(\w+){vm="vm1",relationship="extended"} (\S+)$/gm)]
      .map(([, name, value]) => [name!, Number(value)]));
  };
  const [fullCompare, required, comparing] = [2, 0, 3];
  assert.deepEqual(await shown(), {});
  await replica.json('resume', 'vm1', '--extended', '--resynchronize', '--at', new Date(Date.now() + 3_600_000).toISOString());
  assert.deepEqual(await shown(), { rung: fullCompare, phase: required,
    total_bytes: 2 * DISK_BYTES, compared_bytes: 0, differing_bytes: 0, sent_bytes: 0 });
  // So slow that it does not end by itself.
  await replica.json('set', 'vm1', '--extended', '--disk-rate', '1M');
  await replica.json('resume', 'vm1', '--extended');
  await replica.until<{ disks: { comparedBytes: number }[] }>(['resync', 'status', 'vm1', '--extended'],
    ({ disks }) => disks.some(({ comparedBytes }) => comparedBytes > 0));
  const now = await shown();
  assert.deepEqual([now['rung'], now['phase'], now['total_bytes']], [fullCompare, comparing, 2 * DISK_BYTES]);
  assert.ok(now['compared_bytes']! > 0 && now['compared_bytes']! < 2 * DISK_BYTES, `${now['compared_bytes']} bytes`);
  await replica.json('set', 'vm1', '--extended', '--disk-rate', '0');
  await three.untilLeg('Replicating');
  assert.deepEqual(await shown(), {});
}

/** Both are opened whole, or not at all; one of them is enough for every day. */
for (const format of process.env['UNDERSTUDY_TEST_LONG'] === '1' ? (['vhdx', 'vhd'] as const) : (['vhdx'] as const)) {
  test(`a ${format} replica is read in windows while sets are applied to it, and its extended replica is equal`, async (t) => {
    const three = await Three.make(t, { format });
    await three.write(1, 0);
    await three.write(2, 5 << 20, '3M');
    await three.sync();
    await three.equal();
    const { equal } = await three.pair.replica.json<{ equal: boolean }>('verify', 'vm1', '--extended');
    assert.equal(equal, true);
  });
}
