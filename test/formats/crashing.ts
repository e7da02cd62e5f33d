import assert from 'node:assert/strict';
import type { CrashFiles } from './crash-files.ts';
import { crashModes, snapshotOf } from './crash-run.ts';
import { LONG, type Seeded } from './seeded.ts';

/** Cuts the power at every sync of `work` and hands each outcome to `look`. */
export async function crashing(
  files: CrashFiles,
  random: Seeded,
  work: () => Promise<unknown>,
  look: (after: CrashFiles, what: string) => Promise<void>,
): Promise<void> {
  const before = snapshotOf(files);
  files.trace.length = 0;
  await work();
  let points = 0;
  for (const crash of files.crashes(before, crashModes(random))) {
    points += 1;
    if (!LONG && random.next() < 0.6) continue; // Each seed tries others of the same cuts.
    await look(crash.files, `cut at ${crash.at} (${crash.mode})`);
  }
  assert.ok(points >= 8, `${points} cuts`);
}
