import type { Files, OpenFile, Random } from '../../model/ports.ts';
import { isZero } from '../../model/zero-bytes.ts';
import { copyWithin } from '../vhd/compact.ts';
import { readExactly } from '../vhd/image-errors.ts';
import type { LongWork } from '../vhd/merge-runs.ts';
import { isSet, runEnd } from '../vhd/sector-bits.ts';
import { PAYLOAD, payloadIndex } from './bat.ts';
import { MIB } from './header.ts';
import { openForChange } from './open.ts';
import type { OpenImage } from './open.ts';
import { readVhdx, roomOf, usedRanges } from './vhdx-image.ts';
import { VhdxMap } from './vhdx-map.ts';

/** So many blocks are moved between two commits. */
const MOVES_PER_COMMIT = 64;

/**
 * Makes the file of a dynamic or differencing VHDX as short as it can be: blocks that hold nothing but zeroes go, the
 * others move into the gaps. A guest sees no change, so DataWriteGuid stays. The disk must not be open. A crash leaves the
 * same contents; so does the signal, which ends the work at the next commit and is then thrown.
 * @returns file sizes before and after, in bytes
 */
export async function compactVhdx(
  path: string,
  files: Files,
  options: { random: Pick<Random, 'uuid'> } & LongWork,
): Promise<{ before: number; after: number }> {
  const open = await openForChange(path, files, options.random);
  try {
    const { file, image, session } = open;
    const before = image.fileSize;
    if (image.variant === 'fixed') return { before, after: before };
    await session.beginLayout();
    const map = new VhdxMap(image, session);
    await dropEmptyBlocks(open, map, options);
    await moveDown(open, map, options);
    await map.rest();
    // Only now: while the log is in use the file must not become shorter than the log says.
    const end = usedRanges(await readVhdx(file)).reduce((last, range) => Math.max(last, range.end), 0);
    await file.truncate(end);
    await file.datasync();
    options.signal?.throwIfAborted();
    return { before, after: end };
  } finally {
    await open.file.close();
  }
}

async function dropEmptyBlocks({ file, image }: OpenImage, map: VhdxMap, { progress, signal }: LongWork): Promise<void> {
  const { shape, bat } = image;
  for (let block = 0; block < shape.payloadBlocks; block++) {
    if (signal?.aborted === true) break;
    progress?.(block * shape.blockSize, shape.payloadBlocks * shape.blockSize);
    const index = payloadIndex(shape, block);
    const state = bat.state(index);
    if (roomOf(bat, index) === null) continue;
    if (state === PAYLOAD.partial) {
      const bits = await map.loadBits(block);
      const sectors = shape.blockSize / shape.sectorSize;
      if (!isSet(bits, 0) && runEnd(bits, 0, sectors) === sectors) map.vacate(block, 'absent');
    } else if (state !== PAYLOAD.full || (await blockReadsZero(file, bat.offset(index), shape.blockSize)))
      map.vacate(block, 'zero');
  }
  await map.commit();
}

async function blockReadsZero(file: OpenFile, position: number, length: number): Promise<boolean> {
  for (let done = 0; done < length; done += MIB) {
    if (!isZero(await readExactly(file, position + done, MIB, 'block'))) return false;
  }
  return true;
}

/** The last block goes into the first gap below it, until no gap fits. */
async function moveDown({ file, image }: OpenImage, map: VhdxMap, { signal }: LongWork): Promise<void> {
  const { shape, bat } = image;
  const position = (block: number) => roomOf(bat, payloadIndex(shape, block));
  while (signal?.aborted !== true) {
    const blocks: number[] = [];
    for (let block = 0; block < shape.payloadBlocks; block++) if (position(block) !== null) blocks.push(block);
    blocks.sort((a, b) => position(b)! - position(a)!);
    let moved = 0;
    for (const block of blocks) {
      if (moved === MOVES_PER_COMMIT) break;
      const room = map.space.takeGap(shape.blockSize, MIB, 0, position(block)!);
      if (room === null) continue;
      await copyWithin(file, position(block)!, room.position, shape.blockSize);
      map.move(payloadIndex(shape, block), shape.blockSize, room.position);
      moved += 1;
    }
    await map.commit();
    if (moved === 0) return;
  }
}
