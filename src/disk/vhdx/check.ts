import { messageOf } from '../../model/errors.ts';
import type { Files, Random } from '../../model/ports.ts';
import { isDamage, verdict } from '../vhd/check.ts';
import type { CheckResult, Finding } from '../vhd/check.ts';
import { layout } from '../vhd/space.ts';
import { openForChange, parentOf } from './open.ts';
import { regionTablePages } from './structure-pages.ts';
import { readVhdx, usedRanges } from './vhdx-image.ts';
import type { VhdxImage } from './vhdx-image.ts';

export interface CheckOptions {
  random: Pick<Random, 'uuid'>;
  /** Mend what can be mended without guessing: replay the log, rewrite damaged copies. The disk must not be open. */
  repair?: boolean;
  allowParentOutside?: boolean;
}

/** Looks for damage in the structures of a VHDX, never at what a guest has stored. */
export async function checkVhdx(path: string, files: Files, options: CheckOptions): Promise<CheckResult> {
  const findings: Finding[] = [];
  const file = await files.open(path, 'read');
  try {
    let mend = false;
    try {
      const image = await readVhdx(file);
      mend = checkCopies(image, options.repair === true, findings);
      checkSpace(image, findings);
      if (image.variant === 'differencing') await parentOf(path, files, image, options);
    } finally {
      await file.close();
    }
    if (mend && findings.every(({ severity }) => severity !== 'error')) await mendCopies(path, files, options.random);
  } catch (error) {
    if (!isDamage(error)) throw error;
    findings.push({ severity: 'error', what: messageOf(error) });
  }
  return verdict(findings);
}

/** True when there is something to mend and leave to do so. */
function checkCopies(image: VhdxImage, repair: boolean, findings: Finding[]): boolean {
  const severity = repair ? 'repaired' : 'error';
  const before = findings.length;
  image.damage.headers.forEach((why, index) => {
    if (why !== null) findings.push({ severity, what: `header ${index + 1}: ${why}` });
  });
  image.damage.regionTables.forEach((why, index) => {
    if (why !== null) findings.push({ severity, what: `region table ${index + 1}: ${why}` });
  });
  if (image.pendingLog.length > 0) {
    const what = `the disk was not closed cleanly: ${image.pendingLog.length} log entries to replay`;
    findings.push({ severity: repair ? 'repaired' : 'warning', what });
  }
  return repair && findings.length > before;
}

function checkSpace(image: VhdxImage, findings: Finding[]): void {
  const used = layout(usedRanges(image), 0);
  if ('overlap' in used) {
    const [a, b] = used.overlap;
    findings.push({
      severity: 'error',
      what: `two structures share the file's bytes: ${a.start}..${a.end} and ${b.start}..${b.end}`,
    });
  }
}

/** Opening replays the log; a header update writes both headers. */
async function mendCopies(path: string, files: Files, random: Pick<Random, 'uuid'>): Promise<void> {
  const { file, image, session } = await openForChange(path, files, random);
  try {
    await session.beginLayout();
    await session.sync();
    await session.writeTogether(await regionTablePages(file, image.regions));
    await session.rest();
  } finally {
    await file.close();
  }
}
