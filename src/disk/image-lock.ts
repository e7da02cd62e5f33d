/**
 * The image locks of QEMU (block/file-posix.c, `raw_apply_lock_bytes` and `raw_check_lock_bytes`), so that Understudy
 * and QEMU keep each other from an image that one of them uses, and so do two Understudys.
 *
 *   byte 100 + p, shared lock: this opening uses permission p
 *   byte 200 + p, shared lock: this opening does not share permission p with others
 *   p: 0 consistent read, 1 write, 2 write unchanged, 3 resize
 *
 * Everybody takes the locks first and looks for those of others second; of two who come at once at least one sees the
 * other. The locks are open-file-description locks: they end with the opening, so a crash releases them.
 */
import type { Libc } from './libc.ts';

const USES = 100;
const KEEPS = 200;
const PERMISSION = { consistentRead: 0, write: 1, resize: 3 } as const;
const NAMES = new Map<number, string>([[0, 'reading'], [1, 'writing'], [3, 'resizing']]);

export type ImageLockResult =
  | { kind: 'held' }
  | { kind: 'unsupported' } // no such locks on this host or file system: whoever needs the proof does not have it
  | { kind: 'conflict'; by: string };

/**
 * Takes the locks of a reader or a writer on an open file and holds them until it is closed. A reader keeps writers
 * away, so that what it reads stays so; readers get along with each other. After a conflict the caller closes the file.
 */
export function lockImage(fd: number, mode: 'read' | 'write', libc: Libc): ImageLockResult {
  const uses: number[] = [PERMISSION.consistentRead];
  if (mode === 'write') uses.push(PERMISSION.write);
  const keeps = [PERMISSION.write, PERMISSION.resize];

  for (const byte of [...uses.map((p) => USES + p), ...keeps.map((p) => KEEPS + p)]) {
    const result = libc.lockByte(fd, byte, 'read');
    if (result === 'unsupported') return { kind: 'unsupported' };
    if (result === 'conflict') return { kind: 'conflict', by: 'another program has locked it exclusively' };
  }
  for (const p of keeps) {
    if (libc.isByteLocked(fd, USES + p)) return { kind: 'conflict', by: `another program has it open for ${NAMES.get(p)}` };
  }
  for (const p of uses) {
    if (!libc.isByteLocked(fd, KEEPS + p)) continue;
    return { kind: 'conflict', by: `another program has it open and does not share ${NAMES.get(p)}` };
  }
  return { kind: 'held' };
}
