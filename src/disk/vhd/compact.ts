import type { Files, OpenFile } from '../../model/ports.ts';
import { isZero } from '../../model/zero-bytes.ts';
import { readExactly } from './image-errors.ts';
import type { LongWork } from './merge-runs.ts';
import { isSet, runEnd } from './sector-bits.ts';
import type { SectorBits } from './sector-bits.ts';
import { writeFooters } from './resize.ts';
import { layout } from './space.ts';
import { ABSENT, readVhd, usedRanges } from './vhd-image.ts';
import type { SparseParts, VhdImage } from './vhd-image.ts';
import { VhdMap } from './vhd-map.ts';

/** So many blocks are moved between two syncs. */
const MOVES_PER_COMMIT = 64;

/**
 * Makes the file of a dynamic or differencing VHD as short as it can be: blocks that hold nothing go, the others move into
 * the gaps. The disk must not be open. A crash leaves a disk with the same contents; so does the signal, which ends the work at
 * the next commit and is then thrown.
 * @returns file sizes before and after, in bytes
 */
export async function compactVhd(path: string, files: Files, work: LongWork = {}): Promise<{ before: number; after: number }> {
  const file = await files.open(path, 'write');
  try {
    const image = await readVhd(file);
    const before = image.fileSize;
    if (image.sparse === null) return { before, after: before };
    const map = new VhdMap(file, image, image.sparse, false);
    await dropEmptyBlocks(file, image, image.sparse, map, work);
    await moveDown(file, image.sparse, map, work);
    await map.rest();
    const used = layout(usedRanges(image, image.sparse), 0);
    if ('overlap' in used) throw new TypeError('the map keeps blocks apart');
    await file.truncate(used.end);
    await writeFooters(file, used.end, image.footer);
    work.signal?.throwIfAborted();
    return { before, after: await file.size() };
  } finally {
    await file.close();
  }
}

async function dropEmptyBlocks(
  file: OpenFile, image: VhdImage, { bat }: SparseParts, map: VhdMap, { progress, signal }: LongWork,
): Promise<void> {
  for (let block = 0; block < bat.length; block++) {
    if (signal?.aborted === true) break;
    progress?.(block * map.blockSize, bat.length * map.blockSize);
    if (bat[block] === ABSENT) continue;
    const bits = await map.loadBits(block);
    const sectors = map.blockSize / 512;
    const empty =
      image.variant === 'dynamic'
        ? await readsZero(file, map.position(block), bits, sectors)
        : !isSet(bits, 0) && runEnd(bits, 0, sectors) === sectors;
    if (empty) map.vacate(block, 'absent');
  }
  await map.commit();
}

async function readsZero(file: OpenFile, position: number, bits: SectorBits, sectors: number): Promise<boolean> {
  for (let from = 0; from < sectors;) {
    const end = Math.min(runEnd(bits, from, sectors), from + 2048);
    if (isSet(bits, from)) {
      const bytes = await readExactly(file, position + from * 512, (end - from) * 512, 'block');
      if (!isZero(bytes)) return false;
    }
    from = end;
  }
  return true;
}

/** Moved at once. */
const COPY_BYTES = 1 << 20;

/** The last block goes into the first gap below it, until no gap fits. */
async function moveDown(file: OpenFile, { bat, bitmapBytes, header }: SparseParts, map: VhdMap, { signal }: LongWork): Promise<void> {
  while (signal?.aborted !== true) {
    const blocks = [...bat.keys()].filter((block) => bat[block] !== ABSENT).sort((a, b) => bat[b]! - bat[a]!);
    let moved = 0;
    for (const block of blocks) {
      if (moved === MOVES_PER_COMMIT) break;
      const room = map.gapBelow(bat[block]! * 512);
      if (room === null) continue;
      await copyWithin(file, bat[block]! * 512, room.position - bitmapBytes, bitmapBytes + header.blockSize);
      map.move(block, room.position);
      moved += 1;
    }
    await map.commit();
    if (moved === 0) return;
  }
}

/** Copies inside of one file; the ranges do not overlap. */
export async function copyWithin(file: OpenFile, from: number, to: number, length: number): Promise<void> {
  for (let done = 0; done < length; done += COPY_BYTES) {
    const bytes = await readExactly(file, from + done, Math.min(COPY_BYTES, length - done), 'block');
    await file.write([bytes], to + done);
  }
}
