/** Two servers on loopback, paired, with one VM enabled: where most system tests begin. */
import { join } from 'node:path';
import { answerInside } from './answer-inside.ts';
import { atEnd, type Ending } from './at-end.ts';
import { assertSameDisk, makeDisk, type TestFormat } from './disk-formats.ts';
import { temporaryFolder } from './program.ts';
import { TestServer } from './server.ts';

export interface Status {
  state: string;
  health: string;
  healthDetails: string[];
  lastAppliedEpoch: number;
  lastReceivedEpoch: number;
  pendingBytes: number;
  resynchronizeStartTime: string | null;
}

export interface VmShape {
  vmId: string;
  disks: { path: string; uri: string; virtualSize: number }[];
}

export class Pair {
  readonly folder: string;
  /** Of all that the replica's host has. */
  readonly replicaFolder: string;
  readonly primary: TestServer;
  readonly replica: TestServer;
  readonly vm: string;
  readonly disks: string[] = [];
  readonly format: TestFormat;
  vmId = '';
  /** Where the primary finds the replica, when something stands between them. */
  linkPort: number | null = null;

  constructor(folder: string, vm: string, env: Record<string, string>, format: TestFormat = 'raw', replicaFolder = folder) {
    this.format = format;
    this.folder = folder;
    this.replicaFolder = replicaFolder;
    this.vm = vm;
    this.primary = new TestServer('primary', join(folder, 'primary'), env);
    this.replica = new TestServer('replica', join(replicaFolder, 'replica'), env);
  }

  /** Both servers up and paired; a VM with sparse disks of these sizes (bytes) enabled, not started. */
  static async make(
    t: Ending,
    options: {
      format?: TestFormat; sizes?: number[]; frequencySec?: 30 | 300 | 900; vm?: string; env?: Record<string, string>; enable?: string[]; add?: string[];
      /** Commands run inside of this process, also those that follow. */
      inside?: boolean;
      /** On a volume of its own, and removed by the caller; else beside the primary's. */
      replicaFolder?: string;
    } = {},
  ): Promise<Pair> {
    const folder = await temporaryFolder(t);
    const pair = new Pair(folder, options.vm ?? 'vm1', options.env ?? {}, options.format, options.replicaFolder);
    atEnd(t, () => pair.kill());
    if (options.inside === true) for (const server of [pair.primary, pair.replica]) answerInside(server);
    await pair.makeDisks(options.sizes ?? [64 << 20, 32 << 20]);
    await Promise.all([pair.primary.start(), pair.replica.start()]);
    await pair.authorize();
    const disks = pair.disks.flatMap((disk) => ['--disk', disk]);
    pair.vmId = (await pair.primary.json<VmShape>('vm', 'add', pair.vm, ...disks, ...(options.add ?? []))).vmId;
    await pair.enable(options.frequencySec ?? 30, options.enable ?? []);
    return pair;
  }

  async makeDisks(sizes: number[]): Promise<void> {
    for (const size of sizes) {
      const path = join(this.folder, `disk${this.disks.length}.${this.format}`);
      await makeDisk(path, this.format, size);
      this.disks.push(path);
    }
  }

  async authorize(): Promise<void> {
    const { fingerprint } = await this.primary.json<{ fingerprint: string }>('fingerprint');
    await this.replica.json('authorize', fingerprint, '--name', 'primary', '--storage', join(this.replicaFolder, 'store'));
  }

  async enable(frequencySec: number, more: string[] = []): Promise<void> {
    const { fingerprint } = await this.replica.json<{ fingerprint: string }>('fingerprint');
    await this.primary.json('enable', this.vm, '--replica', `127.0.0.1:${this.linkPort ?? this.replica.peerPort}`, '--fingerprint', fingerprint,
      '--frequency', String(frequencySec), ...more);
  }

  /** Attached, initial replication done. */
  async replicate(): Promise<void> {
    await this.primary.json('vm', 'attach', this.vm);
    await this.primary.json('start', this.vm);
    await this.untilState('Replicating');
  }

  status(): Promise<Status> {
    return this.primary.json<Status>('status', this.vm);
  }

  untilState(state: string, timeoutMs = 60_000): Promise<Status> {
    return this.primary.until<Status>(['status', this.vm], (status) => status.state === state, timeoutMs);
  }

  async uris(): Promise<string[]> {
    return (await this.primary.json<VmShape>('vm', 'show', this.vm)).disks.map(({ uri }) => uri);
  }

  replicaPath(index: number): string {
    return join(this.replicaFolder, 'store', this.vm, this.vmId, `disk${index}.${this.format}`);
  }

  /** Every disk with its replica; the disks must not be changing. */
  async compare(): Promise<void> {
    for (const [index, disk] of this.disks.entries()) {
      await assertSameDisk(disk, this.replicaPath(index));
    }
  }

  async kill(): Promise<void> {
    await Promise.all([this.primary.kill9(), this.replica.kill9()]);
  }
}
