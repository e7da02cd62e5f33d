/** Raw files for the tests that compare and sync without servers. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';

export type MakeImage = (size: number, pieces: readonly (readonly [offset: number, bytes: Buffer])[]) => Promise<string>;

/** Makes sparse files of these bytes in the folder, each under its number's name; resolves with the path. */
export function imagesIn(folder: string, nameOf = (number: number): string => `${number}.raw`): MakeImage {
  let files = 0;
  return async (size, pieces) => {
    const path = join(folder, nameOf(files++));
    const file = await open(path, 'w');
    await file.truncate(size);
    for (const [offset, bytes] of pieces) await file.write(bytes, 0, bytes.length, offset);
    await file.close();
    return path;
  };
}
