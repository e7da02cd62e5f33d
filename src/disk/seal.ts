/** What two seals of a disk say about the time between them (rule R24). Pure. */
import type { Seal } from './virtual-disk.ts';

/** A seal as it comes back from the catalog. */
type Kept = { kind: string } & Record<string, unknown>;

/** The marks of a seal by name; those of the file that a VHDX is in count like its own. */
export function marksOf({ file, ...own }: Kept): Record<string, unknown> {
  return { ...(file as Record<string, unknown> | undefined), ...own };
}

/**
 * The marks that say that a guest may see other contents; empty when it cannot. Both seals are of one kind.
 *
 * A VHDX says more than its file does: who changes only where its blocks lie (a compaction, a replayed log) gives it a new
 * FileWriteGuid and leaves its DataWriteGuid. Then newer time stamps and another length prove nothing. Equal GUIDs with other marks of
 * the file are somebody who does not know the rules, such as `dd`.
 */
export function changedMarks(before: Kept, now: Kept | Seal): string[] {
  const [old, found] = [marksOf(before), marksOf(now as Kept)];
  const changed = Object.keys(found).filter((key) => JSON.stringify(old[key]) !== JSON.stringify(found[key]));
  const rearranged = now.kind === 'vhdx' && changed.includes('fileWriteGuid') && !changed.includes('dataWriteGuid')
    && !changed.includes('inode') && !changed.includes('device') && BigInt(String(found['mtimeNs'])) >= BigInt(String(old['mtimeNs']));
  return rearranged ? [] : changed;
}
