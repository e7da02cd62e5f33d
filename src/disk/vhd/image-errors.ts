import { UnderstudyError } from '../../model/errors.ts';
import type { OpenFile } from '../../model/ports.ts';

/** What is wrong inside of an image, with where. */
export function malformedImage(path: string, what: string): UnderstudyError {
  return new UnderstudyError(
    'io',
    'DISK_MALFORMED',
    `${path}: ${what}`,
    `Run: understudy disk check ${path} --repair, or take a good copy of the file.`,
  );
}

/** Reads `length` bytes or throws DISK_MALFORMED; `what` names the structure. */
export async function readExactly(file: OpenFile, position: number, length: number, what: string): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const count = await file.read(bytes, position);
  if (count < length)
    throw malformedImage(file.path, `the file ends at ${position + count}, inside of the ${what} (${position}+${length})`);
  return bytes;
}

/** Unwraps what a codec returned. */
export function decoded<T extends object>(path: string, value: T | { malformed: string }): T {
  if ('malformed' in value) throw malformedImage(path, value.malformed);
  return value;
}
