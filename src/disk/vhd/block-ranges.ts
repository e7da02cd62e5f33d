/** Ranges of a disk by the blocks that they touch. */

/** A piece of the disk and where its bytes are; `position` is an offset in the file. */
export interface Run {
  offset: number;
  length: number;
  from: 'file' | 'zero' | 'parent';
  position: number;
}

export const floorTo = (value: number, step: number): number => value - (value % step);

/** [block, start, end] for each block that a range touches. */
export function* pieces(offset: number, length: number, blockSize: number): Iterable<[number, number, number]> {
  const stop = offset + length;
  for (let start = offset; start < stop;) {
    const block = Math.floor(start / blockSize);
    const end = Math.min(stop, (block + 1) * blockSize);
    yield [block, start, end];
    start = end;
  }
}
