#!/usr/bin/env node
/** The one file that knows all: words of the command line → real clock, files and sockets → server or client. */
import { readFileSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { runCli } from './cli/run-cli.ts';
import { hostClock, hostRandom } from './disk/host-clock.ts';
import { hostFiles } from './disk/host-files.ts';
import { createImage } from './disk/images/create-image.ts';
import { openDisk } from './disk/open-disk.ts';
import { ReadRing } from './disk/read-ring.ts';
import { sharedFiles } from './disk/shared-files.ts';
import type { DiskFormat } from './disk/virtual-disk.ts';
import { WriteThread } from './disk/write-thread.ts';
import { hostPrograms } from './failover/adapters/host-programs.ts';
import type { DiskRecord } from './model/records.ts';
import { hostCompute } from './resync/compare/host-compute.ts';
import { hostSockets } from './failover/guest-agent/host-sockets.ts';
import type { HostParts } from './server/host-parts.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const pageFolder = fileURLToPath(new URL('../web/dist', import.meta.url));
/** A seam for tests: recovery points more often than hourly. */
const pointIntervalMs = Number(process.env.UNDERSTUDY_POINT_INTERVAL_SEC ?? 3600) * 1000;
const bootIdFile = process.env.UNDERSTUDY_BOOT_ID_FILE ?? '/proc/sys/kernel/random/boot_id';
const hostIdFile = process.env.UNDERSTUDY_HOST_ID_FILE ?? '/etc/machine-id';

/** What virsh needs to find a session of its user; nothing else of the environment reaches other programs. */
function homeOf({ HOME = '/', XDG_RUNTIME_DIR }: NodeJS.ProcessEnv): Record<string, string> {
  return { HOME, ...(XDG_RUNTIME_DIR === undefined ? {} : { XDG_RUNTIME_DIR }) };
}

function hostParts(): HostParts {
  // One for the logs and one for the disks: the log of one write and the disk of another go on at the same time.
  const [logThread, diskThread] = [new WriteThread(hostClock), new WriteThread(hostClock)];
  const readRing = ReadRing.open(hostClock);
  const format = (record: DiskRecord) => (record.format === 'nbd' ? {} : { format: record.format as DiskFormat });
  return {
    clock: hostClock, random: hostRandom, files: sharedFiles(hostFiles, logThread), compute: hostCompute(),
    programs: hostPrograms(hostClock, homeOf(process.env)), sockets: hostSockets, zone, bootIdFile, hostIdFile, pointIntervalMs,
    log: pino(
      { level: process.env.UNDERSTUDY_LOG_LEVEL ?? 'info', base: null, serializers: { error: pino.stdSerializers.err } },
      pino.destination({ fd: 2, sync: false }),
    ),
    openDisk: (record) => openDisk(record.path, {
      ...format(record), readOnly: false, bootIdFile, clock: hostClock, writeThread: diskThread,
      ...(readRing !== null && { readRing }) }),
    openDiskForReading: (record) => openDisk(record.path, { ...format(record), readOnly: true, lock: false, bootIdFile, clock: hostClock }),
    createDisk: ({ path, format: family, virtualSize, logicalSectorSize, geometry }) => createImage(path, {
      format: family as DiskFormat, size: virtualSize, geometry, ...(family === 'vhdx' && { logicalSectorSize }) }),
    describeDisk: async (path) => {
      const disk = await openDisk(path, { readOnly: false, bootIdFile, clock: hostClock });
      const { format: found, virtualSize, logicalSectorSize, geometry } = disk;
      await disk.close();
      return { format: found, virtualSize, logicalSectorSize, geometry };
    },
  };
}

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => stop.abort(new Error(name)));

process.exitCode = await runCli(process.argv.slice(2), {
  stdin: process.stdin, stdout: process.stdout, stderr: process.stderr, env: process.env,
  isTTY: { stdin: process.stdin.isTTY, stdout: process.stdout.isTTY, stderr: process.stderr.isTTY },
  cwd: process.cwd(), zone, clock: hostClock, files: hostFiles, version, signal: stop.signal,
  // Only a server needs the other half of the program.
  makeServer: async (options) => {
    const [{ serve }, { takeTurns }] = await Promise.all([import('./server/serve.ts'), import('./server/turns.ts')]);
    takeTurns();
    const running = await serve(hostParts(), { ...options, pageFolder }, version);
    // Now, and not at the end: a server may end by kill -9.
    flushCompileCache();
    return running;
  },
});
