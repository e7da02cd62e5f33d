/**
 * The only place that starts QEMU's tools. An image gets here through `qemuImage`, and so through the one function that decides
 * whether QEMU may open it; its format is always named, since a guest can make a raw disk look like anything.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { errnoOf, UnderstudyError } from '../../model/errors.ts';
import type { Clock, Files } from '../../model/ports.ts';
import { openNbdDisk } from '../nbd/nbd-disk.ts';
import { qemuFormatOf, type QemuAccessOptions, type QemuFormat } from '../vhdx/qemu-access.ts';
import type { DiskFormat, VirtualDisk } from '../virtual-disk.ts';

/** An image that QEMU may open. Only `qemuImage` makes one. */
export interface QemuImage {
  readonly path: string;
  readonly format: QemuFormat;
  readonly allowed: typeof ALLOWED;
}

const ALLOWED = Symbol('qemuFormatOf has allowed it');
const CONNECT_AGAIN_MS = 20;

export interface QemuRunOptions {
  signal?: AbortSignal;
  /** Percent done. */
  onProgress?: (percent: number) => void;
}

/** @throws DISK_NOT_FOR_QEMU with the reason, and what else `qemuFormatOf` throws */
export async function qemuImage(path: string, format: DiskFormat, files: Files, options: QemuAccessOptions): Promise<QemuImage> {
  return { path, format: await qemuFormatOf(path, format, files, options), allowed: ALLOWED };
}

export async function qemuCreate(path: string, what: { size: number } | { backing: QemuImage }, options: QemuRunOptions = {}): Promise<void> {
  const words = 'size' in what ? [path, String(what.size)] : ['-b', what.backing.path, '-F', what.backing.format, path];
  await runQemuImg(['create', '-q', '-f', 'qcow2', ...words], options);
}

/** Writes a new file; what lies at `dest` is replaced. */
export async function qemuConvert(source: QemuImage, dest: string, format: 'raw' | 'qcow2', options: QemuRunOptions): Promise<void> {
  await runQemuImg(['convert', '-p', '-f', source.format, '-O', format, source.path, dest], options);
}

export interface QemuCheck {
  'check-errors': number;
  'corruptions'?: number;
  'leaks'?: number;
  'corruptions-fixed'?: number;
  'leaks-fixed'?: number;
}

export async function qemuCheck(image: QemuImage, repair: boolean, options: QemuRunOptions): Promise<QemuCheck> {
  const words = ['check', '--output=json', '-f', image.format, ...(repair ? ['-r', 'all'] : []), image.path];
  // 2: corruptions, 3: leaked clusters; both are in the answer.
  return JSON.parse(await runQemuImg(words, options, [0, 2, 3])) as QemuCheck;
}

export async function qemuResize(image: QemuImage, size: number, options: QemuRunOptions = {}): Promise<void> {
  await runQemuImg(['resize', '-q', '-f', image.format, image.path, String(size)], options);
}

/** Brings what the image holds into its backing file; the image stays as it is. */
export async function qemuCommit(image: QemuImage, options: QemuRunOptions): Promise<void> {
  await runQemuImg(['commit', '-d', '-p', '-f', image.format, image.path], options);
}

/**
 * Writes into a qcow2 image through qemu-nbd, over a Unix socket at `socket`, which must not exist. Resolves when QEMU has closed the
 * image.
 */
export async function writeQcow2(image: QemuImage, socket: string, options: { signal?: AbortSignal; clock: Clock },
  work: (disk: VirtualDisk) => Promise<void>): Promise<void> {
  const { signal, clock } = options;
  signal?.throwIfAborted();
  const words = ['--format', image.format, '--socket', socket, '--discard=unmap', image.path];
  const child = spawn('qemu-nbd', words, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(child, 'close').then(([code]) => code as number | null, (error: unknown) => error);
  try {
    const disk = await connect(`nbd+unix:///?socket=${encodeURIComponent(socket)}`, ended, clock, signal);
    try {
      await work(disk);
      await disk.flush();
    } finally {
      await disk.close();
    }
  } catch (error) {
    child.kill();
    if (errnoOf(await ended) === 'ENOENT') throw missing('qemu-nbd');
    throw said === '' || signal?.aborted === true ? error : failed('qemu-nbd', said);
  }
  // Its only client has gone: it closes the image and ends.
  if ((await ended) !== 0) throw failed('qemu-nbd', said);
}

/** It listens some moments after it was started, and says nothing then. */
async function connect(uri: string, ended: Promise<unknown>, clock: Clock, signal: AbortSignal | undefined): Promise<VirtualDisk> {
  let over = false;
  void ended.then(() => (over = true));
  for (;;) {
    try {
      return await openNbdDisk(uri, { readOnly: false, clock });
    } catch (error) {
      if (over || !(error instanceof UnderstudyError) || error.code !== 'NBD_UNREACHABLE') throw error;
      await clock.sleep(CONNECT_AGAIN_MS, signal);
    }
  }
}

const missing = (program: string): UnderstudyError => new UnderstudyError('io', 'QEMU_IMG_MISSING',
  `${program} is not installed, and qcow2 images are left to it`, 'Install it: apt-get install qemu-utils.');

const failed = (what: string, said: string): UnderstudyError => new UnderstudyError('io', 'QEMU_IMG_FAILED',
  `${what} failed: ${said.trim().split('\n').slice(-3).join('; ')}`, 'See what it says; the image that was read is unchanged.');

async function runQemuImg(words: string[], { signal, onProgress }: QemuRunOptions, good: number[] = [0]): Promise<string> {
  signal?.throwIfAborted();
  const child = spawn('qemu-img', words, { stdio: ['ignore', 'pipe', 'pipe'], ...(signal && { signal }) });
  const said = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const percents = [...text.matchAll(/\((\d+\.\d+)\/100%\)/g)];
    if (percents.length > 0) onProgress?.(Number(percents.at(-1)![1]));
    else said.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said.stderr += text));
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== null && good.includes(code)) return said.stdout;
    throw failed(`qemu-img ${words[0]} (exit ${code ?? 'by a signal'})`, said.stderr);
  } catch (error) {
    if (signal?.aborted === true) {
      // The reason is thrown before the program has ended; what it wrote is removed by the caller, after its last write.
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
      throw signal.reason as Error;
    }
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw missing('qemu-img');
  }
}
