/** A copy of a closed log that a strict MS-HRL reader takes: it knows no operation but write. */
import { UnderstudyError } from '../model/errors.ts';
import type { Files, OpenFile } from '../model/ports.ts';
import { byteSumChecksum } from './byte-sum.ts';
import { encodeHeader, HEADER_BYTES, ourHeader, type RawEntry } from './codec.ts';
import { LogLayout } from './log-layout.ts';
import { openLog, type LogEntry, type LogLimits, type LogReader } from './log-reader.ts';

const PIECE_BYTES = 1 << 20;
const ZEROES = new Uint8Array(PIECE_BYTES);

export interface StrictCopyOptions extends LogLimits {
  /** Writes zeroed ranges out as data. Without it a log that has any is refused with LOG_HAS_ZEROES. */
  expandZeroes: boolean;
}

/**
 * Copies the log at `from` to the new file `to`, durable when it resolves. Ids, times and order stay; entries longer
 * than 1 MiB are split. The source is verified first. Rejects as `openLog` does; an incomplete target is removed.
 */
export async function copyStrict(
  files: Files, from: string, to: string, options: StrictCopyOptions,
): Promise<{ entries: number; size: number }> {
  const log = await openLog(files, from, options);
  try {
    const { zeroBytes } = await log.verify();
    if (zeroBytes > 0 && !options.expandZeroes) {
      const message = `${from} zeroes ${zeroBytes} bytes by an operation that MS-HRL does not have`;
      throw new UnderstudyError('usage', 'LOG_HAS_ZEROES', message, 'Ask for zeroes to be written out as data.');
    }
    const target = await files.open(to, 'create');
    try {
      return await copyInto(target, log);
    } catch (error) {
      await files.remove(to);
      throw error;
    } finally {
      await target.close();
    }
  } finally {
    await log.close();
  }
}

async function copyInto(target: OpenFile, log: LogReader): Promise<{ entries: number; size: number }> {
  const layout = new LogLayout();
  await target.write([LogLayout.firstBlock()], HEADER_BYTES);
  const buffer = new Uint8Array(PIECE_BYTES);
  for await (const entry of log.entries()) {
    for (let skip = 0; skip < entry.length; skip += PIECE_BYTES) {
      const data = await pieceOf(log, entry, skip, buffer);
      const piece: RawEntry = {
        op: 'write', offset: entry.offset + skip, length: data.length, timestamp: entry.timestamp,
        dataChecksum: byteSumChecksum(data),
      };
      const { position, block } = layout.place(piece);
      await target.write(block === null ? [data] : [data, block], position);
    }
  }
  const position = layout.position;
  const block = layout.endBlock();
  if (block !== null) await target.write([block], position);
  const end = { currentSize: layout.position, endOfLog: layout.position, totalEntries: layout.entries };
  await target.write([encodeHeader(ourHeader(log.header, end))], 0);
  await target.datasync();
  return { entries: layout.entries, size: layout.position };
}

async function pieceOf(log: LogReader, entry: LogEntry, skip: number, buffer: Uint8Array): Promise<Uint8Array> {
  const length = Math.min(PIECE_BYTES, entry.length - skip);
  if (entry.op === 'zero') return ZEROES.subarray(0, length);
  const data = buffer.subarray(0, length);
  await log.readData(entry, data, skip);
  return data;
}
