/** What a real host is made of besides its own code, and what it learns from its machine. */
import { readFile } from 'node:fs/promises';
import { availableParallelism, hostname } from 'node:os';
import type { Clock, Compute, Files, LocalSockets, Logger, Programs, Random } from '../model/ports.ts';
import type { DiskRecord } from '../model/records.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { UnderstudyError } from '../model/errors.ts';

export interface HostParts extends Pick<ReplicationPorts, 'openDisk' | 'openDiskForReading' | 'createDisk'> {
  clock: Clock;
  random: Random;
  files: Files;
  compute: Compute;
  log: Logger;
  programs: Programs;
  sockets: LocalSockets;
  /** What a disk is, opened once as a guest would: fails like `openDisk` when it is missing, in use, or of an unknown format. */
  describeDisk(path: string): Promise<Omit<DiskRecord, 'diskId' | 'path'>>;
  /** IANA name of the local time zone. */
  zone: string;
  /** The kernel's, unless a test names another (UNDERSTUDY_BOOT_ID_FILE). */
  bootIdFile: string;
  /** The machine's own, unless a test plays another host of shared storage (UNDERSTUDY_HOST_ID_FILE). */
  hostIdFile: string;
  /** As in ReplicationPorts: for tests. */
  pointIntervalMs?: number;
}

export interface Machine {
  bootId: string;
  /** Stays over restarts; another one for each machine. */
  hostId: string;
  hostName: string;
  /** That this server may use. */
  processors: number;
}

export async function readMachine({ bootIdFile, hostIdFile }: Pick<HostParts, 'bootIdFile' | 'hostIdFile'>): Promise<Machine> {
  const hostName = hostname();
  const bootId = await readFile(bootIdFile, 'utf8').then((text) => text.trim(), () => '');
  if (bootId === '') {
    throw new UnderstudyError('io', 'BOOT_ID_UNREADABLE', `the boot id cannot be read from ${bootIdFile}`,
      'Without it a crash of the machine cannot be told from one of the server; mount /proc.');
  }
  const hostId = await readFile(hostIdFile, 'utf8').then((text) => text.trim(), () => '');
  return { bootId, hostId: hostId === '' ? hostName : hostId, hostName, processors: availableParallelism() };
}
