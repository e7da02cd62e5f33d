/**
 * Other people's disk programs for tests: found or skipped with a reason, started so that they are ready when the
 * promise resolves.
 */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, watch } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export const run = promisify(execFile);

/** A reason to skip when one of the programs is not installed, else false. */
export function missing(...programs: string[]): string | false {
  const absent = programs.filter((name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).error !== undefined);
  return absent.length > 0 && `not installed: ${absent.join(', ')}`;
}

export function notRoot(): string | false {
  return process.getuid?.() !== 0 && 'needs root';
}

export async function temporaryFolder(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'understudy-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

export interface NbdServerProgram {
  uri: string;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill()));

/** Both programs write their pid file when they listen. */
async function started(program: string, args: string[], folder: string): Promise<NbdServerProgram> {
  const [socket, pidFile] = [join(folder, 'nbd.sock'), join(folder, 'nbd.pid')];
  await Promise.all([rm(socket, { force: true }), rm(pidFile, { force: true })]);
  const watcher = watch(folder);
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  running.add(child);
  let stderr = '';
  child.stderr.on('data', (text) => (stderr += String(text)));
  const ended = once(child, 'close').then(() => running.delete(child));
  try {
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      void ended.then(() => reject(Object.assign(new Error(`${program} ended: ${stderr}`), { stderr })));
      watcher.on('change', () => existsSync(pidFile) && resolve());
      if (existsSync(pidFile)) resolve();
    });
  } finally {
    watcher.close();
  }
  // Only a server that greets is past its start: qemu-nbd forgets a SIGTERM that comes between its pid file and its main loop.
  const client = connect(socket);
  await once(client, 'data');
  client.destroy();
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await ended;
    },
  };
}

export function startQemuNbd(image: string, format: string, folder: string, args: string[] = []): Promise<NbdServerProgram> {
  const where = ['--persistent', '--pid-file', join(folder, 'nbd.pid'), '--socket', join(folder, 'nbd.sock')];
  const how = ['--format', format, '--cache', 'writeback', '--discard', 'unmap'];
  return started('qemu-nbd', [...where, ...how, ...args, image], folder);
}

export function startNbdkit(folder: string, args: string[]): Promise<NbdServerProgram> {
  const where = ['--foreground', '--exit-with-parent', '--pidfile', join(folder, 'nbd.pid'), '--unix', join(folder, 'nbd.sock')];
  return started('nbdkit', [...where, ...args], folder);
}
