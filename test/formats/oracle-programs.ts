import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, openSync, readSync, closeSync, mkdtempSync, rmSync, statSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';

/** Other people's readers of VHD and VHDX: what they say a guest would read. */

const run = promisify(execFile);

export function missing(...programs: string[]): string | false {
  const absent = programs.filter((name) => spawnSync('which', [name], { stdio: 'ignore' }).status !== 0);
  return absent.length > 0 && `not installed: ${absent.join(', ')}`;
}

export const missingMounts = (): string | false => missing('vhdimount') || (!existsSync('/dev/fuse') && 'no /dev/fuse');

export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-formats-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** SHA-256 of all that a guest reads, by our own code. */
export async function digestOf(disk: VirtualDisk): Promise<string> {
  const hash = createHash('sha256');
  const into = Buffer.alloc(4 << 20);
  for (let at = 0; at < disk.virtualSize; at += into.length) {
    const piece = into.subarray(0, Math.min(into.length, disk.virtualSize - at));
    await disk.read(piece, at);
    hash.update(piece);
  }
  return hash.digest('hex');
}

function digestOfFile(path: string, size = statSync(path).size): string {
  const hash = createHash('sha256');
  const into = Buffer.alloc(4 << 20);
  const file = openSync(path, 'r');
  for (let at = 0; at < size; ) {
    const count = readSync(file, into, 0, Math.min(into.length, size - at), at);
    if (count === 0) throw new Error(`${path} ends at ${at}`);
    hash.update(into.subarray(0, count));
    at += count;
  }
  closeSync(file);
  return hash.digest('hex');
}

/** By qemu-img; never of a differencing VHD, which it reads wrongly without a word. */
export async function qemuDigest(path: string, format: 'vpc' | 'vhdx'): Promise<string> {
  const raw = `${path}.qemu.raw`;
  await run('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw]);
  const digest = digestOfFile(raw);
  rmSync(raw);
  return digest;
}

export async function qemuSize(path: string, format: 'vpc' | 'vhdx'): Promise<number> {
  const { stdout } = await run('qemu-img', ['info', '--output=json', '-f', format, path]);
  return (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'];
}

export async function qemuCheck(path: string): Promise<void> {
  await run('qemu-img', ['check', '-f', 'vhdx', path]);
}

/** By 7-Zip, through the whole chain of files beside each other. */
export async function sevenZipDigest(path: string, type: 'VHD' | 'VHDX'): Promise<string> {
  const { stdout } = await run('7z', ['x', '-so', `-t${type}`, path], { encoding: 'buffer', maxBuffer: 1 << 30 });
  return createHash('sha256').update(stdout).digest('hex');
}

/** By libvhdi through FUSE: the leaf of the chain. */
export async function libvhdiDigest(path: string, chainLength: number, size: number): Promise<string> {
  const mount = `${path}.mount`;
  mkdirSync(mount);
  await run('vhdimount', [path, mount]);
  try {
    return digestOfFile(join(mount, `vhdi${chainLength}`), size);
  } finally {
    await run('fusermount', ['-u', mount]).catch(() => run('fusermount3', ['-u', mount])).catch(() => run('umount', [mount]));
  }
}
