/** Two servers on loopback, each with its own data folder, as two machines would run them; and one VM between them. */
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestServer } from '../../test/rig/server.ts';
import { command } from './narrator.ts';

export const VM = 'shop';
export const DISK_BYTES = 512 << 20;

export interface Status {
  state: string;
  health: string;
  pendingBytes: number;
  lastAppliedEpoch: number;
}

export class TwoHosts {
  readonly folder: string;
  readonly primary: TestServer;
  readonly replica: TestServer;
  /** The primary's files of the VM's two disks. */
  readonly disks: string[];
  /** Where a hypervisor finds them while the primary serves them. */
  uris: string[] = [];
  #vmId = '';
  #cleared = false;

  private constructor(folder: string) {
    this.folder = folder;
    this.primary = new TestServer('alpha', join(folder, 'alpha'));
    this.replica = new TestServer('beta', join(folder, 'beta'));
    this.disks = [join(folder, 'system.raw'), join(folder, 'database.raw')];
  }

  /** Two new disks, all holes; no server runs yet. */
  static async make(): Promise<TwoHosts> {
    const hosts = new TwoHosts(await mkdtemp(join(tmpdir(), 'understudy-demo-')));
    await mkdir(join(hosts.folder, 'replicas'));
    for (const disk of hosts.disks) {
      await writeFile(disk, '');
      await truncate(disk, DISK_BYTES);
    }
    return hosts;
  }

  /** Each host learns the other's fingerprint; the VM is made known, replicated to the other host, and its disks served. */
  async pair(frequencySec: number): Promise<void> {
    await Promise.all([this.#start(this.primary), this.#start(this.replica)]);
    const [here, there] = await Promise.all([this.primary, this.replica].map((host) => host.json<{ fingerprint: string }>('fingerprint')));
    await this.onReplica('authorize', here!.fingerprint, '--name', 'alpha', '--storage', join(this.folder, 'replicas'));
    const { vmId } = await this.onPrimary<{ vmId: string }>('vm', 'add', VM, '--disk', ...this.disks);
    this.#vmId = vmId;
    await this.onPrimary('enable', VM, '--replica', `127.0.0.1:${this.replica.peerPort}`, '--fingerprint', there!.fingerprint,
      '--frequency', String(frequencySec));
    const { disks } = await this.onPrimary<{ disks: { uri: string }[] }>('vm', 'attach', VM);
    this.uris = disks.map(({ uri }) => uri);
  }

  /** Runs a command on the primary host, and shows it. */
  onPrimary<T = Record<string, unknown>>(...words: string[]): Promise<T> {
    return this.#shown(this.primary, words);
  }

  onReplica<T = Record<string, unknown>>(...words: string[]): Promise<T> {
    return this.#shown(this.replica, words);
  }

  untilStatus(holds: (status: Status) => boolean, timeoutMs = 60_000): Promise<Status> {
    return this.primary.until<Status>(['status', VM], holds, timeoutMs);
  }

  /** As the replica itself sees it: the primary hears what is applied with its next report only. */
  untilReplicaStatus(holds: (status: Status) => boolean, timeoutMs = 60_000): Promise<Status> {
    return this.replica.until<Status>(['status', VM], holds, timeoutMs);
  }

  /** The replica's files of the two disks. */
  get replicas(): string[] {
    return ['system.raw', 'database.raw'].map((name) => join(this.folder, 'replicas', VM, this.#vmId, name));
  }

  /** kill -9, and a new start over the same data folder and port. */
  async restartPrimary(whenDead: () => void): Promise<void> {
    await this.primary.kill9();
    whenDead();
    await this.#start(this.primary);
  }

  /** Ends both servers and removes all that was made. */
  async clear(): Promise<void> {
    this.#cleared = true;
    await Promise.all([this.primary.kill9(), this.replica.kill9()]);
    await rm(this.folder, { recursive: true, force: true });
  }

  /** The story goes on for a moment after Ctrl-C; it must not leave a server behind. */
  async #start(host: TestServer): Promise<void> {
    if (this.#cleared) throw new Error('the demo was stopped');
    await host.start();
  }

  #shown<T>(host: TestServer, words: string[]): Promise<T> {
    const short = words.map((word) => word.replace(this.folder, '…').replace(/^([0-9A-F:]{12})[0-9A-F:]{20,}$/i, '$1…'));
    command(['--data', `…/${host.name}`, ...short]);
    return host.json<T>(...words);
  }
}
