/** Programs that are not ours: what they write and what they find counts, not what we say of ourselves. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { mustRun } from '../../test/rig/program.ts';

/** How long a disk waits for its server to come back. The same setting as a virtual machine's disk would have. */
const RECONNECT_SEC = 30;
const NEEDED = ['qemu-img', 'fio', 'mkfs.ext4', 'e2fsck', 'setpriv'];

/** mkfs.ext4 and e2fsck live where a plain user does not look. */
export function completePath(): void {
  process.env.PATH = `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`;
  const folders = process.env.PATH.split(delimiter);
  const missing = NEEDED.filter((program) => !folders.some((folder) => existsSync(join(folder, program))));
  if (missing.length > 0) throw new Error(`not installed: ${missing.join(', ')}; run: npm run demo (it tells the packages)`);
}

/** As mustRun; the program dies with the demo, however that ends. */
const outside = (...words: string[]): Promise<string> => mustRun('setpriv', ['--pdeathsig', 'KILL', ...words]);

/** A file system over the first `bytes` of the disk that holds the files of `folder`; no root, no mount. */
export async function makeFileSystem(disk: string, bytes: number, folder: string): Promise<void> {
  await outside('mkfs.ext4', '-q', '-F', '-d', folder, disk, `${bytes / 1024}k`);
}

/** Random 4 KiB writes with a flush after each 64, over what lies behind the file system. */
export async function randomWrites(uri: string, offset: number, bytes: number, cwd: string): Promise<void> {
  await mustRun('setpriv', ['--pdeathsig', 'KILL', 'fio', '--name=writes', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k',
    '--iodepth=8', `--offset=${offset}`, `--size=${bytes}`, `--io_size=${bytes}`, '--fsync=64', '--minimal'], { cwd });
}

/** Small flushed writes through QEMU's block layer, batch after batch until told to stop. Any I/O error of the disk is an error. */
export class SteadyWrites {
  static readonly #BATCH = { count: 400, size: 4096 };
  #batches = 0;
  #enough = false;
  #wake = (): void => undefined;
  readonly #ended: Promise<void>;

  constructor(uri: string, offset: number) {
    const [, name, socket] = /^nbd\+unix:\/\/\/([^?]*)\?socket=(.+)$/.exec(uri)!;
    this.#ended = this.#write(`driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${socket},file.export=${
      decodeURIComponent(name!)},file.reconnect-delay=${RECONNECT_SEC},file.open-timeout=${RECONNECT_SEC}`, offset);
    // It is told to whoever waits for a batch or for the end; until then it must not count as unhandled.
    this.#ended.catch(() => undefined);
  }

  async #write(disk: string, offset: number): Promise<void> {
    const { count, size } = SteadyWrites.#BATCH;
    while (!this.#enough) {
      await outside('qemu-img', 'bench', '-w', '-q', '-c', String(count), '-s', String(size), '-d', '4', '--flush-interval=4',
        '--no-drain', '-o', String(offset), `--pattern=${(this.#batches % 255) + 1}`, '--image-opts', disk);
      this.#batches++;
      this.#wake();
    }
  }

  /** Resolves when one more batch is done. */
  async batch(): Promise<void> {
    await Promise.race([this.#ended, new Promise<void>((resolve) => (this.#wake = resolve))]);
  }

  /** Ends after the batch that runs; the bytes written in all. */
  async stop(): Promise<number> {
    this.#enough = true;
    await this.#ended;
    return this.#batches * SteadyWrites.#BATCH.count * SteadyWrites.#BATCH.size;
  }
}

/** Byte for byte; the disks must not be changing. */
export async function mustBeIdentical(one: string, other: string): Promise<void> {
  await outside('qemu-img', 'compare', '-U', '-f', 'raw', '-F', 'raw', one, other);
}

/** A file system that nobody has mounted. */
export async function mustBeClean(disk: string): Promise<void> {
  await outside('e2fsck', '-fn', disk);
}
