/**
 * The last step of closing a log, on its own because a crash may fall into the middle of it: recovery then takes it
 * again.
 */
import { dirname } from 'node:path';
import type { Compute, Files, OpenFile } from '../model/ports.ts';
import { indexPathOf } from './log-index.ts';

/** What this folder needs of the outside world. */
export interface LogPorts {
  files: Files;
  compute: Pick<Compute, 'digester'>;
}

/** A closed, durable log. */
export interface ClosedLog {
  path: string;
  uniqueId: string;
  previousUniqueId: string | null;
  /** Bytes of the file. */
  size: number;
  /** Entries in the file: one per record, more where a long record was split. */
  entries: number;
  /** BLAKE3 of the whole file, 64 lower-case hex digits: what `b3sum` prints. */
  digest: string;
}

const CHUNK_BYTES = 1 << 20;

/**
 * For a log whose header already names its end. The index goes only when the log is durable. The digest is of the
 * file as it is, read back: it costs the guest's writes nothing, and anyone can check it with a tool
 * (docs/decisions/0002-open-log.md).
 */
export async function completeClose(
  ports: LogPorts, log: OpenFile, about: Pick<ClosedLog, 'path' | 'uniqueId' | 'previousUniqueId' | 'entries'>,
): Promise<ClosedLog> {
  await log.datasync();
  const { size, digest } = await digestOf(ports, log);
  await ports.files.remove(indexPathOf(about.path));
  await ports.files.syncFolder(dirname(about.path));
  const { path, uniqueId, previousUniqueId, entries } = about;
  return { path, uniqueId, previousUniqueId, size, entries, digest };
}

/** BLAKE3 of a whole file as hex, in memory of two chunks: one is hashed while the next is read. */
async function digestOf(ports: LogPorts, file: OpenFile): Promise<{ size: number; digest: string }> {
  const digester = ports.compute.digester();
  const chunks = [new Uint8Array(CHUNK_BYTES), new Uint8Array(CHUNK_BYTES)];
  let size = 0;
  let reading = file.read(chunks[0]!, 0);
  for (let turn = 0; ; turn++) {
    const count = await reading;
    if (count === 0) break;
    size += count;
    reading = file.read(chunks[(turn + 1) % 2]!, size);
    digester.update(chunks[turn % 2]!.subarray(0, count));
  }
  return { size, digest: Buffer.from(digester.digest()).toString('hex') };
}
