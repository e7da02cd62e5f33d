import { errnoOf, messageOf, UnderstudyError } from '../../model/errors.ts';
import type { Files, OpenFile } from '../../model/ports.ts';
import { isZero } from '../../model/zero-bytes.ts';
import { readExactly } from './image-errors.ts';
import { FOOTER_BYTES } from './footer.ts';
import { parentOf } from './open.ts';
import { writeFooters } from './resize.ts';
import { isSet, runEnd } from './sector-bits.ts';
import { layout } from './space.ts';
import { ABSENT, inspectVhd, readVhd, usedRanges } from './vhd-image.ts';
import type { SparseParts, VhdImage } from './vhd-image.ts';

export interface Finding {
  severity: 'error' | 'warning' | 'repaired';
  what: string;
}

export interface CheckResult {
  /** No finding of severity `error`. */
  ok: boolean;
  findings: Finding[];
}

export interface CheckOptions {
  /** Mend what can be mended without guessing. The disk must not be open. */
  repair?: boolean;
  allowParentOutside?: boolean;
}

export const verdict = (findings: Finding[]): CheckResult => ({
  ok: findings.every(({ severity }) => severity !== 'error'),
  findings,
});

/** What a check reports. Anything else, such as a disk that is in use, keeps it from saying anything. */
export const isDamage = (error: unknown): boolean =>
  error instanceof UnderstudyError ? error.kind !== 'state' : errnoOf(error) !== undefined;

/** Looks for damage in the structures of a VHD, never at what a guest has stored. */
export async function checkVhd(path: string, files: Files, options: CheckOptions = {}): Promise<CheckResult> {
  const findings: Finding[] = [];
  const file = await files.open(path, options.repair === true ? 'write' : 'read');
  try {
    const image = await readVhd(file);
    if (image.footer.savedState !== 0)
      findings.push({ severity: 'warning', what: 'the disk belongs to a machine whose state is saved' });
    if (image.sparse !== null) {
      for (const what of image.sparse.warnings) findings.push({ severity: 'warning', what });
      await checkSpace(file, image, image.sparse, options.repair === true, findings);
      if (image.variant === 'dynamic') await checkHiddenBytes(file, image.sparse, findings);
      else await checkParent(path, files, image, options, findings);
    }
  } catch (error) {
    if (!isDamage(error)) throw error;
    findings.push({ severity: 'error', what: messageOf(error) });
  } finally {
    await file.close();
  }
  return verdict(findings);
}

/** Overlaps cannot be mended; footers and what lies behind the last block can. */
async function checkSpace(
  file: OpenFile,
  image: VhdImage,
  sparse: SparseParts,
  repair: boolean,
  findings: Finding[],
): Promise<void> {
  const used = layout(usedRanges(image, sparse), 0);
  if ('overlap' in used) {
    const [a, b] = used.overlap;
    findings.push({
      severity: 'error',
      what: `two structures share the file's bytes: ${a.start}..${a.end} and ${b.start}..${b.end}`,
    });
    return;
  }
  const { tail, head, equal } = image.footers;
  const wrong: string[] = [];
  if (!tail) wrong.push('the footer at the end is damaged');
  if (!head) wrong.push('the copy of the footer at 0 is damaged');
  if (tail && head && !equal) wrong.push('the footer at the end and its copy at 0 differ');
  if (repair && wrong.length > 0) {
    if (!tail) await file.truncate(used.end);
    await writeFooters(file, tail ? image.fileSize - FOOTER_BYTES : used.end, image.footer);
  }
  for (const what of wrong) findings.push({ severity: repair ? 'repaired' : 'error', what });
}

/** Readers disagree about bytes under a clear bit of a dynamic disk: QEMU shows them, we and others show zeroes. */
async function checkHiddenBytes(
  file: OpenFile,
  { bat, bitmapBytes, header }: SparseParts,
  findings: Finding[],
): Promise<void> {
  let hidden = 0;
  const sectors = header.blockSize / 512;
  for (const sector of bat) {
    if (sector === ABSENT) continue;
    const bytes = await readExactly(file, sector * 512, bitmapBytes, 'bitmap');
    const bits = { bytes, firstBit: 0, order: 'msb-first' } as const;
    for (let from = 0; from < sectors;) {
      const end = Math.min(runEnd(bits, from, sectors), from + 2048);
      if (
        !isSet(bits, from) &&
        !isZero(await readExactly(file, sector * 512 + bitmapBytes + from * 512, (end - from) * 512, 'block'))
      )
        hidden += 1;
      from = end;
    }
  }
  if (hidden > 0)
    findings.push({ severity: 'warning', what: `${hidden} runs of sectors hold bytes, but are marked as never written` });
}

async function checkParent(
  path: string,
  files: Files,
  image: VhdImage,
  options: CheckOptions,
  findings: Finding[],
): Promise<void> {
  const parent = await inspectVhd(await parentOf(path, files, image, options), files);
  const { parentTimestamp } = image.sparse!.header;
  // Windows writes 0 and compares only the id, so this is a hint.
  if (parentTimestamp === 0 || parentTimestamp === parent.footer.timestamp) return;
  findings.push({
    severity: 'warning',
    what: `the parent ${parent.path} carries another time than when this disk was made: it may have been changed`,
  });
}
