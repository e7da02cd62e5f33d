/** A real libvirtd for tests. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { atEnd } from './at-end.ts';
import { hostClock } from '../../src/disk/host-clock.ts';

/** A libvirtd of a user of its own, with libvirt's test driver (`testUri`) and QEMU behind its socket; or why there is none here. */
export async function startLibvirtd(t: TestContext): Promise<{ socket: string; folder: string; testUri: string } | string> {
  if (process.getuid?.() !== 0) return 'needs root, to start libvirtd as another user';
  for (const program of ['libvirtd', 'virsh', 'setpriv']) if (spawnSync(program, ['--version']).error !== undefined) return `${program} is not installed`;
  const folder = await mkdtemp(join(tmpdir(), 'us-lv-'));
  atEnd(t, () => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'sock'));
  spawnSync('chown', ['-R', '65534:65534', folder]);
  const config = join(folder, 'libvirtd.conf');
  await writeFile(config, `unix_sock_dir = "${folder}/sock"\nauth_unix_rw = "none"\nlog_outputs = "3:stderr"\n`);
  const xdg = { HOME: folder, XDG_RUNTIME_DIR: folder, XDG_CONFIG_HOME: `${folder}/c`, XDG_CACHE_HOME: `${folder}/cache`, XDG_DATA_HOME: `${folder}/data` };
  const daemon = spawn('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', 'libvirtd', '-f', config], {
    env: { PATH: process.env['PATH']!, ...xdg }, stdio: 'ignore' });
  atEnd(t, async () => {
    daemon.kill('SIGTERM');
    if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, 'exit');
  });
  const socket = join(folder, 'sock/libvirt-sock');
  const end = performance.now() + 20_000;
  const testUri = `test+unix:///default?socket=${socket}`;
  while (spawnSync('virsh', ['-q', '-c', testUri, 'list']).status !== 0) {
    if (performance.now() > end || daemon.exitCode !== null) return 'libvirtd does not start here';
    await hostClock.sleep(100);
  }
  // The test driver forgets its domains with its last connection.
  const held = spawn('virsh', ['-q', '-c', testUri], { stdio: ['pipe', 'ignore', 'ignore'] });
  atEnd(t, () => held.kill());
  return { socket, folder, testUri };
}
