/**
 * What is dirty in the page cache goes to the device a piece at a time before a flush that no guest has asked for. In one go, which is what a flush
 * alone would do, all of it stands before the guest's own requests, at the device and in the journal of its file system.
 *
 * Nothing is durable by this, and nothing of it is believed: the flush that follows is the same, and finds less to do.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { Clock } from '../model/ports.ts';

const PIECES = 64;
const PIECE_BYTES_MIN = 16 << 20;
/** Behind each piece so many times as long as it took; where nothing is dirty that is nothing. */
const PAUSE_TO_WORK = 4;
const PAUSE_MS_MIN = 2;
const PAUSE_MS_MAX = 50;

export async function writeBackInPieces(disk: VirtualDisk, clock: Pick<Clock, 'monotonic' | 'sleep'>): Promise<void> {
  const { virtualSize } = disk;
  const pieceBytes = Math.max(PIECE_BYTES_MIN, Math.ceil(virtualSize / PIECES));
  for (let offset = 0; offset < virtualSize; offset += pieceBytes) {
    const since = clock.monotonic();
    if (!(await began(disk, offset, Math.min(pieceBytes, virtualSize - offset)))) return;
    const pauseMs = Math.min(PAUSE_MS_MAX, (clock.monotonic() - since) * PAUSE_TO_WORK);
    if (pauseMs >= PAUSE_MS_MIN) await clock.sleep(pauseMs);
  }
}

/** A failure is for the flush to find, which says of everything whether it is durable (R3). */
async function began(disk: VirtualDisk, offset: number, length: number): Promise<boolean> {
  try {
    return (await disk.startWriteBack?.(offset, length)) === true;
  } catch {
    return false;
  }
}
