/**
 * A small file system that stops answering when it is told to, and goes on when it is told to: ext4, mounted so that each write
 * waits for its device, on a loop device over a file of FUSE (nbdfuse), behind nbdkit's pause filter. What hangs there hangs in the
 * kernel, as on a dead network share.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd, type Ending } from './at-end.ts';
import { kill9, mustRun, run } from './program.ts';

export interface HangingVolume {
  folder: string;
  hang(): Promise<void>;
  heal(): Promise<void>;
}

/** Null where this user may not mount file systems. Ask for it before the servers: their end needs the volume to answer. */
export async function hangingVolume(t: Ending, bytes = 32 << 20): Promise<HangingVolume | null> {
  if (process.getuid?.() !== 0 || !existsSync('/dev/fuse')) return null;
  const work = await mkdtemp(join(tmpdir(), 'understudy-hang-'));
  const [image, socket, control, fuse, folder] = ['image', 'nbd', 'control', 'fuse', 'mounted'].map((name) => join(work, name)) as
    [string, string, string, string, string];
  await writeFile(image, '');
  await truncate(image, bytes);
  await mustRun('mkfs.ext4', ['-q', '-F', image]);
  for (const made of [fuse, folder]) await mkdir(made);
  const kit = start('nbdkit', ['-f', '-U', socket, '--filter=pause', 'file', image, `pause-control=${control}`]);
  await appears(control, kit);
  const fused = start('nbdfuse', [join(fuse, 'disk'), `nbd+unix:///?socket=${socket}`]);
  await appears(join(fuse, 'disk'), fused);
  const loop = await run('losetup', ['--find', '--show', join(fuse, 'disk')]);
  const device = loop.stdout.trim();
  const mounted = loop.status === 0 && (await run('mount', ['-o', 'sync', device, folder])).status === 0;
  const volume: HangingVolume = { folder, hang: () => tell(control, 'p'), heal: () => tell(control, 'r') };
  atEnd(t, async () => {
    // What hangs in the kernel cannot be killed: it must go on first.
    await volume.heal();
    if (mounted) await run('umount', ['--lazy', folder]);
    if (loop.status === 0) await run('losetup', ['--detach', device]);
    await run('fusermount3', ['-u', '-z', fuse]);
    for (const child of [fused, kit]) await kill9(child);
    await rm(work, { recursive: true, force: true });
  });
  return mounted ? volume : null;
}

function start(program: string, words: string[]): ChildProcess {
  return spawn(program, words, { stdio: 'ignore' });
}

async function appears(path: string, child: ChildProcess): Promise<void> {
  for (let left = 100; left > 0; left--) {
    if (existsSync(path)) return;
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${child.spawnfile} does not make ${path}`);
}

/** One letter, answered by the same as a capital when it is so. */
async function tell(control: string, letter: 'p' | 'r'): Promise<void> {
  const connection = connect(control);
  connection.write(letter);
  const [answer] = (await once(connection, 'data')) as [Buffer];
  connection.destroy();
  if (answer.toString() !== letter.toUpperCase()) throw new Error(`nbdkit answered ${answer.toString()} to ${letter}`);
}
