/**
 * The checks of `understudy doctor`. Each tells what was found; one that fails tells what to do. Nothing is changed
 * but for a probe file.
 */

import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Descriptor } from '../disk/descriptor.ts';
import { shellWord } from '../disk/disk-errors.ts';
import { lockImage } from '../disk/image-lock.ts';
import { libc } from '../disk/libc.ts';
import { nearestFolder } from '../disk/nearest-folder.ts';
import { UnderstudyError, messageOf } from '../model/errors.ts';
import type { Files } from '../model/ports.ts';
import type { Check } from '../server/api/contract.ts';
import type { CommandContext } from './context.ts';
import { bytes } from './format.ts';

const NODE_MAJOR_MIN = 24;
/** Below this the logs of a busy guest fill the volume within minutes. */
const FREE_BYTES_MIN = 1 << 30;
const PROBE_NAME = '.understudy-doctor';
const PROBE_BYTES = 4 << 20;
const PROGRAM_TIMEOUT_MS = 5_000;
const TOOLS = [
  ['qemu-img', 'conversion and comparison of images', 'qemu-utils'],
  ['qemu-nbd', 'qcow2 and other formats of QEMU as a disk', 'qemu-utils'],
] as const;

export async function examineHost(context: CommandContext): Promise<Check[]> {
  const { files } = context.surroundings;
  // What this user may not look at is as good as not there.
  const folder = await nearestFolder({ stat: (path) => files.stat(path).catch(() => null) }, context.dataFolder);
  const own = [
    checkNode(),
    check(
      'native-calls',
      libc().native,
      'holes, locks and device sizes by libc',
      'koffi does not load: everything works, but slower and without locks',
      'Run npm ci again on this machine.',
    ),
    ...(await checkFolder(files, folder, context.dataFolder)),
    await checkSpace(files, folder),
    await checkClock(),
    ...(await Promise.all(TOOLS.map(([tool, use, pack]) => checkTool(tool, use, pack)))),
  ];
  const ofServer = await checkServer(context);
  // Both look at the data folder; one line about a thing is enough.
  return [...own, ...ofServer.filter(({ check: name }) => !own.some((mine) => mine.check === name))];
}

function check(name: string, ok: boolean, good: string, bad: string, remedy: string): Check {
  return { check: name, ok, detail: ok ? good : bad, remedy: ok ? null : remedy };
}

function checkNode(): Check {
  const version = process.versions.node;
  const ok = Number(version.split('.', 1)[0]) >= NODE_MAJOR_MIN;
  return check(
    'node',
    ok,
    `Node ${version}`,
    `Node ${version} is older than ${NODE_MAJOR_MIN}`,
    'Start it as bin/understudy, which brings its own Node.',
  );
}

/** Locks and holes on the file system that the data folder is, or would be, on. */
async function checkFolder(files: Files, folder: string, dataFolder: string): Promise<Check[]> {
  const path = join(folder, PROBE_NAME);
  try {
    await files.remove(path);
    const probe = await Descriptor.open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL);
    try {
      return [
        check('data-folder', true, folder === dataFolder ? dataFolder : `${dataFolder} (not there yet)`, '', ''),
        checkLocks(probe, folder),
        await checkHoles(probe, folder),
      ];
    } finally {
      await probe.close();
      await files.remove(path);
    }
  } catch (error) {
    return [
      check(
        'data-folder',
        false,
        '',
        `${folder} cannot be written: ${messageOf(error)}`,
        `Make it writable, or give another one with --data.`,
      ),
    ];
  }
}

function checkLocks(probe: Descriptor, folder: string): Check {
  const { kind } = lockImage(probe.fd, 'write', libc());
  return check(
    'file-locks',
    kind === 'held',
    `images can be locked on ${folder}`,
    `images cannot be locked on ${folder}: another program could write to a disk in use`,
    'Keep disks and data on a local file system, or on NFS 4.',
  );
}

async function checkHoles(probe: Descriptor, folder: string): Promise<Check> {
  await probe.write([Buffer.from([1])], PROBE_BYTES - 1);
  const sparse = libc().seekHole(probe.fd, 0, PROBE_BYTES) === 0 && (libc().seekData(probe.fd, 0) ?? 0) > 0;
  return check(
    'holes',
    sparse,
    `holes are found on ${folder}`,
    `${folder} does not tell where files have holes: every byte is read, nothing is skipped`,
    'Use ext4, XFS, Btrfs, ZFS or tmpfs.',
  );
}

async function checkSpace(files: Files, folder: string): Promise<Check> {
  const free = await files.freeBytes(folder);
  return check(
    'free-space',
    free >= FREE_BYTES_MIN,
    `${bytes(free)} free in ${folder}`,
    `only ${bytes(free)} free in ${folder}, wanted are ${bytes(FREE_BYTES_MIN)}`,
    'Free space: a full volume makes a resynchronization necessary.',
  );
}

/** Peers whose clocks differ by more than five minutes refuse each other. */
async function checkClock(): Promise<Check> {
  const answer = await output('timedatectl', ['show', '--property=NTPSynchronized', '--value']);
  if (answer === null)
    return check('clock', true, 'nothing here tells whether it is synchronised; peers compare', '', '');
  return check(
    'clock',
    answer === 'yes',
    'synchronised',
    'not synchronised with a time server',
    'Run: timedatectl set-ntp true',
  );
}

async function checkTool(tool: string, use: string, pack: string): Promise<Check> {
  const version = await output(tool, ['--version']);
  return check(
    tool,
    version !== null,
    version?.split('\n', 1)[0] ?? '',
    `not found; needed for ${use}`,
    `Install it: apt-get install ${pack}`,
  );
}

/** The first word on stdout of a program, or null when it is missing or fails. */
async function output(program: string, args: string[]): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(program, args, { timeout: PROGRAM_TIMEOUT_MS });
    return stdout.trim();
  } catch {
    return null;
  }
}

async function checkServer({ call, dataFolder }: CommandContext): Promise<Check[]> {
  try {
    const checks = await call('doctor', {});
    return [check('server', true, `answers on ${dataFolder}`, '', ''), ...checks];
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    return [
      check(
        'server',
        false,
        '',
        error.message,
        error.code === 'SERVER_NOT_RUNNING' ? `understudy serve --data ${shellWord(dataFolder)}` : error.remedy,
      ),
    ];
  }
}
