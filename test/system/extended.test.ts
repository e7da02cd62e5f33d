/** Extended replication with three real servers: primary → replica → third host. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Pair, type Status } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import type { TestFormat } from '../rig/disk-formats.ts';
import { assertSameDisk } from '../rig/disk-formats.ts';

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
    const pair = await Pair.make(t, { sizes: [DISK_BYTES, DISK_BYTES], frequencySec: 300, env, ...(options.format && { format: options.format }) });
    const three = new Three(pair, new TestServer('third', join(pair.folder, 'third'), env));
    t.after(() => three.third.kill9());
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
