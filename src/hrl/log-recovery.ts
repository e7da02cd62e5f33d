/**
 * After a process crash: takes an open log up again (rules R1, R2). Only within the boot in which the log was open;
 * the caller has compared the boot id (R11).
 *
 * What is trusted, and why that is exactly enough. A disk write starts only after its append resolved, and appends
 * resolve in order. An append resolves when its frame and its data are in the page cache, which survives a process.
 * So everything acknowledged lies in whole frames, and before the first frame that is torn, or whose data is; nothing
 * from there on was acknowledged, so no disk write of it began, and cutting it off loses nothing. Frames below the
 * newest `acknowledged` count need no proof; the few above it are checked:
 * - the frame by its crc32;
 * - its data by the byte sum of each entry. The files are new and only grow, so a byte that was not written reads as
 *   zero; up to 16 MiB a byte sum notices every loss of a byte that was not zero. Metadata blocks are compared with
 *   what they must be.
 */
import { errnoOf } from '../model/errors.ts';
import type { OpenFile } from '../model/ports.ts';
import { completeClose, type ClosedLog, type LogPorts } from './closed-log.ts';
import { dataError, decodeHeader, HEADER_BYTES, type LogHeader } from './codec.ts';
import { IndexReplay, type Contradiction, type PlacedBlock, type UnfinishedRecord } from './index-replay.ts';
import { recordsIn, wholeFrames, type ScannedFrame } from './index-scan.ts';
import { decodeIndexHeader, INDEX_HEADER_BYTES, indexPathOf, type Frame } from './log-index.ts';
import { LogWriter, writeLogStart } from './log-writer.ts';
import { WindowedFile } from './windowed-file.ts';

export type { UnfinishedRecord } from './index-replay.ts';

export type Recovery =
  /**
   * The writer goes on where the log ended. `unfinished` in log order: for each, read the disk back, append that,
   * then tell the writer that both have finished. `torn` counts known records that were cut off; their disk writes
   * never began.
   */
  | { outcome: 'open'; writer: LogWriter; unfinished: UnfinishedRecord[]; torn: number }
  /** The crash came after the header was set: the close is complete now. */
  | { outcome: 'closed'; log: ClosedLog }
  /** No statement about the disk may rest on this log. */
  | { outcome: 'untrusted'; reason: string };

/**
 * Rejects with the system's error when a file cannot be read or written. Calling it again after that, or after a
 * crash, is safe.
 */
export async function recoverLog(ports: LogPorts, path: string): Promise<Recovery> {
  const opened: OpenFile[] = [];
  let result: Recovery | null = null;
  try {
    result = await recover(ports, path, opened);
    return result;
  } finally {
    // An open log's writer owns the files.
    if (result?.outcome !== 'open') for (const file of opened) await file.close();
  }
}

async function recover(ports: LogPorts, path: string, opened: OpenFile[]): Promise<Recovery> {
  const log = await openIfThere(ports, path, opened);
  if (log === null) return untrusted(`${path} is missing`);
  const header = await readHeader(log);
  if (header !== null && header.endOfLog !== 0) return recoverClosed(ports, path, log, header);

  const index = await openIfThere(ports, indexPathOf(path), opened);
  if (index === null) return untrusted(`${path} has no index: a write to the log failed, or it was never opened`);
  const frames = new WindowedFile(index, await index.size());
  const about = decodeIndexHeader(await frames.bytes(0, Math.min(INDEX_HEADER_BYTES, frames.size)));
  if ('malformed' in about) return untrusted(`${indexPathOf(path)}: ${about.malformed}`);
  if (header !== null && header.uniqueId !== about.uniqueId) {
    return untrusted(`${path} is log ${header.uniqueId}, its index belongs to log ${about.uniqueId}`);
  }

  const replay = new IndexReplay(about.diskSize);
  const result = await replayAll(replay, frames, new WindowedFile(log, await log.size()));
  if ('contradiction' in result) return untrusted(`${indexPathOf(path)}: ${result.contradiction}`);
  // The index first: a second crash in here finds the same frames torn again, or gone.
  await index.truncate(replay.indexEnd);
  await log.truncate(replay.layout.position);
  // A crash in the middle of `close` may have torn the header.
  await writeLogStart(log, about);
  const writer = new LogWriter(ports, path, about, { log, index }, {
    layout: replay.layout, indexPosition: replay.indexEnd, recordCount: replay.recordCount, marks: replay.marks(),
    lastActivity: replay.lastTimestamp ?? about.createdAt,
  });
  return { outcome: 'open', writer, unfinished: replay.unfinished(), torn: result.torn };
}

/**
 * Accepts every frame that is proven; frames wait until a later one says that they were acknowledged, or are checked
 * at the end.
 */
async function replayAll(
  replay: IndexReplay, index: WindowedFile, log: WindowedFile,
): Promise<{ torn: number } | Contradiction> {
  const waiting: ScannedFrame[] = [];
  for await (const scanned of wholeFrames(index)) {
    waiting.push(scanned);
    while (waiting.length > 0 && endRecord(waiting[0]!.frame) <= scanned.frame.acknowledged) {
      const proven = waiting.shift()!;
      const expected = replay.expect(proven.frame);
      if ('contradiction' in expected) return expected;
      replay.accept(proven);
    }
  }
  if (replay.layout.position > log.size && replay.recordCount > 0) {
    return { contradiction: `it acknowledges ${replay.layout.position} bytes, the log has ${log.size}` };
  }
  while (waiting.length > 0) {
    const expected = replay.expect(waiting[0]!.frame);
    if ('contradiction' in expected) return expected;
    if (!(await isWhole(waiting[0]!.frame, expected.blocks, log))) break;
    replay.accept(waiting.shift()!);
  }
  return { torn: waiting.reduce((records, { frame }) => records + recordsIn(frame), 0) };
}

function endRecord(frame: Frame): number {
  return frame.firstRecord + recordsIn(frame);
}

/** Whether all that the frame names lies in the log. */
async function isWhole(frame: Frame, blocks: readonly PlacedBlock[], log: WindowedFile): Promise<boolean> {
  if (frame.position + frame.length > log.size) return false;
  for (const entry of frame.entries) {
    if (entry.op === 'write' && dataError(entry, await log.bytes(entry.position, entry.length)) !== null) return false;
  }
  for (const block of blocks) {
    if (!block.bytes.equals(await log.bytes(block.position, block.bytes.length))) return false;
  }
  return true;
}

/**
 * The header is written after everything else, so all of the log is there; only its durability and the index's end
 * may be missing.
 */
async function recoverClosed(ports: LogPorts, path: string, log: OpenFile, header: LogHeader): Promise<Recovery> {
  const size = await log.size();
  const { uniqueId, previousUniqueId, totalEntries: entries, endOfLog } = header;
  if (size !== endOfLog) return untrusted(`${path} has ${size} bytes, its header says that it ends at ${endOfLog}`);
  return { outcome: 'closed', log: await completeClose(ports, log, { path, uniqueId, previousUniqueId, entries }) };
}

/** Null when it is not whole: a log that was just created, or a crash while the header was set. */
async function readHeader(log: OpenFile): Promise<LogHeader | null> {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const header = decodeHeader(bytes.subarray(0, await log.read(bytes, 0)));
  return 'malformed' in header ? null : header;
}

async function openIfThere(ports: LogPorts, path: string, opened: OpenFile[]): Promise<OpenFile | null> {
  try {
    const file = await ports.files.open(path, 'write');
    opened.push(file);
    return file;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

function untrusted(reason: string): Recovery {
  return { outcome: 'untrusted', reason };
}
