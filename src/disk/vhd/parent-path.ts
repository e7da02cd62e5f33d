import { basename, dirname, resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Files } from '../../model/ports.ts';

/**
 * Where the parent of a differencing disk may be. What an image says about paths is outside input: without leave nothing
 * is opened that does not lie in the image's own folder or below. (A symbolic link in that folder is the administrator's
 * own doing.)
 */

export interface ParentPaths {
  /** Relative to the child, with `\` or `/`; from the locator. */
  relative: string[];
  /** Windows paths of other hosts: of these only the last name is of use here. */
  absolute: string[];
}

/** The candidates in the order in which they are tried, each with whether it lies inside the child's folder. Pure. */
export function parentCandidates(child: string, paths: ParentPaths): { path: string; inside: boolean }[] {
  const folder = dirname(resolve(child));
  const found: { path: string; inside: boolean }[] = [];
  const add = (path: string) => {
    if (path.includes('\0') || path === folder || found.some((one) => one.path === path)) return;
    found.push({ path, inside: folder === '/' || path.startsWith(`${folder}/`) });
  };
  for (const relative of paths.relative) {
    const local = relative.replaceAll('\\', '/');
    if (/^(\/|[A-Za-z]:)/.test(local)) continue;
    add(resolve(folder, local));
  }
  for (const path of [...paths.relative, ...paths.absolute]) {
    const name = basename(path.replaceAll('\\', '/'));
    if (name !== '' && name !== '.' && name !== '..') add(resolve(folder, name));
  }
  return found;
}

/**
 * The first candidate that exists.
 * @throws UnderstudyError DISK_PARENT_OUTSIDE when only forbidden ones are named, DISK_PARENT_MISSING when none exists.
 */
export async function findParent(
  child: string,
  paths: ParentPaths,
  files: Files,
  options: { allowParentOutside?: boolean },
): Promise<string> {
  const candidates = parentCandidates(child, paths);
  const outside = candidates.find((one) => !one.inside);
  for (const { path, inside } of candidates) {
    if (!inside && options.allowParentOutside !== true) continue;
    const stat = await files.stat(path);
    if (stat !== null && stat.kind === 'file') return path;
  }
  if (outside !== undefined && options.allowParentOutside !== true) {
    throw new UnderstudyError(
      'usage',
      'DISK_PARENT_OUTSIDE',
      `${child} names the parent ${outside.path}, outside of its own folder ${dirname(resolve(child))}`,
      'Move the parent beside the child, or allow parents outside if you trust where this image comes from.',
    );
  }
  const names = candidates.map((one) => one.path).join(', ') || 'nothing';
  throw new UnderstudyError(
    'io',
    'DISK_PARENT_MISSING',
    `the parent of ${child} was not found: tried ${names}`,
    'Put the parent disk into the folder of the child, under the name it had.',
  );
}

/** The path of `parent` as a child in `child`'s folder names it: `.\name` or `..\folder\name`. */
export function relativeWindowsPath(child: string, parent: string): string {
  const from = dirname(resolve(child))
    .split('/')
    .filter((part) => part !== '');
  const to = resolve(parent)
    .split('/')
    .filter((part) => part !== '');
  let same = 0;
  while (same < from.length && same < to.length - 1 && from[same] === to[same]) same += 1;
  const up = from.slice(same).map(() => '..');
  return [...(up.length === 0 ? ['.'] : up), ...to.slice(same)].join('\\');
}
