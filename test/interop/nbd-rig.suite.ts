/** For interop tests: our NBD server on a raw file, and other people's programs as its clients. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hostClock } from '../../src/disk/host-clock.ts';
import { createRawDisk, type RawDisk } from '../../src/disk/raw-disk.ts';
import { diskExport, type NbdExport } from '../../src/nbd/export.ts';
import { NbdServer, nbdUri } from '../../src/nbd/server.ts';

/** Why a test that needs these programs must be skipped, or false. */
export function missing(...programs: string[]): string | false {
  const absent = programs.filter((program) => spawnSync(program, ['--version']).error !== undefined);
  return absent.length > 0 && `skipped because this host has no ${absent.join(', ')}`;
}

export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface Running {
  process: ChildProcess;
  ended: Promise<Ran>;
}

export function start(program: string, args: string[], input = ''): Running {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const ended = once(child, 'close').then(([status]) => (
    { status: status as number | null, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }));
  return { process: child, ended };
}

/** Runs to the end; throws with all that was said unless the status is 0. */
export async function run(program: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await start(program, args).ended;
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`);
  return stdout;
}

export interface NbdRig {
  folder: string;
  image: string;
  disk: RawDisk;
  server: NbdServer;
  socket: string;
  uri: string;
  /** What was logged as warning or error. */
  complaints: string[];
  /** The server stops as at the end of its process, and starts again at the same address. */
  restart(whileDown?: () => Promise<void>): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function nbdRig(
  size: number, options: { prompt?: boolean; exportOf?: (plain: NbdExport) => NbdExport } = {},
): Promise<NbdRig> {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-interop-'));
  const image = join(folder, 'served.raw');
  const socket = join(folder, 'nbd.sock');
  const disk = await createRawDisk(image, size);
  const promptly = options.prompt === true ? { promptWrites: hostClock } : {};
  const plain = diskExport('vm/disk 0', disk, { description: 'a test disk', ...promptly });
  const served = options.exportOf?.(plain) ?? plain;
  const complaints: string[] = [];
  const complain = (fields: object, message: string) => void complaints.push(`${message} ${JSON.stringify(fields)}`);
  const log = { debug: () => undefined, info: () => undefined, warn: complain, error: complain };
  const listen = async () => {
    const exports = (name: string) => (name === served.name ? served : undefined);
    const server = new NbdServer({ exports, list: () => [served.name], clock: hostClock, log });
    await server.listenUnix(socket);
    return server;
  };
  const rig: NbdRig = {
    folder, image, disk, socket, complaints,
    server: await listen(),
    uri: nbdUri({ kind: 'unix', path: socket }, served.name),
    async restart(whileDown) {
      await rig.server.close();
      await whileDown?.();
      rig.server = await listen();
    },
    async [Symbol.asyncDispose]() {
      await rig.server.close({ drainMs: 0 });
      await disk.close();
      rmSync(folder, { recursive: true });
    },
  };
  return rig;
}
