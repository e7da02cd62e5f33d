/**
 * Several sets of logs as one: what they leave of a disk, in order of offset and each byte once. Applying it gives the disk that applying
 * them one after another gives.
 */
import { STRIDE_BYTES } from '../../disk/layered-disk.ts';
import { openLog } from '../../hrl/log-reader.ts';
import type { LogWriter } from '../../hrl/log-writer.ts';
import type { Files } from '../../model/ports.ts';
import { LogLayer, type LayeredLog } from '../log-layer.ts';

/** Entries that are indexed in memory, 30 bytes each; more are copied as they are, one log after the other. */
export const COALESCED_ENTRIES_MAX = 2_000_000;
const PIECE_BYTES = 1 << 20;

/** `logs`: of one disk, oldest first, checked when they were applied. Rejects with the I/O error of either side. */
export async function coalesce(files: Files, logs: readonly LayeredLog[], into: LogWriter, timeMs: number, entriesMax = COALESCED_ENTRIES_MAX): Promise<void> {
  const entries = logs.reduce((sum, log) => sum + log.entries, 0);
  if (entries === 0) return;
  const append = async (offset: number, length: number, read: ((data: Uint8Array, offset: number) => Promise<void>) | null) => {
    if (read === null) {
      into.finished(await into.append([{ op: 'zero', offset, length }], timeMs));
      return;
    }
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const data = new Uint8Array(Math.min(PIECE_BYTES, length - done));
      await read(data, offset + done);
      into.finished(await into.append([{ op: 'write', offset: offset + done, data }], timeMs));
    }
  };
  if (entries > entriesMax || logs.length === 1) await inOrder(files, logs, append);
  else await eachByteOnce(files, logs, into.diskSize, append);
}

type Append = (offset: number, length: number, read: ((data: Uint8Array, offset: number) => Promise<void>) | null) => Promise<void>;

async function inOrder(files: Files, logs: readonly LayeredLog[], append: Append): Promise<void> {
  for (const { path, diskSize } of logs) {
    const reader = await openLog(files, path, { diskSize });
    try {
      for await (const entry of reader.entries()) {
        const { op, offset, length } = entry;
        await append(offset, length, op === 'zero' ? null : (data, from) => reader.readData(entry, data, from - offset));
      }
    } finally {
      await reader.close();
    }
  }
}

async function eachByteOnce(files: Files, logs: readonly LayeredLog[], diskSize: number, append: Append): Promise<void> {
  const layer = await LogLayer.open(files, logs);
  try {
    // A discarded disk is one record, not one for each megabyte.
    let zeroes = { offset: 0, length: 0 };
    const endZeroes = async () => {
      if (zeroes.length > 0) await append(zeroes.offset, zeroes.length, null);
      zeroes = { offset: 0, length: 0 };
    };
    for (let offset = 0; offset < diskSize; offset += STRIDE_BYTES) {
      for (const piece of layer.pieces(offset, Math.min(STRIDE_BYTES, diskSize - offset))) {
        if (piece.from === 'zero' && zeroes.offset + zeroes.length === piece.offset) zeroes.length += piece.length;
        else {
          await endZeroes();
          if (piece.from === 'zero') zeroes = { offset: piece.offset, length: piece.length };
          else if (piece.from !== null) await append(piece.offset, piece.length, piece.from);
        }
      }
    }
    await endZeroes();
  } finally {
    await layer.close();
  }
}
