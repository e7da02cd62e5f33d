/** Two servers, each in a network namespace of its own, joined by a line of a given rate (tc tbf). Needs root and iproute2. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { kill9, mustRun, run } from '../test/rig/program.ts';
import { UNDERSTUDY } from '../test/rig/server.ts';
import { untilReplicating } from './repairs.ts';

type Site = 'primary' | 'replica';
const ADDRESS: Record<Site, string> = { primary: '10.77.3.1', replica: '10.77.3.2' };
const namespace = (site: Site) => `understudy-${process.pid}-${site}`;

export class TwoSites {
  readonly folder: string;
  readonly #servers = new Map<Site, ChildProcess>();

  constructor(folder: string) {
    this.folder = folder;
  }

  /** `rate` as tc takes it: `1gbit`, `1500kbit`. */
  async up(rate: string): Promise<void> {
    const inside = (site: Site, ...words: string[]) => mustRun('ip', ['-n', namespace(site), ...words]);
    for (const site of ['primary', 'replica'] as const) await mustRun('ip', ['netns', 'add', namespace(site)]);
    await mustRun('ip', ['link', 'add', 'eth0', 'netns', namespace('primary'), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace('replica')]);
    for (const site of ['primary', 'replica'] as const) {
      await inside(site, 'addr', 'add', `${ADDRESS[site]}/24`, 'dev', 'eth0');
      await inside(site, 'link', 'set', 'lo', 'up');
      await inside(site, 'link', 'set', 'eth0', 'up');
    }
    await this.setRate(rate);
  }

  async setRate(rate: string): Promise<void> {
    // A burst must cover a tick of the kernel's timer, or the rate is not reached.
    for (const site of ['primary', 'replica'] as const) {
      await mustRun('ip', ['netns', 'exec', namespace(site), 'tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', 'tbf', 'rate', rate,
        'burst', rate.endsWith('gbit') ? '1mb' : '32kb', 'latency', '200ms']);
    }
  }

  /** Resolves with the port of its peers when it serves. */
  async serve(site: Site): Promise<number> {
    const child = spawn('ip', ['netns', 'exec', namespace(site), UNDERSTUDY, 'serve', '--data', this.data(site), '--name', site,
      '--peer', `${ADDRESS[site]}:0`, '--http', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#servers.set(site, child);
    let said = '';
    for (;;) {
      const [data] = (await once(child.stdout, 'data')) as [Buffer];
      said += data.toString();
      const found = /ready peer=\S+:(\d+) /.exec(said);
      if (found !== null) return Number(found[1]);
    }
  }

  data(site: Site): string {
    return join(this.folder, site);
  }

  address(site: Site): string {
    return ADDRESS[site];
  }

  async json<T>(site: Site, ...words: string[]): Promise<T> {
    return JSON.parse(await mustRun(UNDERSTUDY, ['--data', this.data(site), ...words, '--json'], { timeoutMs: 3_600_000 })) as T;
  }

  /** Serves on both sites, with a VM of one disk that is attached and enabled to replicate every 900 s. */
  async enabled(path: string): Promise<{ vmId: string; disks: { uri: string }[] }> {
    const port = (await this.serve('primary'), await this.serve('replica'));
    const { fingerprint: ours } = await this.json<{ fingerprint: string }>('primary', 'fingerprint');
    const { fingerprint: theirs } = await this.json<{ fingerprint: string }>('replica', 'fingerprint');
    await this.json('replica', 'authorize', ours, '--storage', join(this.folder, 'store'));
    const vm = await this.json<{ vmId: string; disks: { uri: string }[] }>('primary', 'vm', 'add', 'vm', '--disk', path);
    await this.json('primary', 'vm', 'attach', 'vm');
    await this.json('primary', 'enable', 'vm', '--replica', `${this.address('replica')}:${port}`, '--fingerprint', theirs, '--frequency', '900');
    return vm;
  }

  /** Until the VM of `enabled` is in sync. */
  untilReplicating(): Promise<void> {
    return untilReplicating({ primary: { data: this.data('primary') }, vm: 'vm' });
  }

  /** Bytes that have crossed the line, both ways, headers and all. */
  async lineBytes(): Promise<number> {
    const count = async (name: string) => Number(await mustRun('ip',
      ['netns', 'exec', namespace('primary'), 'cat', `/sys/class/net/eth0/statistics/${name}`]));
    return (await count('tx_bytes')) + (await count('rx_bytes'));
  }

  /** Bytes that this site has put on the line; costs one read of a file. */
  sentBytes(site: Site): number {
    const line = /eth0:(.*)/.exec(readFileSync(`/proc/${this.#servers.get(site)!.pid!}/net/dev`, 'utf8'))![1]!;
    return Number(line.trim().split(/\s+/)[8]);
  }

  async down(): Promise<void> {
    for (const server of this.#servers.values()) await kill9(server);
    for (const site of ['primary', 'replica'] as const) await run('ip', ['netns', 'del', namespace(site)]);
  }
}
