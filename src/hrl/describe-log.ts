/** What `log show FILE.hrl` prints: ready for JSON. Open logs too, by their index when there is one. */
import { errnoOf, UnderstudyError } from '../model/errors.ts';
import type { Files, OpenFile } from '../model/ports.ts';
import type { LogHeader, RawEntry } from './codec.ts';
import { wholeFrames } from './index-scan.ts';
import { decodeIndexHeader, INDEX_HEADER_BYTES, indexPathOf } from './log-index.ts';
import { openLog, readLogHeader } from './log-reader.ts';
import { WindowedFile } from './windowed-file.ts';

export interface DescribedEntry {
  operation: 'write' | 'zero';
  byteOffset: number;
  length: number;
  /** ISO 8601 UTC. */
  timestamp: string;
}

export interface DescribedLog {
  /** `open`: not closed, entries from the index. `unreadable`: not closed, and there is no index that could tell. */
  state: 'closed' | 'open' | 'unreadable';
  header: Omit<LogHeader, 'createdAt' | 'modifiedAt'> & { createdAt: string; modifiedAt: string };
  entries: DescribedEntry[];
  /** True when there are more entries than were asked for. */
  truncated: boolean;
}

/**
 * At most `entriesMax` entries. Rejects as `openLog` does, but a log that is not closed is described as far as
 * possible.
 */
export async function describeLog(files: Files, path: string, entriesMax = 1_000_000): Promise<DescribedLog> {
  const header = await headerOf(files, path);
  const index = header.endOfLog === 0 ? await openIndex(files, path, header) : null;
  const entries: DescribedEntry[] = [];
  let truncated = false;
  try {
    const found = header.endOfLog !== 0 ? closedEntries(files, path) : index !== null ? openEntries(index) : [];
    for await (const entry of found) {
      truncated = entries.length === entriesMax;
      if (truncated) break;
      const { op, offset, length, timestamp } = entry;
      entries.push({ operation: op, byteOffset: offset, length, timestamp: isoOf(timestamp) });
    }
  } finally {
    await index?.close();
  }
  const state = header.endOfLog !== 0 ? 'closed' : index !== null ? 'open' : 'unreadable';
  const times = { createdAt: isoOf(header.createdAt), modifiedAt: isoOf(header.modifiedAt) };
  return { state, header: { ...header, ...times }, entries, truncated };
}

async function headerOf(files: Files, path: string): Promise<LogHeader> {
  const file = await files.open(path, 'read');
  try {
    const header = await readLogHeader(file);
    if (!('malformed' in header)) return header;
    const message = `${path} is not a valid tracking log: ${header.malformed}`;
    throw new UnderstudyError('io', 'LOG_INVALID', message, 'Name a file that a tracking log was written to.');
  } finally {
    await file.close();
  }
}

/** Null when there is none, or when it belongs to another log. */
async function openIndex(files: Files, path: string, header: LogHeader): Promise<OpenFile | null> {
  let index: OpenFile;
  try {
    index = await files.open(indexPathOf(path), 'read');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
  const bytes = Buffer.alloc(INDEX_HEADER_BYTES);
  const about = decodeIndexHeader(bytes.subarray(0, await index.read(bytes, 0)));
  if (!('malformed' in about) && about.uniqueId === header.uniqueId) return index;
  await index.close();
  return null;
}

/** The disk is not known here, so offsets are shown as they are. */
async function* closedEntries(files: Files, path: string): AsyncGenerator<RawEntry, void, void> {
  const log = await openLog(files, path, { diskSize: Infinity });
  try {
    yield* log.entries();
  } finally {
    await log.close();
  }
}

async function* openEntries(index: OpenFile): AsyncGenerator<RawEntry, void, void> {
  for await (const { frame } of wholeFrames(new WindowedFile(index, await index.size()))) yield* frame.entries;
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
