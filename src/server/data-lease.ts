/**
 * One server per data folder (rule R25). On one host an open-file-description lock on DATA/lock decides: it ends with the
 * process,
 * however that ends. Across hosts that share the folder the lease file in it decides: it names the host that used it last
 * and when.
 */
import { open, readFile, writeFile } from 'node:fs/promises';
import { libc } from '../disk/libc.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';

/** A host that has not renewed its lease for so long is taken to be gone. */
const LEASE_MS = 30_000;
const RENEW_MS = 5_000;
const LOCK_BYTE = 0;

interface LeaseText {
  hostId: string;
  hostName: string;
  bootId: string;
  pid: number;
  renewedAt: number;
  released: boolean;
}

export interface DataLease {
  release(): Promise<void>;
}

/** Throws UnderstudyError DATA_FOLDER_IN_USE when another server holds the folder. */
export async function holdDataFolder(
  folder: string, self: { hostId: string; hostName: string; bootId: string }, clock: Clock,
): Promise<DataLease> {
  const lock = await open(`${folder}/lock`, 'a+', 0o600).catch((cause: unknown) => {
    throw new UnderstudyError('io', 'DATA_FOLDER_UNUSABLE', `the data folder ${folder} cannot be used: ${messageOf(cause)}`,
      'Run the server as the user that owns it, or name another one with --data DIR.', { cause });
  });
  if (libc().lockByte(lock.fd, LOCK_BYTE, 'write') === 'conflict') {
    await lock.close();
    throw inUse(folder, 'a server on this host holds it', 'Stop that server first, or name another --data folder.');
  }
  const path = `${folder}/lease.json`;
  const before = await readLease(path);
  if (before !== null && before.hostId !== self.hostId && !before.released && clock.now() - before.renewedAt < LEASE_MS) {
    await lock.close();
    const since = new Date(before.renewedAt).toISOString();
    throw inUse(folder, `host ${before.hostName} (process ${before.pid}) renewed its lease at ${since}`,
      `Stop the server on ${before.hostName}; when that host is gone, wait ${LEASE_MS / 1000} s and try again.`);
  }
  const write = (released: boolean) => writeFile(path, JSON.stringify(
    { ...self, pid: process.pid, renewedAt: clock.now(), released } satisfies LeaseText), { mode: 0o600 });
  await write(false);
  const stop = new AbortController();
  const renewing = (async () => {
    while (!stop.signal.aborted) {
      await clock.sleep(RENEW_MS, stop.signal).catch(() => undefined);
      // A renewal that fails shows to the other host as an expired lease; the local lock still holds.
      if (!stop.signal.aborted) await write(false).catch(() => undefined);
    }
  })();
  return {
    async release() {
      stop.abort();
      await renewing;
      await write(true);
      await lock.close();
    },
  };
}

async function readLease(path: string): Promise<LeaseText | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as LeaseText;
  } catch {
    // Missing, or cut by a crash of its writer: then it proves nothing, and the lock has been taken.
    return null;
  }
}

const inUse = (folder: string, why: string, remedy: string): UnderstudyError =>
  new UnderstudyError('state', 'DATA_FOLDER_IN_USE', `the data folder ${folder} is in use: ${why}`, remedy);
