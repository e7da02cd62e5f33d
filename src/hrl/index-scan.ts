/** Reads the frames of an index up to the first one that is not whole. */
import {
  decodeFrame, decodeFrameHeader, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, frameBytes, INDEX_HEADER_BYTES, type Frame,
} from './log-index.ts';
import type { WindowedFile } from './windowed-file.ts';

/** A whole frame and where it ends in the index. What it says has not been compared with anything. */
export interface ScannedFrame {
  frame: Frame;
  end: number;
}

export async function* wholeFrames(index: WindowedFile): AsyncGenerator<ScannedFrame, void, void> {
  let at = INDEX_HEADER_BYTES;
  while (at + FRAME_HEADER_BYTES <= index.size) {
    const header = decodeFrameHeader(await index.bytes(at, FRAME_HEADER_BYTES));
    if ('malformed' in header) return;
    const length = frameBytes(header.entryCount, header.markCount);
    if (length > FRAME_BYTES_MAX || at + length > index.size) return;
    const frame = decodeFrame(await index.bytes(at, length));
    if ('malformed' in frame) return;
    at += length;
    yield { frame, end: at };
  }
}

/** Records that begin in this frame. */
export function recordsIn(frame: Frame): number {
  return frame.entries.reduce((count, entry) => count + (entry.startsRecord ? 1 : 0), 0);
}
