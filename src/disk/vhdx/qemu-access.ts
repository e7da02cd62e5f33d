import { dirname, resolve } from 'node:path';
import { UnderstudyError } from '../../model/errors.ts';
import type { Files } from '../../model/ports.ts';
import { shellWord } from '../disk-errors.ts';
import { decodeQcow2Header, type Qcow2Facts } from '../images/qcow2-header.ts';
import type { DiskFormat } from '../virtual-disk.ts';
import { geometryBytes, GEOMETRY_LARGEST, sameGeometry } from '../vhd/geometry.ts';
import { childrenOfVhd } from '../vhd/merge.ts';
import { inspectVhd } from '../vhd/vhd-image.ts';
import type { VhdImage } from '../vhd/vhd-image.ts';
import { childrenOfVhdx } from './merge.ts';
import { inspectVhdx } from './open.ts';

/** What to give to `-f` of a QEMU tool. It is always given: a guest can make a raw disk look like anything. */
export type QemuFormat = 'raw' | 'qcow2' | 'vpc' | 'vhdx';

/** QEMU's names of formats, ours of the same. */
export const OUR_NAMES: Readonly<Record<QemuFormat, DiskFormat>> = { raw: 'raw', qcow2: 'qcow2', vpc: 'vhd', vhdx: 'vhdx' };

export interface QemuAccessOptions {
  write: boolean;
  /** Follow the backing file of a qcow2 to a file outside of its folder. Default no. */
  allowParentOutside?: boolean;
}

/** A longer chain of backing files is taken for a loop. */
const BACKING_DEPTH_MAX = 64;
const QCOW2_HEAD_BYTES = 64 * 1024;

/**
 * The one place that decides whether a QEMU tool may open an image file. QEMU reads a differencing VHD as if it had no
 * parent, without a word; it refuses a differencing VHDX; replaying a VHDX log it changes the identity that children name;
 * and of some VHDs it takes the size from the geometry. A qcow2 makes it open other files, which have to be fit for it too.
 * @throws UnderstudyError DISK_NOT_FOR_QEMU with the reason, DISK_PARENT_OUTSIDE, DISK_PARENT_MISSING
 */
export async function qemuFormatOf(path: string, format: DiskFormat, files: Files, options: QemuAccessOptions): Promise<QemuFormat> {
  if (format === 'raw') return format;
  if (format === 'qcow2') {
    await checkBackingFiles(path, files, options);
    return format;
  }
  if (format === 'nbd') throw notForQemu(path, 'it is no file');
  if (format === 'vhd') {
    const image = await inspectVhd(path, files);
    if (image.variant === 'differencing') throw notForQemu(path, 'QEMU reads a differencing VHD without its parent');
    const seen = sizeForQemu(image);
    if (seen !== image.virtualSize) throw notForQemu(path, `QEMU would see ${seen} bytes instead of ${image.virtualSize}`);
    if (options.write) assertNoChildren(path, await childrenOfVhd(path, files));
    return 'vpc';
  }
  const image = await inspectVhdx(path, files);
  if (image.variant === 'differencing') throw notForQemu(path, 'QEMU cannot read a differencing VHDX');
  if (image.pendingLog.length > 0) throw notForQemu(path, 'its log has to be replayed first');
  if (options.write) assertNoChildren(path, await childrenOfVhdx(path, files));
  return 'vhdx';
}

async function readQcow2(path: string, files: Files): Promise<Qcow2Facts> {
  const file = await files.open(path, 'read');
  const head = Buffer.alloc(QCOW2_HEAD_BYTES);
  const header = decodeQcow2Header(head.subarray(0, await file.read(head, 0).finally(() => file.close())));
  if ('malformed' in header) throw notForQemu(path, header.malformed);
  return header;
}

/** The backing file as the image names it, its path made absolute; nobody has looked whether it is there. */
export async function backingNameOf(path: string, files: Files): Promise<string | null> {
  const { backingFile } = await readQcow2(path, files);
  return backingFile === null || isUri(backingFile) ? backingFile : resolve(dirname(path), backingFile);
}

const isUri = (name: string): boolean => /^[^/]*:/.test(name);

/** What a qcow2 image is built on; null without a backing file. */
export async function backingOf(
  path: string, files: Files, options: Pick<QemuAccessOptions, 'allowParentOutside'>,
): Promise<{ path: string; format: DiskFormat } | null> {
  const { backingFile, backingFormat, externalData } = await readQcow2(path, files);
  if (externalData) throw notForQemu(path, 'it keeps its data in another file');
  if (backingFile === null) return null;
  // `json:{…}`, `nbd://…`: anything but a path could make QEMU open whatever the image's author wanted.
  if (isUri(backingFile)) throw notForQemu(path, `its backing file is no plain path: ${backingFile}`);
  if (backingFormat === null || !Object.hasOwn(OUR_NAMES, backingFormat))
    throw notForQemu(path, `it says ${backingFormat ?? 'nothing'} about the format of its backing file ${backingFile}`);
  const backing = resolve(dirname(path), backingFile);
  if (options.allowParentOutside !== true && !backing.startsWith(`${dirname(resolve(path))}/`)) {
    throw new UnderstudyError('usage', 'DISK_PARENT_OUTSIDE', `${path} names the backing file ${backing}, outside of its own folder`,
      'Say --allow-parent-outside if you trust where this image comes from.');
  }
  if ((await files.stat(backing)) === null) {
    throw new UnderstudyError('io', 'DISK_PARENT_MISSING', `the backing file of ${path} was not found: ${backing}`,
      'Put it where the image says.');
  }
  return { path: backing, format: OUR_NAMES[backingFormat as QemuFormat] };
}

/** Backing files are only read. */
async function checkBackingFiles(path: string, files: Files, options: QemuAccessOptions): Promise<void> {
  for (let at = path, depth = 0; ; depth++) {
    if (depth > BACKING_DEPTH_MAX) throw notForQemu(path, `its chain has more than ${BACKING_DEPTH_MAX} backing files`);
    const backing = await backingOf(at, files, options);
    if (backing === null) return;
    if (backing.format !== 'qcow2') {
      await qemuFormatOf(backing.path, backing.format, files, { ...options, write: false });
      return;
    }
    at = backing.path;
  }
}

/** The rule of QEMU 7.2: these creators mean their size field, all others their geometry unless it is the largest. */
function sizeForQemu({ footer }: VhdImage): number {
  const bySize =
    ['win ', 'qem2', 'd2v\0', 'CTXS', 'tap\0'].includes(footer.creatorApp) ||
    sameGeometry(footer.geometry, GEOMETRY_LARGEST);
  return bySize ? footer.currentSize : geometryBytes(footer.geometry);
}

function assertNoChildren(path: string, children: readonly string[]): void {
  if (children.length > 0) throw notForQemu(path, `it is the parent of ${children.join(', ')}, which a write would break`);
}

function notForQemu(path: string, why: string): UnderstudyError {
  return new UnderstudyError(
    'state',
    'DISK_NOT_FOR_QEMU',
    `${path} must not be opened by QEMU's tools: ${why}`,
    `Copy it first, which Understudy does by itself: understudy disk convert ${shellWord(path)} COPY.raw --format raw`,
  );
}
