/** The part of a path that is there already: what a folder that will be made is going to lie in. */
import { dirname } from 'node:path';
import type { Files } from '../model/ports.ts';

/** The path itself if it is a folder, else the closest above it that is one. Rejects as `stat` does. */
export async function nearestFolder(files: Pick<Files, 'stat'>, path: string): Promise<string> {
  const found = await files.stat(path);
  return found?.kind === 'folder' || path === dirname(path) ? path : nearestFolder(files, dirname(path));
}
